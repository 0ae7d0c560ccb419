// Limits around 0 compare bit patterns: results stay in core registers, and constants are made once, before the loop.
// RUN: ml4f-opt %s -p loop-expand | filecheck %s
// RUN: ml4f-opt %s -p loop-plan-memory,loop-expand,loop-lower-addresses --run-between-passes

// CHECK-LABEL: loop.kernel @six
// CHECK-NEXT: [[SIX:%.*]] = loop.int_constant {value = 1086324736 : i32}
// CHECK-NEXT: loop.for [[I:%.*]] times 4
// CHECK-NEXT: [[A:%.*]] = loop.load %x{{.*}} : i32
// CHECK-NEXT: [[B:%.*]] = loop.load %x{{.*}} : i32
// CHECK-NEXT: [[A0:%.*]] = loop.relu_bits [[A]]
// CHECK-NEXT: [[B0:%.*]] = loop.relu_bits [[B]]
// CHECK-NEXT: [[A6:%.*]] = loop.iselect "gt" [[A0]], [[SIX]], [[A0]], [[SIX]]
// CHECK-NEXT: loop.iselect "gt" [[B0]], [[SIX]], [[B0]], [[SIX]]
// CHECK-NEXT: loop.store [[A6]], %out
// CHECK-LABEL: loop.kernel @scaled
// CHECK: [[LOW:%.*]] = loop.int_constant {value = -1090519040 : i32}
// CHECK-NEXT: [[HIGH:%.*]] = loop.int_constant {value = 1065353216 : i32}
// CHECK: loop.for
// CHECK: [[C:%.*]], {{%.*}} = loop.bits_pair
// CHECK: [[D:%.*]] = loop.iselect "hi" [[C]], [[LOW]], [[C]], [[LOW]] : i32, i32 -> i32
// CHECK: loop.iselect "gt" [[D]], [[HIGH]], [[D]], [[HIGH]] : i32, i32 -> i32
// CHECK: loop.store {{%.*}}, %out{{.*}} : i32
loop.buffer @x {bytes = 32 : i64}
loop.buffer @y {bytes = 32 : i64}
loop.buffer @out {bytes = 32 : i64}
loop.kernel @six(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 8) copy x["d"], out["d"] then activation relu6> schedule <loops (d[2 * 4]) tile (d) points 1 chunk 0 vector 4 hoist>
}
loop.kernel @scaled(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 8) copy x["d"], out["d"] then mul(2.000000e+00 : f64), activation clip(-5.000000e-01 : f64, 1.000000e+00 : f64)> schedule <loops (d[2 * 4]) tile (d) points 1 chunk 0 vector 4 hoist>
}
loop.program @main attributes {input_shapes = [[8 : i64]], output_shapes = [[8 : i64]], inputs = [@x], outputs = [@out]} {
  loop.call @six(@x, @y)
  loop.call @scaled(@y, @out)
}
