// Two halves of a matrix, by columns, are read where they are; a slice whose reader is the program's caller stays.
// RUN: ml4f-opt %s -p loop-forward-copies --split-input-file | filecheck %s
// RUN: ml4f-opt %s -p loop-forward-copies,loop-choose-schedule,loop-plan-memory,loop-pack-weights,loop-expand --split-input-file --run-between-passes

loop.data @w = dense<0.25> : tensor<12xf32>
loop.buffer @x {bytes = 128 : i64}
// CHECK-NOT: @left
loop.buffer @left {bytes = 64 : i64}
loop.buffer @right {bytes = 64 : i64}
loop.buffer @product {bytes = 48 : i64}
loop.buffer @out {bytes = 48 : i64}
loop.kernel @first_half(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 4, d1 = 4) copy x["8*d0 + d1"], out["4*d0 + d1"]>
}
loop.kernel @second_half(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 4, d1 = 4) copy x["8*d0 + d1 + 4"], out["4*d0 + d1"]>
}
loop.kernel @times(%x : arena, %w : const, %out : arena) {
  // CHECK: parallel (p = 4, f = 3) reduce (c = 4) mac x["8*p + c"], w["3*c + f"], out["3*p + f"]>
  loop.nest %x, %w, %out : <parallel (p = 4, f = 3) reduce (c = 4) mac x["4*p + c"], w["3*c + f"], out["3*p + f"]>
}
loop.kernel @plus(%x : arena, %other : arena, %out : arena) {
  // CHECK: parallel (p = 4, f = 3) copy x["8*p + f + 5"], other["3*p + f"], out["3*p + f"] then add other>
  loop.nest %x, %other, %out : <parallel (p = 4, f = 3) copy x["4*p + f + 1"], other["3*p + f"], out["3*p + f"] then add other>
}
loop.program @main attributes {input_shapes = [[32 : i64]], output_shapes = [[12 : i64]], inputs = [@x], outputs = [@out]} {
  // CHECK: loop.call @times(@x, @w, @product)
  // CHECK-NEXT: loop.call @plus(@x, @product, @out)
  loop.call @first_half(@x, @left)
  loop.call @second_half(@x, @right)
  loop.call @times(@left, @w, @product)
  loop.call @plus(@right, @product, @out)
}
// -----
// Not a small part of a buffer that nobody needs later, nor one whose source is written before it is read.
loop.buffer @x {bytes = 64 : i64}
loop.buffer @part {bytes = 16 : i64}
loop.buffer @whole {bytes = 64 : i64}
loop.buffer @out {bytes = 16 : i64}
loop.kernel @copy(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 4) copy x["d0 + 8"], out["d0"]>
}
loop.kernel @half(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 16) copy x["d0"], out["d0"] then mul(5.000000e-01 : f64)>
}
loop.kernel @sum(%x : arena, %other : arena, %out : arena) {
  loop.nest %x, %other, %out : <parallel (d0 = 4) copy x["d0"], other["d0"], out["d0"] then add other>
}
loop.program @main attributes {input_shapes = [[16 : i64]], output_shapes = [[4 : i64]], inputs = [@x], outputs = [@out]} {
  // CHECK: loop.call @copy(@x, @part)
  // CHECK-NEXT: loop.call @half(@x, @x)
  // CHECK-NEXT: loop.call @sum(@part, @x, @out)
  loop.call @copy(@x, @part)
  loop.call @half(@x, @x)
  loop.call @sum(@part, @x, @out)
}
// -----
loop.buffer @x {bytes = 64 : i64}
loop.buffer @part {bytes = 16 : i64}
loop.buffer @out {bytes = 16 : i64}
loop.kernel @copy(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 4) copy x["d0 + 8"], out["d0"]>
}
loop.kernel @half(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 4) copy x["d0"], out["d0"] then mul(5.000000e-01 : f64)>
}
loop.program @main attributes {input_shapes = [[16 : i64]], output_shapes = [[4 : i64]], inputs = [@x], outputs = [@out]} {
  // CHECK: loop.call @copy(@x, @part)
  // CHECK-NEXT: loop.call @half(@part, @out)
  loop.call @copy(@x, @part)
  loop.call @half(@part, @out)
}
