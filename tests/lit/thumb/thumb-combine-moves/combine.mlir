// RUN: ml4f-opt %s -p thumb-combine-moves,thumb-verify-allocation | filecheck %s

// Neighbours among the S registers are moved together, in either order.
// CHECK-LABEL: thumb.func @neighbours
// CHECK:         [[T:%.*]], [[U:%.*]] = thumb.vmov_rr_ss %a, %b : !thumb.r<r2>, !thumb.r<r1>
// CHECK-NEXT:    {{%.*}}, {{%.*}} = thumb.vmov_ss_rr [[U]], [[T]] : !thumb.s<s6>, !thumb.s<s7>
// CHECK-NOT:     thumb.vmov_r_s
// CHECK-NOT:     thumb.vmov_s_r
thumb.func @neighbours(%p : !thumb.r<r0>) {
  %a = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s<s4>
  %b = thumb.vldr %p {offset = 4, space = "arena"} : !thumb.s<s5>
  %u = thumb.vmov_r_s %b : !thumb.r<r1>
  %t = thumb.vmov_r_s %a : !thumb.r<r2>
  %c = thumb.vmov_s_r %u : !thumb.s<s6>
  %d = thumb.vmov_s_r %t : !thumb.s<s7>
  thumb.vstr %c, %p {offset = 0, space = "arena"}
  thumb.vstr %d, %p {offset = 4, space = "arena"}
  thumb.return
}
// Others, and those with something in between, stay as they are. A move to the same register goes.
// CHECK-LABEL: thumb.func @apart
// CHECK:         thumb.vmov_r_s %a
// CHECK-NEXT:    thumb.vmov_r_s %c
// CHECK-NEXT:    thumb.vadd
// CHECK-NEXT:    thumb.vmov_r_s %b
// CHECK-NOT:     thumb.mov
// CHECK:         thumb.str {{%.*}}, %p
thumb.func @apart(%p : !thumb.r<r0>) {
  %a = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s<s4>
  %b = thumb.vldr %p {offset = 4, space = "arena"} : !thumb.s<s5>
  %c = thumb.vldr %p {offset = 8, space = "arena"} : !thumb.s<s6>
  %t = thumb.vmov_r_s %a : !thumb.r<r1>
  %u = thumb.vmov_r_s %c : !thumb.r<r2>
  %sum = thumb.vadd %a, %b : !thumb.s<s4>
  %v = thumb.vmov_r_s %b : !thumb.r<r3>
  %w = thumb.mov %v : !thumb.r<r3>
  thumb.str %t, %p {offset = 0, space = "arena"}
  thumb.str %u, %p {offset = 4, space = "arena"}
  thumb.str %w, %p {offset = 8, space = "arena"}
  thumb.vstr %sum, %p {offset = 12, space = "arena"}
  thumb.return
}
