// An average over windows that reach over the border: the accumulators outside of it do not take part.
// Overlapping windows stay a kernel of their own, since what they share would be computed twice.
// RUN: ml4f-opt %s -p loop-fuse-pool | filecheck %s
// RUN: ml4f-opt %s -p loop-fuse-pool,loop-choose-schedule,loop-pack-weights,loop-plan-memory,loop-expand --run-between-passes

loop.data @w = dense<0.125> : tensor<4xf32>
loop.buffer @x {bytes = 20 : i64}
loop.buffer @a {bytes = 80 : i64}
loop.buffer @b {bytes = 48 : i64}
loop.buffer @out {bytes = 32 : i64}
// CHECK: loop.kernel @conv
loop.kernel @conv(%x : arena, %w : const, %out : arena) {
  // CHECK-NEXT: parallel (ox = 3, px = 2, f = 4) mac x["2*ox + px - 1"], w["f"], out["4*ox + f"] then activation relu, pool_sum, mul(5.000000e-01 : f64) pooled where "2*ox + px - 1" < 5>
  loop.nest %x, %w, %out : <parallel (ox = 5, f = 4) mac x["ox"], w["f"], out["4*ox + f"] then activation relu>
}
// CHECK-NOT: @apart
loop.kernel @apart(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (ox = 3, c = 4) reduce (kx = 2) add x["8*ox + 4*kx + c - 4"], out["4*ox + c"] where "2*ox + kx - 1" < 5 then mul (0.5 : f64)>
}
// CHECK: loop.kernel @overlapping
loop.kernel @overlapping(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (ox = 2, c = 4) reduce (kx = 2) add x["4*ox + 4*kx + c"], out["4*ox + c"]>
}
loop.program @main attributes {input_shapes = [[5 : i64]], output_shapes = [[8 : i64]], inputs = [@x], outputs = [@out]} {
  // CHECK: loop.call @conv(@x, @w, @b)
  // CHECK-NEXT: loop.call @overlapping(@b, @out)
  loop.call @conv(@x, @w, @a)
  loop.call @apart(@a, @b)
  loop.call @overlapping(@b, @out)
}
