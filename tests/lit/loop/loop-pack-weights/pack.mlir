// Weights in the order in which the schedule reads them: blocks of as many filters as a tile has, biases in front.
// RUN: ml4f-opt %s -p loop-pack-weights --split-input-file --run-between-passes | filecheck %s

// Three filters in tiles of two and one: biases 10, 20, then each input's pair of weights; bias 30, then its weights.
// CHECK:       loop.data @dense_weights = dense<[0, 0, 32, 65, 0, 0, -96, 65,
// CHECK-SAME:    0, 0, -128, 63, 0, 0, 0, 64,
// CHECK-SAME:    0, 0, -128, 64, 0, 0, -96, 64,
// CHECK-SAME:    0, 0, -16, 65,
// CHECK-SAME:    0, 0, 64, 64,
// CHECK-SAME:    0, 0, -64, 64]> : tensor<36xi8>
// CHECK-NOT:   @bias
// CHECK:       loop.kernel @dense(%x : arena, %w : const, %out : arena) {
// CHECK-NEXT:    loop.nest %x, %w, %w, %out : {{.*}} {packed}
// CHECK:       loop.call @dense(@x, @dense_weights, @out)
loop.buffer @x {bytes = 8 : i64}
loop.buffer @out {bytes = 12 : i64}
loop.data @w = dense<[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]> : tensor<6xf32>
loop.data @bias = dense<[10.0, 20.0, 30.0]> : tensor<3xf32>
loop.kernel @dense(%x : arena, %w : const, %b : const, %out : arena) {
  loop.nest %x, %w, %b, %out : <parallel (f = 3) reduce (c = 2) mac x["c"], w["3*c + f"], bias["f"], out["f"]> schedule <loops (f[2 * 1, 1 * 1], c[2 * 1]) tile (f) unroll (c) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@out]} {
  loop.call @dense(@x, @w, @bias, @out)
}
// -----
// As float16 they take half; two filters in one word.
// CHECK:       loop.data @dense_weights = dense<[0, 60, 0, 64, 0, 66, 0, 68, 0, 69, 0, 70]> : tensor<12xi8>
loop.buffer @x {bytes = 12 : i64}
loop.buffer @out {bytes = 8 : i64}
loop.data @w = dense<[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]> : tensor<6xf32>
loop.kernel @dense(%x : arena, %w : const, %out : arena) {
  loop.nest %x, %w, %out : <parallel (f = 2) reduce (c = 3) mac x["c"], w["2*c + f"] f16, out["f"]> schedule <loops (f[2 * 1], c[3 * 1]) tile (f) unroll (c) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@out]} {
  loop.call @dense(@x, @w, @out)
}
// -----
// A trimmed dim gets a table: for each row its first tap and how many.
// CHECK:       loop.data @pool_bounds = dense<[1, 2, 0, 3, 0, 2, 0, 0]> : tensor<8xi8>
// CHECK:       loop.kernel @pool(%x : arena, %out : arena, %bounds : const) {
// CHECK:       bounds["2*oy"]
// CHECK:       loop.call @pool(@x, @out, @pool_bounds)
loop.buffer @x {bytes = 12 : i64}
loop.buffer @out {bytes = 12 : i64}
loop.kernel @pool(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (oy = 3) reduce (ky = 3) add x["oy + ky - 1"], out["oy"] where "oy + ky - 1" < 3> schedule <loops (oy[1 * 3], ky[1 * 3]) points 1 chunk 0 vector 4 trim (oy, ky)>
}
loop.program @main attributes {inputs = [@x], outputs = [@out]} {
  loop.call @pool(@x, @out)
}
