// The sum of two convolutions: the later one adds the other's result in its epilogue; its own is never stored.
// RUN: ml4f-opt %s -p loop-fuse-elementwise | filecheck %s
// RUN: ml4f-opt %s -p loop-fuse-elementwise,loop-choose-schedule,loop-pack-weights,loop-plan-memory,loop-expand --run-between-passes

loop.data @v = dense<0.125> : tensor<12xf32>
loop.data @w = dense<0.25> : tensor<12xf32>
loop.buffer @x {bytes = 96 : i64}
loop.buffer @a {bytes = 128 : i64}
// CHECK-NOT: @b
loop.buffer @b {bytes = 128 : i64}
loop.buffer @out {bytes = 128 : i64}
loop.kernel @first(%x : arena, %w : const, %out : arena) {
  loop.nest %x, %w, %out : <parallel (oy = 8, f = 4) reduce (k = 3) mac x["3*oy + k"], w["4*k + f"], out["4*oy + f"]>
}
// CHECK: loop.kernel @second
loop.kernel @second(%x : arena, %w : const, %out : arena) {
  // CHECK-NEXT: parallel (oy = 8, f = 4) reduce (k = 3) mac x["3*oy + k"], w["4*k + f"], other["4*oy + f"], out["4*oy + f"] then rsub other, activation relu>
  loop.nest %x, %w, %out : <parallel (oy = 8, f = 4) reduce (k = 3) mac x["3*oy + k"], w["4*k + f"], out["4*oy + f"]>
}
// CHECK-NOT: @difference
loop.kernel @difference(%x : arena, %other : arena, %out : arena) {
  loop.nest %x, %other, %out : <parallel (d0 = 32) copy x["d0"], other["d0"], out["d0"] then sub other, activation relu>
}
loop.program @main attributes {input_shapes = [[24 : i64]], output_shapes = [[32 : i64]], inputs = [@x], outputs = [@out]} {
  // CHECK: loop.call @first(@x, @w, @a)
  // CHECK-NEXT: loop.call @second(@x, @v, @a, @out)
  loop.call @first(@x, @w, @a)
  loop.call @second(@x, @v, @b)
  loop.call @difference(@a, @b, @out)
}
