// RUN: ml4f-opt -p loop-plan-memory --run-between-passes --split-input-file %s | filecheck %s

// Elementwise: in place.

// CHECK: loop.buffer @x {bytes = 32 : i64, offset = 0 : i64}
// CHECK: loop.buffer @y {bytes = 32 : i64, offset = 0 : i64}
// CHECK: loop.program @main attributes {{.*}}arena_bytes = 32 : i64, arena_bound = 32 : i64
loop.buffer @x {bytes = 32 : i64}
loop.buffer @y {bytes = 32 : i64}
loop.kernel @k(%x : arena, %y : arena) {
  loop.nest %x, %y : <parallel (d = 8) copy x["d"], out["d"] then activation relu> schedule <loops (d[2 * 4]) tile (d) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y], input_shapes = [[8]], output_shapes = [[8]]} {
  loop.call @k(@x, @y)
}

// -----

// A window of three: an output may lie on the input that its tile reads last, so the output stands below the input.
// Turning round would save nothing.

// CHECK: loop.buffer @x {bytes = 40 : i64, offset = 0 : i64}
// CHECK: loop.buffer @y {bytes = 32 : i64, offset = 0 : i64}
// CHECK-NOT: reverse
// CHECK: arena_bound = 40 : i64
loop.buffer @x {bytes = 40 : i64}
loop.buffer @y {bytes = 32 : i64}
loop.kernel @k(%x : arena, %y : arena) {
  loop.nest %x, %y : <parallel (d = 8) reduce (k = 3) add x["d + k"], out["d"]> schedule <loops (d[2 * 4], k[3 * 1]) tile (d) unroll (k) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y], input_shapes = [[10]], output_shapes = [[8]]} {
  loop.call @k(@x, @y)
}

// -----

// Each element is the sum of three, with zero padding: an output written forwards must
// stand one element below its input. Twice in a row that would take two elements; the second kernel runs backwards instead.

// CHECK: loop.buffer @x {bytes = 32 : i64, offset = 4 : i64}
// CHECK: loop.buffer @y {bytes = 32 : i64, offset = 0 : i64}
// CHECK: loop.buffer @z {bytes = 32 : i64, offset = 4 : i64}
// CHECK: loop.kernel @first
// CHECK-NOT: reverse
// CHECK: loop.kernel @second
// CHECK: reverse (d)
// CHECK: arena_bytes = 36 : i64, arena_bound = 36 : i64
loop.buffer @x {bytes = 32 : i64}
loop.buffer @y {bytes = 32 : i64}
loop.buffer @z {bytes = 32 : i64}
loop.kernel @first(%x : arena, %y : arena) {
  loop.nest %x, %y : <parallel (d = 8) reduce (k = 3) add x["d + k - 1"], out["d"] where "d + k - 1" < 8> schedule <loops (d[1 * 1, 1 * 6, 1 * 1], k[3 * 1]) unroll (k) points 1 chunk 0 vector 4>
}
loop.kernel @second(%x : arena, %y : arena) {
  loop.nest %x, %y : <parallel (d = 8) reduce (k = 3) add x["d + k - 1"], out["d"] where "d + k - 1" < 8 then activation relu> schedule <loops (d[1 * 1, 1 * 6, 1 * 1], k[3 * 1]) unroll (k) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@z], input_shapes = [[8]], output_shapes = [[8]]} {
  loop.call @first(@x, @y)
  loop.call @second(@y, @z)
}
