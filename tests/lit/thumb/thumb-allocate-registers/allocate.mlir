// RUN: ml4f-opt %s -p thumb-allocate-registers,thumb-verify-allocation | filecheck %s

// A multiple load's values lie in consecutive registers; its pointer advances in place; ties share a register.
// CHECK-LABEL: thumb.func @multiple
// CHECK:         %a, %b, %c, %q = thumb.vldmia %p {space = "arena"} : !thumb.s<s0>, !thumb.s<s1>, !thumb.s<[[C:s2]]>, !thumb.r<r0>
// CHECK-NEXT:    %d = thumb.vfma %c, %a, %b : !thumb.s<[[C]]>
thumb.func @multiple(%p : !thumb.r<r0>) {
  %a, %b, %c, %q = thumb.vldmia %p {space = "arena"} : !thumb.s, !thumb.s, !thumb.s, !thumb.r
  %d = thumb.vfma %c, %a, %b : !thumb.s
  thumb.vstr %d, %q {offset = 0, space = "arena"}
  thumb.return
}
// A carried value keeps its register: before the loop, in it, and behind it.
// CHECK-LABEL: thumb.func @carried
// CHECK:         %zero = thumb.vmov_imm {{.*}} : !thumb.s<[[S:s[0-9]+]]>
// CHECK:         thumb.loop %n carry (%acc = %zero : !thumb.s<[[S]]>, %q = %p : !thumb.r<r0>) -> !thumb.s<[[S]]>, !thumb.r<r0>
// CHECK:           thumb.vadd %acc, {{%.*}} : !thumb.s<[[S]]>
thumb.func @carried(%p : !thumb.r<r0>) {
  %zero = thumb.vmov_imm {value = 1.0 : f32} : !thumb.s
  %n = thumb.mov_imm {immediate = 4} : !thumb.r
  %sum, %end = thumb.loop %n carry (%acc = %zero : !thumb.s, %q = %p : !thumb.r) -> !thumb.s, !thumb.r {
    %v = thumb.vldr %q {offset = 0, space = "arena"} : !thumb.s
    %next = thumb.vadd %acc, %v : !thumb.s
    %r = thumb.add_imm %q {immediate = 4} : !thumb.r
    thumb.yield %next, %r
  }
  thumb.vstr %sum, %end {offset = 0, space = "arena"}
  thumb.return
}
// Fourteen values and their base are one too many for the core registers: one waits in the frame.
// CHECK-LABEL: thumb.func @spills(%p: !thumb.r<r0>) attributes {frame = {{[48]}}} {
// CHECK:         thumb.frame_store
// CHECK:         thumb.frame_load
thumb.func @spills(%p : !thumb.r<r0>) {
  %v0 = thumb.ldr %p {offset = 0, space = "arena"} : !thumb.r
  %v1 = thumb.ldr %p {offset = 4, space = "arena"} : !thumb.r
  %v2 = thumb.ldr %p {offset = 8, space = "arena"} : !thumb.r
  %v3 = thumb.ldr %p {offset = 12, space = "arena"} : !thumb.r
  %v4 = thumb.ldr %p {offset = 16, space = "arena"} : !thumb.r
  %v5 = thumb.ldr %p {offset = 20, space = "arena"} : !thumb.r
  %v6 = thumb.ldr %p {offset = 24, space = "arena"} : !thumb.r
  %v7 = thumb.ldr %p {offset = 28, space = "arena"} : !thumb.r
  %v8 = thumb.ldr %p {offset = 32, space = "arena"} : !thumb.r
  %v9 = thumb.ldr %p {offset = 36, space = "arena"} : !thumb.r
  %v10 = thumb.ldr %p {offset = 40, space = "arena"} : !thumb.r
  %v11 = thumb.ldr %p {offset = 44, space = "arena"} : !thumb.r
  %v12 = thumb.ldr %p {offset = 48, space = "arena"} : !thumb.r
  %v13 = thumb.ldr %p {offset = 52, space = "arena"} : !thumb.r
  thumb.str %v13, %p {offset = 0, space = "arena"}
  thumb.str %v12, %p {offset = 4, space = "arena"}
  thumb.str %v11, %p {offset = 8, space = "arena"}
  thumb.str %v10, %p {offset = 12, space = "arena"}
  thumb.str %v9, %p {offset = 16, space = "arena"}
  thumb.str %v8, %p {offset = 20, space = "arena"}
  thumb.str %v7, %p {offset = 24, space = "arena"}
  thumb.str %v6, %p {offset = 28, space = "arena"}
  thumb.str %v5, %p {offset = 32, space = "arena"}
  thumb.str %v4, %p {offset = 36, space = "arena"}
  thumb.str %v3, %p {offset = 40, space = "arena"}
  thumb.str %v2, %p {offset = 44, space = "arena"}
  thumb.str %v1, %p {offset = 48, space = "arena"}
  thumb.str %v0, %p {offset = 52, space = "arena"}
  thumb.return
}
// Two groups of sixteen would fit, but not beside eight other values, of which two must lie within the second one: the
// stores are made shorter.
// CHECK-LABEL: thumb.func @stores
// CHECK:         [[Q:%[0-9]+]] = thumb.vstmia %q, %a0, %a1, %a2, %a3 {
// CHECK-NEXT:    thumb.vstmia [[Q]], %a4, %a5, %a6, %a7 {
thumb.func @stores(%p : !thumb.r<r0>, %q : !thumb.r<r1>) {
  %v0 = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s
  %v1 = thumb.vldr %p {offset = 4, space = "arena"} : !thumb.s
  %v2 = thumb.vldr %p {offset = 8, space = "arena"} : !thumb.s
  %v3 = thumb.vldr %p {offset = 12, space = "arena"} : !thumb.s
  %v4 = thumb.vldr %p {offset = 16, space = "arena"} : !thumb.s
  %v5 = thumb.vldr %p {offset = 20, space = "arena"} : !thumb.s
  %v6 = thumb.vldr %p {offset = 24, space = "arena"} : !thumb.s
  %v7 = thumb.vldr %p {offset = 28, space = "arena"} : !thumb.s
  %a0 = thumb.vadd %v0, %v1 : !thumb.s
  %a1 = thumb.vadd %v1, %v2 : !thumb.s
  %a2 = thumb.vadd %v2, %v3 : !thumb.s
  %a3 = thumb.vadd %v3, %v4 : !thumb.s
  %a4 = thumb.vadd %v4, %v5 : !thumb.s
  %a5 = thumb.vadd %v5, %v6 : !thumb.s
  %a6 = thumb.vadd %v6, %v7 : !thumb.s
  %a7 = thumb.vadd %v7, %v0 : !thumb.s
  %a8 = thumb.vadd %v0, %v2 : !thumb.s
  %a9 = thumb.vadd %v1, %v3 : !thumb.s
  %a10 = thumb.vadd %v2, %v4 : !thumb.s
  %a11 = thumb.vadd %v3, %v5 : !thumb.s
  %a12 = thumb.vadd %v4, %v6 : !thumb.s
  %a13 = thumb.vadd %v5, %v7 : !thumb.s
  %a14 = thumb.vadd %v6, %v0 : !thumb.s
  %a15 = thumb.vadd %v7, %v1 : !thumb.s
  %b7 = thumb.vadd %v7, %v0 : !thumb.s
  %b8 = thumb.vadd %v0, %v2 : !thumb.s
  %q1 = thumb.vstmia %q, %a0, %a1, %a2, %a3, %a4, %a5, %a6, %a7, %a8, %a9, %a10, %a11, %a12, %a13, %a14, %a15 {space = "arena"} : !thumb.r
  %b0 = thumb.vadd %v0, %v1 : !thumb.s
  %b1 = thumb.vadd %v1, %v2 : !thumb.s
  %b2 = thumb.vadd %v2, %v3 : !thumb.s
  %b3 = thumb.vadd %v3, %v4 : !thumb.s
  %b4 = thumb.vadd %v4, %v5 : !thumb.s
  %b5 = thumb.vadd %v5, %v6 : !thumb.s
  %b6 = thumb.vadd %v6, %v7 : !thumb.s
  %b9 = thumb.vadd %v1, %v3 : !thumb.s
  %b10 = thumb.vadd %v2, %v4 : !thumb.s
  %b11 = thumb.vadd %v3, %v5 : !thumb.s
  %b12 = thumb.vadd %v4, %v6 : !thumb.s
  %b13 = thumb.vadd %v5, %v7 : !thumb.s
  %b14 = thumb.vadd %v6, %v0 : !thumb.s
  %b15 = thumb.vadd %v7, %v1 : !thumb.s
  %q2 = thumb.vstmia %q1, %b0, %b1, %b2, %b3, %b4, %b5, %b6, %b7, %b8, %b9, %b10, %b11, %b12, %b13, %b14, %b15 {space = "arena"} : !thumb.r
  thumb.vstr %v0, %q2 {offset = 0, space = "arena"}
  thumb.vstr %v1, %q2 {offset = 4, space = "arena"}
  thumb.vstr %v2, %q2 {offset = 8, space = "arena"}
  thumb.vstr %v3, %q2 {offset = 12, space = "arena"}
  thumb.vstr %v4, %q2 {offset = 16, space = "arena"}
  thumb.vstr %v5, %q2 {offset = 20, space = "arena"}
  thumb.vstr %v6, %q2 {offset = 24, space = "arena"}
  thumb.vstr %v7, %q2 {offset = 28, space = "arena"}
  thumb.return
}
