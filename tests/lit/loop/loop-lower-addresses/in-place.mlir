// Input and output lie at one address, so that one set of pointers serves both. Two take turns: each is moved on behind
// its store, and the loads between are those of the other one. Of what is loaded together the pointer stays for the store.
// RUN: ml4f-opt %s -p loop-lower-addresses --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @scale
// CHECK:         [[Q0:%.*]] = loop.advance %x {offset = 20 : i64}
// CHECK:         loop.repeat times 2 carry ([[P:%.*]] = %x : !loop.ptr, [[Q:%.*]] = [[Q0]] : !loop.ptr)
// CHECK-NEXT:      {{%.*}}, {{%.*}} = loop.load_multiple [[P]][] {offset = 0 : i64, space = "arena"} : f32, f32
// CHECK-NEXT:      loop.fadd
// CHECK-NEXT:      loop.fadd
// CHECK-NEXT:      [[P1:%.*]] = loop.store_multiple {{%.*}}, {{%.*}} to [[P]][] {{.*}}argument = 1 : i64
// CHECK-NEXT:      [[P2:%.*]] = loop.advance [[P1]] {offset = 32 : i64}
// CHECK-NEXT:      loop.load [[Q]][] {offset = 0 : i64
// CHECK-NEXT:      loop.load [[Q]][] {offset = 4 : i64
// CHECK:           [[Q1:%.*]] = loop.store_multiple {{%.*}}, {{%.*}} to [[Q]][] {{.*}}argument = 1 : i64
// CHECK-NEXT:      [[Q2:%.*]] = loop.advance [[Q1]] {offset = 32 : i64}
// CHECK-NEXT:      loop.yield [[P2]], [[Q2]]
loop.buffer @a {bytes = 80 : i64, offset = 0 : i64}
loop.buffer @b {bytes = 80 : i64, offset = 0 : i64}
loop.buffer @c {bytes = 80 : i64, offset = 80 : i64}
loop.kernel @scale(%x : arena, %out : arena) {
  loop.for %i times 2 label "row" {
    %a, %b = loop.load_multiple %x[%i] {strides = array<i64: 40>, offset = 0 : i64, space = "arena"} : f32, f32
    %c = loop.fadd %a, %a
    %d = loop.fadd %b, %b
    loop.store_multiple %c, %d to %out[%i] {strides = array<i64: 40>, offset = 0 : i64, space = "arena"}
    %e = loop.load %x[%i] {strides = array<i64: 40>, offset = 20 : i64, space = "arena"} : f32
    %f = loop.load %x[%i] {strides = array<i64: 40>, offset = 24 : i64, space = "arena"} : f32
    %g = loop.fadd %e, %e
    %h = loop.fadd %f, %f
    loop.store_multiple %g, %h to %out[%i] {strides = array<i64: 40>, offset = 20 : i64, space = "arena"}
    loop.yield
  }
}
// One of two calls is not in place: each argument has its own pointer.
// CHECK-LABEL: loop.kernel @both
// CHECK-NOT:     argument =
loop.kernel @both(%x : arena, %out : arena) {
  loop.for %i times 20 label "i" {
    %v = loop.load %x[%i] {strides = array<i64: 4>, offset = 0 : i64, space = "arena"} : f32
    %w = loop.fadd %v, %v
    loop.store %w, %out[%i] {strides = array<i64: 4>, offset = 0 : i64, space = "arena"} : f32
    loop.yield
  }
}
loop.program @main attributes {inputs = [@a], outputs = [@c]} {
  loop.call @scale(@a, @b)
  loop.call @both(@b, @b)
  loop.call @both(@b, @c)
}
