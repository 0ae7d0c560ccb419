// What the verifier of the thumb dialect refuses: what no encoding can express, and registers that do not fit together.
// RUN: ml4f-opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: no encoding of 'addw {=d:r}, {n:r}, {i:u}' takes immediate = 4097
thumb.func @k(%a : !thumb.r<r0>) {
  %d = thumb.add_imm %a {immediate = 4097} : !thumb.r
  thumb.return
}
// -----
// CHECK: no encoding of 'vldr {=dD:s}, [{n:r}{ui:so4}]' takes offset = 1024
thumb.func @k(%a : !thumb.r<r0>) {
  %d = thumb.vldr %a {offset = 1024, space = "arena"} : !thumb.s
  thumb.return
}
// -----
// CHECK: the space is arena or const, not flash
thumb.func @k(%a : !thumb.r<r0>) {
  %d = thumb.vldr %a {offset = 0, space = "flash"} : !thumb.s
  thumb.return
}
// -----
// CHECK: no encoding of 'vmov.f32
thumb.func @k() {
  %d = thumb.vmov_imm {value = 1.000000e-01 : f32} : !thumb.s
  thumb.return
}
// -----
// CHECK: operand 0 and result 0 must share a register
thumb.func @k(%a : !thumb.r<r0>) {
  %x = thumb.vmov_s_r %a : !thumb.s<s0>
  %d = thumb.vfma %x, %x, %x : !thumb.s<s1>
  thumb.return
}
// -----
// CHECK: registers 4 and 6 are not consecutive
thumb.func @k(%a : !thumb.r<r0>) {
  %x, %y, %b = thumb.vldmia %a {space = "const"} : !thumb.s<s4>, !thumb.s<s6>, !thumb.r<r0>
  thumb.return
}
// -----
// CHECK: operand 0 and result 2 must share a register
thumb.func @k(%a : !thumb.r<r0>) {
  %x, %y, %b = thumb.vldmia %a {space = "const"} : !thumb.s<s4>, !thumb.s<s5>, !thumb.r<r1>
  thumb.return
}
// -----
// CHECK: transfers 1 to 32 registers
thumb.func @k(%a : !thumb.r<r0>) {
  %b = thumb.vldmia %a {space = "const"} : !thumb.r
  thumb.return
}
// -----
// CHECK: a shift needs a kind and an amount
thumb.func @k(%a : !thumb.r<r0>) {
  %d = thumb.add %a, %a {shift = "lsl"} : !thumb.r
  thumb.return
}
// -----
// CHECK: the shift is lsl, lsr, asr or ror, not rrx
thumb.func @k(%a : !thumb.r<r0>) {
  %d = thumb.add %a, %a {shift = "rrx", amount = 1} : !thumb.r
  thumb.return
}
// -----
// CHECK: the predicate is one of eq, ne, lt, le, gt, ge
thumb.func @k(%a : !thumb.r<r0>) {
  %d = thumb.select %a, %a, %a, %a {predicate = "uno"} : !thumb.r
  thumb.return
}
// -----
// CHECK: argument 1 comes in r1
thumb.func @k(%a : !thumb.r<r0>, %b : !thumb.r<r2>) {
  thumb.return
}
// -----
// CHECK: Operation thumb.mov_imm terminates block
thumb.func @k(%a : !thumb.r<r0>) {
  thumb.loop %a {
    %b = thumb.mov_imm {immediate = 0} : !thumb.r
  }
  thumb.return
}
// -----
// CHECK: initial values, arguments, yielded values and results differ in number
thumb.func @k(%a : !thumb.r<r0>) {
  thumb.loop %a {
    %b = thumb.mov_imm {immediate = 0} : !thumb.r
    thumb.yield %b
  }
  thumb.return
}
// -----
// CHECK: a carried value changes its register class
thumb.func @k(%a : !thumb.r<r0>) {
  %r = thumb.loop %a carry (%v = %a : !thumb.r) -> !thumb.r {
    %x = thumb.vmov_s_r %v : !thumb.s
    thumb.yield %x
  }
  thumb.return
}
// -----
// CHECK: a carried value changes its register
thumb.func @k(%a : !thumb.r<r0>, %b : !thumb.r<r1>) {
  %r = thumb.loop %a carry (%v = %b : !thumb.r<r1>) -> !thumb.r<r1> {
    %w = thumb.mov %v : !thumb.r<r2>
    thumb.yield %w
  }
  thumb.return
}
// -----
// CHECK: a counter in the frame is reloaded by the yield, and only such a counter
thumb.func @k(%a : !thumb.r<r0>) {
  thumb.loop %a attributes {counter_slot = 0} {
    thumb.yield
  }
  thumb.return
}
