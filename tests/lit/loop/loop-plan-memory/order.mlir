// RUN: ml4f-opt %s -p 'loop-plan-memory{exchange=false}' --run-between-passes | filecheck %s
// RUN: ml4f-opt %s -p 'loop-plan-memory{exchange=false reorder=false}' | filecheck %s --check-prefix=GIVEN

// Two branches that are wide in between: one is finished before the other begins. A layer's calls stay together.

loop.buffer @x {bytes = 16 : i64}
loop.buffer @wide0 {bytes = 256 : i64}
loop.buffer @wide1 {bytes = 256 : i64}
loop.buffer @y {bytes = 8 : i64}
loop.kernel @widen(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (p = 4, f = 16) copy x["p"], out["16*p + f"]> schedule <loops (p[1 * 4], f[4 * 4])>
}
loop.kernel @narrow0(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (p = 1) reduce (c = 64) max x["c"], out["p"] initial 0xfff0000000000000 : f64> schedule <loops (p[1 * 1], c[4 * 16])>
}
loop.kernel @narrow1(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (p = 1) reduce (c = 64) max x["c"], out["p + 1"] initial 0xfff0000000000000 : f64> schedule <loops (p[1 * 1], c[4 * 16])>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @widen(@x, @wide0) {layers = ["w0"], shape = [64 : i64]}
  loop.call @widen(@x, @wide1) {layers = ["w1"], shape = [64 : i64]}
  loop.call @narrow0(@wide0, @y) {layers = ["n0"], shape = [1 : i64]}
  loop.call @narrow1(@wide1, @y) {layers = ["n1"], shape = [1 : i64]}
}

// CHECK: loop.call @widen(@x, @wide0)
// CHECK-NEXT: loop.call @narrow0(@wide0, @y)
// CHECK-NEXT: loop.call @widen(@x, @wide1)
// CHECK-NEXT: loop.call @narrow1(@wide1, @y)

// GIVEN: loop.call @widen(@x, @wide0)
// GIVEN-NEXT: loop.call @widen(@x, @wide1)
// GIVEN-NEXT: loop.call @narrow0(@wide0, @y)
