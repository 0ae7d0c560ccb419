// Buffers that are not alive at the same time share memory; the program knows how much there is.
// RUN: ml4f-opt %s -p loop-plan-memory --run-between-passes | filecheck %s

// CHECK-DAG: loop.buffer @x {bytes = 40 : i64, offset = [[X:[0-9]*]] : i64}
// CHECK-DAG: loop.buffer @a {bytes = 40 : i64, offset = [[A:[0-9]*]] : i64}
// CHECK-DAG: loop.buffer @b {bytes = 40 : i64, offset = [[X]] : i64}
// CHECK-DAG: loop.buffer @y {bytes = 40 : i64, offset = [[A]] : i64}
// CHECK:     arena_bytes = 80 : i64
loop.buffer @x {bytes = 40 : i64}
loop.buffer @a {bytes = 40 : i64}
loop.buffer @b {bytes = 40 : i64}
loop.buffer @y {bytes = 40 : i64}
loop.kernel @reverse(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 10) copy x["9 - d"], out["d"]>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @reverse(@x, @a)
  loop.call @reverse(@a, @b)
  loop.call @reverse(@b, @y)
}
