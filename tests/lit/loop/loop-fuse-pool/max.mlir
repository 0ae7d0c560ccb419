// A pool becomes part of the kernel that computes its input, and the relu moves behind the maximum.
// RUN: ml4f-opt %s -p loop-fuse-pool | filecheck %s
// RUN: ml4f-opt %s -p loop-fuse-pool,loop-choose-schedule,loop-pack-weights,loop-plan-memory,loop-expand --run-between-passes

loop.data @w = dense<0.125> : tensor<24xf32>
loop.data @bias = dense<[0.0, 0.5, 1.0, -0.5]> : tensor<4xf32>
loop.buffer @x {bytes = 108 : i64}
// CHECK-NOT: @between
loop.buffer @between {bytes = 128 : i64}
loop.buffer @out {bytes = 64 : i64}
// CHECK: loop.kernel @conv
loop.kernel @conv(%x : arena, %w : const, %bias : const, %out : arena) {
  // CHECK-NEXT: parallel (oy = 4, py = 2, f = 4) reduce (k = 6) mac x["6*oy + 3*py + k"], w["4*k + f"], bias["f"], out["4*oy + f"] then pool_max, activation relu>
  loop.nest %x, %w, %bias, %out : <parallel (oy = 8, f = 4) reduce (k = 6) mac x["3*oy + k"], w["4*k + f"], bias["f"], out["4*oy + f"] then activation relu>
}
// CHECK-NOT: @pool
loop.kernel @pool(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (oy = 4, c = 4) reduce (ky = 2) max x["8*oy + 4*ky + c"], out["4*oy + c"] initial 0xfff0000000000000 : f64>
}
loop.program @main attributes {input_shapes = [[27 : i64]], output_shapes = [[16 : i64]], inputs = [@x], outputs = [@out]} {
  // CHECK: loop.call @conv(@x, @w, @bias, @out)
  loop.call @conv(@x, @w, @bias, @between)
  loop.call @pool(@between, @out)
}
