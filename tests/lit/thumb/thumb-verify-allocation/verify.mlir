// Registers that hold another value than the one that is read are found, wherever they come from.
// RUN: not ml4f-opt %s -p thumb-verify-allocation 2>&1 | filecheck %s

// CHECK: k: wrong register allocation (1 problems):
// CHECK-NEXT: step 3: thumb.vadd reads %1 in s0, which holds %2
thumb.func @k(%p : !thumb.r<r0>) {
  %a = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s<s0>
  %b = thumb.vldr %p {offset = 4, space = "arena"} : !thumb.s<s0>
  %c = thumb.vadd %a, %b : !thumb.s<s1>
  thumb.vstr %c, %p {offset = 8, space = "arena"}
  thumb.return
}
