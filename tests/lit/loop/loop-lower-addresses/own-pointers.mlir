// Each of these stores moves its pointer by as much as a round of the loop does, so that three pointers need no
// additions where one would need three a round. Downwards none of them ends where the next round begins.
// RUN: ml4f-opt %s -p loop-lower-addresses --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @up
// CHECK-DAG:     [[Y:%.*]] = loop.advance %x {offset = 60 : i64}
// CHECK-DAG:     [[Z:%.*]] = loop.advance %x {offset = 120 : i64}
// CHECK:         loop.repeat times 5 carry ({{%.*}} = %x : !loop.ptr, {{%.*}} = [[Y]] : !loop.ptr, {{%.*}} = [[Z]]
// CHECK-NOT:     loop.advance
// CHECK:         loop.yield
loop.buffer @a {bytes = 160 : i64}
loop.buffer @b {bytes = 160 : i64}
loop.kernel @up(%x : arena) {
  %zero = loop.constant {value = 0.000000e+00 : f32}
  %one = loop.constant {value = 1.000000e+00 : f32}
  loop.for %i times 5 label "c" {
    loop.store_multiple %zero, %one to %x[%i] {strides = array<i64: 8>, offset = 0 : i64, space = "arena"}
    loop.store_multiple %zero, %one to %x[%i] {strides = array<i64: 8>, offset = 60 : i64, space = "arena"}
    loop.store_multiple %zero, %one to %x[%i] {strides = array<i64: 8>, offset = 120 : i64, space = "arena"}
    loop.yield
  }
}
// CHECK-LABEL: loop.kernel @down
// CHECK:         loop.repeat times 5 carry ({{%.*}} : !loop.ptr)
// CHECK:         loop.advance
// CHECK:         loop.advance
// CHECK:         loop.advance
// CHECK:         loop.yield
loop.kernel @down(%x : arena) {
  %zero = loop.constant {value = 0.000000e+00 : f32}
  %one = loop.constant {value = 1.000000e+00 : f32}
  loop.for %i times 5 label "c" {
    loop.store_multiple %zero, %one to %x[%i] {strides = array<i64: -8>, offset = 32 : i64, space = "arena"}
    loop.store_multiple %zero, %one to %x[%i] {strides = array<i64: -8>, offset = 92 : i64, space = "arena"}
    loop.store_multiple %zero, %one to %x[%i] {strides = array<i64: -8>, offset = 152 : i64, space = "arena"}
    loop.yield
  }
}
loop.program @main attributes {inputs = [], outputs = [@a, @b]} {
  loop.call @up(@a)
  loop.call @down(@b)
}
