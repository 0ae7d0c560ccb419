// Induction variables become pointers that are carried; what a loop does not move stays an offset.
// RUN: ml4f-opt %s -p loop-lower-addresses --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @double
// CHECK-NOT:     loop.for
// CHECK:         loop.repeat times 4 carry ([[X:%.*]] = {{%.*}} : !loop.ptr, [[OUT:%.*]] = {{%.*}} : !loop.ptr) label "d" {
// CHECK-NEXT:      [[A:%.*]] = loop.load [[X]][] {offset = 0 : i64
// CHECK-NEXT:      [[B:%.*]] = loop.load [[X]][] {offset = 4 : i64
// CHECK:           loop.store {{%.*}}, [[OUT]][] {offset = 0 : i64
// CHECK:           loop.store {{%.*}}, [[OUT]][] {offset = 4 : i64
// CHECK-DAG:       [[NX:%.*]] = loop.advance [[X]] {offset = 8 : i64}
// CHECK-DAG:       [[NO:%.*]] = loop.advance [[OUT]] {offset = 8 : i64}
// CHECK:           loop.yield [[NX]], [[NO]] : !loop.ptr, !loop.ptr
loop.buffer @x {bytes = 32 : i64}
loop.buffer @y {bytes = 32 : i64}
loop.kernel @double(%x : arena, %out : arena) {
  loop.for %i times 4 label "d" {
    %a = loop.load %x[%i] {strides = array<i64: 8>, offset = 0 : i64, space = "arena"} : f32
    %b = loop.load %x[%i] {strides = array<i64: 8>, offset = 4 : i64, space = "arena"} : f32
    %aa = loop.fadd %a, %a
    %bb = loop.fadd %b, %b
    loop.store %aa, %out[%i] {strides = array<i64: 8>, offset = 0 : i64, space = "arena"} : f32
    loop.store %bb, %out[%i] {strides = array<i64: 8>, offset = 4 : i64, space = "arena"} : f32
    loop.yield
  }
}
// A load reaches 1020 bytes: behind that its pointer is moved. Load-multiple moves its own.
// CHECK-LABEL: loop.kernel @far
// CHECK-NEXT:    {{%.*}}, {{%.*}}, {{%.*}} = loop.load_multiple %x[] {{{.*}}advance} : f32, f32, !loop.ptr
// CHECK-NEXT:    [[Q:%.*]] = loop.advance %x {offset = 980 : i64}
// CHECK-NEXT:    loop.load [[Q]][] {offset = 1020 : i64
loop.buffer @big {bytes = 2004 : i64}
loop.buffer @one {bytes = 4 : i64}
loop.kernel @far(%x : arena, %out : arena) {
  %a, %b = loop.load_multiple %x[] {offset = 0 : i64, space = "arena"} : f32, f32
  %c = loop.load %x[] {offset = 2000 : i64, space = "arena"} : f32
  %ab = loop.fmul %a, %b
  %abc = loop.fadd %ab, %c
  loop.store %abc, %out[] {offset = 0 : i64, space = "arena"} : f32
}
loop.program @main attributes {inputs = [@x, @big], outputs = [@y, @one]} {
  loop.call @double(@x, @y)
  loop.call @far(@big, @one)
}
