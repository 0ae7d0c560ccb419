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
