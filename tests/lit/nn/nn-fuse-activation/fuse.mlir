// RUN: ml4f-opt %s -p nn-fuse-activation --split-input-file --run-between-passes --print-debuginfo | filecheck %s

// An activation becomes part of what computes its input, also behind a reshape; both layers are named.
// CHECK-LABEL: func.func @main(%x: tensor<4xf32>
// CHECK:         [[Y:%.*]] = nn.dense %x, %w {act = #nn.act<"leaky_relu", 0.25>} : tensor<4xf32> loc(fused["dense", "act"])
// CHECK-NEXT:    [[Z:%.*]] = nn.reshape [[Y]] : tensor<2x2xf32>
// CHECK-NEXT:    func.return [[Z]]
func.func @main(%x : tensor<4xf32>) -> tensor<2x2xf32> {
  %w = nn.const {value = dense<0.5> : tensor<4x4xf32>} : tensor<4x4xf32>
  %0 = nn.dense %x, %w : tensor<4xf32> loc("dense")
  %1 = nn.reshape %0 : tensor<2x2xf32>
  %2 = nn.activation %1 {act = #nn.act<"leaky_relu", 0.25>} : tensor<2x2xf32> loc("act")
  func.return %2 : tensor<2x2xf32>
}
// -----
// Not where the value before the activation is read too, not a second one, not into softmax.
// CHECK-LABEL: func.func @main(%x: tensor<4xf32>
// CHECK:         nn.add %x, %x : tensor<4xf32>
// CHECK-NEXT:    nn.activation {{%.*}} {act = #nn.act<"relu">}
// CHECK-NEXT:    nn.sub {{.*}} {act = #nn.act<"tanh">}
// CHECK-NEXT:    nn.activation {{%.*}} {act = #nn.act<"elu", 1.0>}
// CHECK-NEXT:    nn.softmax
// CHECK-NEXT:    nn.activation {{%.*}} {act = #nn.act<"sigmoid">}
func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = nn.add %x, %x : tensor<4xf32>
  %1 = nn.activation %0 {act = #nn.act<"relu">} : tensor<4xf32>
  %2 = nn.sub %1, %0 : tensor<4xf32>
  %3 = nn.activation %2 {act = #nn.act<"tanh">} : tensor<4xf32>
  %4 = nn.activation %3 {act = #nn.act<"elu", 1.0>} : tensor<4xf32>
  %5 = nn.softmax %4 {axis = 0} : tensor<4xf32>
  %6 = nn.activation %5 {act = #nn.act<"sigmoid">} : tensor<4xf32>
  func.return %6 : tensor<4xf32>
}
