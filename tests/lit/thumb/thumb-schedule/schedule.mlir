// Instructions move within their block so that none waits for the one directly before.
// RUN: ml4f-opt %s -p thumb-schedule --run-between-passes | filecheck %s

// A sum waits for its product unless another product stands between.
// CHECK-LABEL: thumb.func @products
// CHECK-COUNT-4: thumb.vldr
// CHECK-NEXT:    [[P:%.*]] = thumb.vmul
// CHECK-NEXT:    [[Q:%.*]] = thumb.vmul
// CHECK-NEXT:    thumb.vadd {{%.*}}, [[P]]
// CHECK-NEXT:    thumb.vadd {{%.*}}, [[Q]]

// A load stays behind a store that may change what it reads, and in front of one that may overwrite it.
// CHECK-LABEL: thumb.func @ordered
// CHECK-NEXT:    [[A:%.*]] = thumb.vldr %x {offset = 0, space = "arena"}
// CHECK:         thumb.vstr [[A]], %x {offset = 4, space = "arena"}
// CHECK:         [[B:%.*]] = thumb.vldr %x {offset = 4, space = "arena"}
// CHECK:         thumb.vstr [[B]], %out {offset = 0, space = "arena"}
builtin.module attributes {input_shapes = [[4 : i64]], output_shapes = [[2 : i64]], arena_bytes = 24 : i64, input_offsets = [0 : i64], output_offsets = [16 : i64]} {
  thumb.func @main() attributes {entry} {
    %x = thumb.arena_address {offset = 0} : !thumb.r<r0>
    %y = thumb.arena_address {offset = 16} : !thumb.r<r1>
    thumb.call @products(%x, %y)
    %x2 = thumb.arena_address {offset = 0} : !thumb.r<r0>
    %y2 = thumb.arena_address {offset = 20} : !thumb.r<r1>
    thumb.call @ordered(%x2, %y2)
    thumb.return
  }
  thumb.func @products(%x : !thumb.r<r0>, %out : !thumb.r<r1>) {
    %a = thumb.vldr %x {offset = 0, space = "arena"} : !thumb.s
    %b = thumb.vldr %x {offset = 4, space = "arena"} : !thumb.s
    %c = thumb.vldr %x {offset = 8, space = "arena"} : !thumb.s
    %d = thumb.vldr %x {offset = 12, space = "arena"} : !thumb.s
    %p = thumb.vmul %a, %b : !thumb.s
    %s = thumb.vadd %a, %p : !thumb.s
    %q = thumb.vmul %c, %d : !thumb.s
    %t = thumb.vadd %c, %q : !thumb.s
    %u = thumb.vadd %s, %t : !thumb.s
    thumb.vstr %u, %out {offset = 0, space = "arena"}
    thumb.return
  }
  thumb.func @ordered(%x : !thumb.r<r0>, %out : !thumb.r<r1>) {
    %a = thumb.vldr %x {offset = 0, space = "arena"} : !thumb.s
    thumb.vstr %a, %x {offset = 4, space = "arena"}
    %b = thumb.vldr %x {offset = 4, space = "arena"} : !thumb.s
    thumb.vstr %b, %out {offset = 0, space = "arena"}
    thumb.return
  }
}
