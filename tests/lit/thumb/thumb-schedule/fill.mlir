// What moves a pointer is kept for the place where an instruction would wait: the second store waits for the last sum.
// RUN: ml4f-opt %s -p thumb-schedule --run-between-passes | filecheck %s

// CHECK-LABEL: thumb.func @rows
// CHECK:         thumb.vstmia %x
// CHECK:         thumb.vadd %f, %f
// CHECK-NEXT:    thumb.add_imm
// CHECK-NEXT:    thumb.vstmia %y
builtin.module attributes {input_shapes = [[8 : i64]], output_shapes = [[8 : i64]], arena_bytes = 32 : i64, input_offsets = [0 : i64], output_offsets = [0 : i64]} {
  thumb.func @main() attributes {entry} {
    %x = thumb.arena_address {offset = 0} : !thumb.r<r0>
    %y = thumb.arena_address {offset = 8} : !thumb.r<r1>
    thumb.call @rows(%x, %y)
    thumb.return
  }
  thumb.func @rows(%x : !thumb.r<r0>, %y : !thumb.r<r1>) {
    %a = thumb.vldr %x {offset = 0, space = "arena"} : !thumb.s
    %b = thumb.vldr %x {offset = 4, space = "arena"} : !thumb.s
    %c = thumb.vldr %x {offset = 8, space = "arena"} : !thumb.s
    %d = thumb.vldr %x {offset = 12, space = "arena"} : !thumb.s
    %e = thumb.vldr %x {offset = 16, space = "arena"} : !thumb.s
    %f = thumb.vldr %x {offset = 20, space = "arena"} : !thumb.s
    %m = thumb.vmul %a, %a : !thumb.s
    %aa = thumb.vadd %m, %b : !thumb.s
    %bb = thumb.vadd %b, %b : !thumb.s
    %cc = thumb.vadd %c, %c : !thumb.s
    %dd = thumb.vadd %d, %d : !thumb.s
    %ee = thumb.vadd %e, %e : !thumb.s
    %ff = thumb.vadd %f, %f : !thumb.s
    %x2 = thumb.vstmia %x, %aa, %bb {space = "arena"} : !thumb.r
    %x3 = thumb.add_imm %x2 {immediate = 8} : !thumb.r
    %y2 = thumb.vstmia %y, %cc, %dd, %ee, %ff {space = "arena"} : !thumb.r
    %z = thumb.vldr %x3 {offset = -16, space = "arena"} : !thumb.s
    thumb.vstr %z, %x3 {offset = -16, space = "arena"}
    thumb.return
  }
}
