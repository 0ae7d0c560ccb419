// What only copies may be repeated: rows twice and then columns twice are one copy, which takes the function behind it.
// A result that is computed is not repeated, since it would be computed as often.
// RUN: ml4f-opt %s -p loop-fuse-elementwise --run-between-passes | filecheck %s

loop.buffer @x {bytes = 480 : i64}
// CHECK-NOT: loop.buffer @rows
loop.buffer @rows {bytes = 960 : i64}
loop.buffer @both {bytes = 1920 : i64}
loop.buffer @radix {bytes = 1920 : i64}
loop.buffer @out {bytes = 3840 : i64}
// CHECK:      loop.kernel @double_rows(%x : arena, %out : arena) {
// CHECK-NEXT:   loop.nest %x, %out : <parallel ([[Y:[a-z0-9]+]] = 4, [[R:[a-z0-9]+]] = 2, [[X:[a-z0-9]+]] = 5, [[S:[a-z0-9]+]] = 2, [[C:[a-z0-9]+]] = 6) copy x[{{.*}} then activation sqrt>
loop.kernel @double_rows(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (y = 4, r = 2, c = 30) copy x["30*y + c"], out["60*y + 30*r + c"]>
}
loop.kernel @double_columns(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (x = 40, s = 2, c = 6) copy x["6*x + c"], out["12*x + 6*s + c"]>
}
// CHECK-NOT:  loop.kernel @extract
// CHECK:      loop.kernel @again
loop.kernel @extract(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 480) copy x["d0"], out["d0"] then activation sqrt>
}
loop.kernel @again(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (r = 2, c = 480) copy x["c"], out["480*r + c"]>
}
loop.program @main attributes {inputs = [@x], outputs = [@out]} {
  // CHECK:      loop.call @double_rows(@x, @radix)
  // CHECK-NEXT: loop.call @again(@radix, @out)
  loop.call @double_rows(@x, @rows)
  loop.call @double_columns(@rows, @both)
  loop.call @extract(@both, @radix)
  loop.call @again(@radix, @out)
}
