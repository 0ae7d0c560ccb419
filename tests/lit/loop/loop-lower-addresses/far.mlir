// Five rows out of each other's reach, walked twice, and four pointers: the one that moves is the one whose row is needed
// again last, so that three rows keep theirs. Would the one move that was not used for the longest time, all would move.
// RUN: ml4f-opt %s -p loop-lower-addresses --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @rows
// CHECK:         loop.repeat times 3 carry ([[A:%.*]] = {{%.*}} : !loop.ptr, [[B:%.*]] = {{%.*}} : !loop.ptr, [[C:%.*]] = {{%.*}} : !loop.ptr, [[D:%.*]] = {{%.*}} : !loop.ptr,
// CHECK-DAG:       loop.load [[A]][]
// CHECK-DAG:       loop.load [[B]][]
// CHECK-DAG:       loop.load [[C]][]
// CHECK-DAG:       loop.load [[D]][]
// CHECK:           [[E:%.*]] = loop.advance [[D]]
// CHECK:           loop.load [[E]][]
// CHECK-DAG:       loop.load [[A]][]
// CHECK-DAG:       loop.load [[B]][]
// CHECK-DAG:       loop.load [[C]][]
// CHECK:           [[G:%.*]] = loop.advance
// CHECK:           loop.load [[G]][]
// CHECK:           loop.load [[E]][]
// CHECK:           loop.store
loop.buffer @x {bytes = 20040 : i64}
loop.buffer @y {bytes = 12 : i64}
loop.kernel @rows(%x : arena, %out : arena) {
  loop.for %i times 3 label "c" {
    %a = loop.load %x[%i] {strides = array<i64: 8>, offset = 0 : i64, space = "arena"} : f32
    %b = loop.load %x[%i] {strides = array<i64: 8>, offset = 5000 : i64, space = "arena"} : f32
    %c = loop.load %x[%i] {strides = array<i64: 8>, offset = 10000 : i64, space = "arena"} : f32
    %d = loop.load %x[%i] {strides = array<i64: 8>, offset = 15000 : i64, space = "arena"} : f32
    %e = loop.load %x[%i] {strides = array<i64: 8>, offset = 20000 : i64, space = "arena"} : f32
    %f = loop.load %x[%i] {strides = array<i64: 8>, offset = 4 : i64, space = "arena"} : f32
    %g = loop.load %x[%i] {strides = array<i64: 8>, offset = 5004 : i64, space = "arena"} : f32
    %h = loop.load %x[%i] {strides = array<i64: 8>, offset = 10004 : i64, space = "arena"} : f32
    %j = loop.load %x[%i] {strides = array<i64: 8>, offset = 15004 : i64, space = "arena"} : f32
    %k = loop.load %x[%i] {strides = array<i64: 8>, offset = 20004 : i64, space = "arena"} : f32
    %1 = loop.fadd %a, %b
    %2 = loop.fadd %1, %c
    %3 = loop.fadd %2, %d
    %4 = loop.fadd %3, %e
    %5 = loop.fmul %f, %g
    %6 = loop.fadd %4, %5
    %7 = loop.fmul %h, %j
    %8 = loop.fadd %6, %7
    %9 = loop.fadd %8, %k
    loop.store %9, %out[%i] {strides = array<i64: 4>, offset = 0 : i64, space = "arena"} : f32
    loop.yield
  }
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @rows(@x, @y)
}
