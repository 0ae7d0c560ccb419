// The results of a convolution go into the outputs of the dense layer behind it, which start with its bias; the buffer
// between the two, larger than all others, disappears.
// RUN: ml4f-opt %s -p loop-fuse-dense | filecheck %s
// RUN: ml4f-opt %s -p loop-fuse-dense,loop-choose-schedule,loop-plan-memory,loop-pack-weights,loop-expand --run-between-passes

loop.data @conv_w = dense<0.25> : tensor<24xf32>
loop.data @fc_w = dense<0.125> : tensor<576xf32>
loop.data @fc_bias = dense<[1.5, -2.0]> : tensor<2xf32>
loop.buffer @in {bytes = 152 : i64}
// CHECK-NOT: @between
loop.buffer @between {bytes = 1152 : i64}
loop.buffer @out {bytes = 8 : i64}
// CHECK:      loop.kernel @fc_start
// CHECK-NEXT:   loop.nest %x, %out : <parallel (d0 = 2) copy x["d0"], out["d0"]>
// CHECK:      loop.kernel @conv
loop.kernel @conv(%x : arena, %w : const, %out : arena) {
  // CHECK-NEXT: mac x["oy + k"], w["8*k + f"], dense["16*oy + 2*f"], out["0"] then activation relu, dense dense(2.000000e+00 : f64)>
  loop.nest %x, %w, %out : <parallel (oy = 36, f = 8) reduce (k = 3) mac x["oy + k"], w["8*k + f"], out["8*oy + f"] then activation relu>
}
loop.kernel @fc(%x : arena, %w : const, %bias : const, %out : arena) {
  loop.nest %x, %w, %bias, %out : <parallel (f = 2) reduce (c = 288) mac x["c"], w["2*c + f"], bias["f"], out["f"]>
}
loop.program @main attributes {input_shapes = [[38 : i64]], output_shapes = [[2 : i64]], inputs = [@in], outputs = [@out]} {
  // CHECK: loop.call @fc_start(@fc_bias, @out)
  // CHECK-NEXT: loop.call @conv(@in, @conv_w, @fc_w, @out)
  loop.call @conv(@in, @conv_w, @between)
  loop.call @fc(@between, @fc_w, @fc_bias, @out)
}
