// A kernel whose operands take all core registers for their addresses gets no further one; it is called as before.
// RUN: ml4f-opt %s -p loop-fuse-elementwise | filecheck %s
// RUN: ml4f-opt %s -p loop-fuse-elementwise,loop-choose-schedule,loop-pack-weights,loop-plan-memory,loop-expand --run-between-passes

loop.buffer @x {bytes = 32 : i64}
loop.buffer @other1 {bytes = 32 : i64}
loop.buffer @other2 {bytes = 32 : i64}
loop.buffer @other3 {bytes = 32 : i64}
loop.buffer @other4 {bytes = 32 : i64}
loop.buffer @other5 {bytes = 32 : i64}
loop.buffer @other6 {bytes = 32 : i64}
loop.buffer @other7 {bytes = 32 : i64}
loop.buffer @other8 {bytes = 32 : i64}
loop.buffer @other9 {bytes = 32 : i64}
// CHECK: loop.buffer @sum
loop.buffer @sum {bytes = 32 : i64}
loop.buffer @last {bytes = 32 : i64}
loop.buffer @out {bytes = 32 : i64}
loop.kernel @first(%x : arena, %other1 : arena, %other2 : arena, %other3 : arena, %other4 : arena, %other5 : arena, %other6 : arena, %other7 : arena, %other8 : arena, %other9 : arena, %out : arena) {
  loop.nest %x, %other1, %other2, %other3, %other4, %other5, %other6, %other7, %other8, %other9, %out : <parallel (d0 = 8) copy x["d0"], other1["d0"], other2["d0"], other3["d0"], other4["d0"], other5["d0"], other6["d0"], other7["d0"], other8["d0"], other9["d0"], out["d0"] then add other1, add other2, add other3, add other4, add other5, add other6, add other7, add other8, add other9>
}
loop.kernel @second(%x : arena, %other : arena, %out : arena) {
  loop.nest %x, %other, %out : <parallel (d0 = 8) copy x["d0"], other["d0"], out["d0"] then add other>
}
loop.program @main attributes {input_shapes = [[8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64], [8 : i64]], output_shapes = [[8 : i64]], inputs = [@x, @other1, @other2, @other3, @other4, @other5, @other6, @other7, @other8, @other9, @last], outputs = [@out]} {
  // CHECK: loop.call @first(@x, @other1, @other2, @other3, @other4, @other5, @other6, @other7, @other8, @other9, @sum)
  // CHECK-NEXT: loop.call @second(@sum, @last, @out)
  loop.call @first(@x, @other1, @other2, @other3, @other4, @other5, @other6, @other7, @other8, @other9, @sum)
  loop.call @second(@sum, @last, @out)
}
