// Plain xdsl-opt finds dialects, passes and targets through the entry point `xdsl.universe`.
// REQUIRES: entry-point
// RUN: xdsl-opt %s -p nn-canonicalize | filecheck %s --check-prefix NN
// RUN: xdsl-opt %s -p convert-nn-to-loop | filecheck %s --check-prefix LOOP

// NN:     func.func @main
// NN-NOT: nn.reshape
// LOOP:   loop.kernel
func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %same = nn.reshape %x : tensor<4xf32>
  %y = nn.activation %same {act = #nn.act<"relu">} : tensor<4xf32>
  func.return %y : tensor<4xf32>
}
