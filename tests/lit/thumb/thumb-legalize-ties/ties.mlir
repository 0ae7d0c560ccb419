// A copy where an operand must share the result's register, but is read later; none where it is not.
// RUN: ml4f-opt %s -p thumb-legalize-ties | filecheck %s

// CHECK-LABEL: thumb.func @k
// CHECK:         [[COPY:%.*]] = thumb.vmov %acc
// CHECK-NEXT:    %kept = thumb.vfma [[COPY]], %acc, %acc
// CHECK-NEXT:    %last = thumb.vfma %acc, %kept, %kept
// CHECK-NOT:     thumb.vmov
thumb.func @k(%p : !thumb.r<r0>) {
  %acc = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s
  %kept = thumb.vfma %acc, %acc, %acc : !thumb.s
  %last = thumb.vfma %acc, %kept, %kept : !thumb.s
  thumb.vstr %last, %p {offset = 4, space = "arena"}
  thumb.return
}
// A value that two loops start from, or that is read behind a loop that changes it, is copied too.
// CHECK-LABEL: thumb.func @loops
// CHECK:         thumb.mov %p : !thumb.r
// CHECK:         thumb.loop
thumb.func @loops(%p : !thumb.r<r0>) {
  %n = thumb.mov_imm {immediate = 4} : !thumb.r
  %end = thumb.loop %n carry (%q = %p : !thumb.r) -> !thumb.r {
    %next = thumb.add_imm %q {immediate = 4} : !thumb.r
    thumb.yield %next
  }
  %v = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s
  thumb.vstr %v, %end {offset = 0, space = "arena"}
  thumb.return
}
