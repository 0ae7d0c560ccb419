// Kernels that differ only in their name become one; another offset, or another space, is another kernel.
// RUN: ml4f-opt %s -p loop-share-kernels --run-between-passes | filecheck %s

// CHECK:     loop.kernel @a(
// CHECK-NOT: loop.kernel @b(
// CHECK:     loop.kernel @c(
// CHECK:     loop.call @a(@x, @y) {layers = ["first"]}
// CHECK:     loop.call @a(@y, @z) {layers = ["second"]}
// CHECK:     loop.call @c(@z, @y) {layers = ["third"]}
loop.buffer @x {bytes = 8 : i64}
loop.buffer @y {bytes = 8 : i64}
loop.buffer @z {bytes = 8 : i64}
loop.kernel @a(%x : arena, %out : arena) {
  %v = loop.load %x[] {offset = 4 : i64, space = "arena"} : f32
  loop.store %v, %out[] {offset = 4 : i64, space = "arena"} : f32
}
loop.kernel @b(%in : arena, %result : arena) {
  %loaded = loop.load %in[] {offset = 4 : i64, space = "arena"} : f32
  loop.store %loaded, %result[] {offset = 4 : i64, space = "arena"} : f32
}
loop.kernel @c(%x : arena, %out : arena) {
  %v = loop.load %x[] {offset = 4 : i64, space = "arena"} : f32
  loop.store %v, %out[] {offset = 0 : i64, space = "arena"} : f32
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @a(@x, @y) {layers = ["first"]}
  loop.call @b(@y, @z) {layers = ["second"]}
  loop.call @c(@z, @y) {layers = ["third"]}
}
