// Wrong text and wrong IR: printed with --parsing-diagnostics and --verify-diagnostics, else an error that names the operation.
// RUN: ml4f-opt %s --split-input-file --parsing-diagnostics --verify-diagnostics | filecheck %s
// RUN: not ml4f-opt %s --split-input-file --parsing-diagnostics 2>&1 | filecheck %s --check-prefix ERROR

// CHECK:      diagnostics.mlir:11:22
// CHECK:      %undefined is not defined before its use
// CHECK:      the result's shape is [4], not [5]
// CHECK:      func.func @main(%z: tensor<2xf32>)
// ERROR:      ml4f-opt: the input: nn.activation in @main (layer second): the result's shape is [4], not [5]
func.func @main(%x : tensor<4xf32>) {
  %y = nn.activation %undefined {act = #nn.act<"relu">} : tensor<4xf32>
  func.return
}
// -----
func.func @main(%x : tensor<4xf32>) {
  %y = nn.activation %x {act = #nn.act<"relu">} : tensor<5xf32> loc("second")
  func.return
}
// -----
func.func @main(%z : tensor<2xf32>) {
  func.return
}
