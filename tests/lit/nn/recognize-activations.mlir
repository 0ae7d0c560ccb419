// RUN: ml4f-opt -p nn-recognize-activations --run-between-passes --split-input-file %s | filecheck %s

// CHECK-LABEL: func.func @main
// CHECK-NOT: sigmoid
// CHECK: %[[Y:.*]] = nn.activation %x {act = #nn.act<"silu">} : tensor<5xf32>
// CHECK-NEXT: func.return %[[Y]]
func.func @main(%x: tensor<5xf32>) -> tensor<5xf32> {
  %0 = nn.activation %x {act = #nn.act<"sigmoid">} : tensor<5xf32>
  %1 = nn.mul %x, %0 : tensor<5xf32>
  func.return %1 : tensor<5xf32>
}

// -----

// CHECK-LABEL: func.func @main
// CHECK: nn.activation %x {act = #nn.act<"mish">}
// CHECK-NEXT: func.return
func.func @main(%x: tensor<5xf32>) -> tensor<5xf32> {
  %0 = nn.activation %x {act = #nn.act<"softplus">} : tensor<5xf32>
  %1 = nn.activation %0 {act = #nn.act<"tanh">} : tensor<5xf32>
  %2 = nn.mul %1, %x : tensor<5xf32>
  func.return %2 : tensor<5xf32>
}

// -----

// The division by the square root of 2, the half and the one, in the order of one exporter.

// CHECK-LABEL: func.func @main
// CHECK: nn.activation %x {act = #nn.act<"gelu">}
// CHECK-NEXT: func.return
func.func @main(%x: tensor<5xf32>) -> tensor<5xf32> {
  %root = nn.const {value = dense<1.41421354> : tensor<1xf32>} : tensor<1xf32>
  %half = nn.const {value = dense<0.5> : tensor<1xf32>} : tensor<1xf32>
  %one = nn.const {value = dense<1.0> : tensor<1xf32>} : tensor<1xf32>
  %0 = nn.div %x, %root : tensor<5xf32>
  %1 = nn.activation %0 {act = #nn.act<"erf">} : tensor<5xf32>
  %2 = nn.add %1, %one : tensor<5xf32>
  %3 = nn.mul %x, %2 : tensor<5xf32>
  %4 = nn.mul %3, %half : tensor<5xf32>
  func.return %4 : tensor<5xf32>
}

// -----

// CHECK-LABEL: func.func @main
// CHECK: nn.activation %x {act = #nn.act<"gelu_tanh">}
// CHECK-NEXT: func.return
func.func @main(%x: tensor<5xf32>) -> tensor<5xf32> {
  %root = nn.const {value = dense<0.797884583> : tensor<1xf32>} : tensor<1xf32>
  %cubic = nn.const {value = dense<0.044715> : tensor<1xf32>} : tensor<1xf32>
  %half = nn.const {value = dense<0.5> : tensor<1xf32>} : tensor<1xf32>
  %one = nn.const {value = dense<1.0> : tensor<1xf32>} : tensor<1xf32>
  %0 = nn.activation %x {act = #nn.act<"square">} : tensor<5xf32>
  %1 = nn.mul %x, %0 : tensor<5xf32>
  %2 = nn.mul %1, %cubic : tensor<5xf32>
  %3 = nn.add %x, %2 : tensor<5xf32>
  %4 = nn.mul %3, %root : tensor<5xf32>
  %5 = nn.activation %4 {act = #nn.act<"tanh">} : tensor<5xf32>
  %6 = nn.add %5, %one : tensor<5xf32>
  %7 = nn.mul %half, %x : tensor<5xf32>
  %8 = nn.mul %7, %6 : tensor<5xf32>
  func.return %8 : tensor<5xf32>
}

// -----

// As TensorFlow writes PReLU: the factor is the negated slope.

// CHECK-LABEL: func.func @main
// CHECK: %[[S:.*]] = nn.const {value = dense<[2.500000e-01, 5.000000e-01]>
// CHECK-NEXT: nn.prelu %x, %[[S]]
// CHECK-NEXT: func.return
func.func @main(%x: tensor<3x2xf32>) -> tensor<3x2xf32> {
  %slope = nn.const {value = dense<[-0.25, -0.5]> : tensor<2xf32>} : tensor<2xf32>
  %0 = nn.activation %x {act = #nn.act<"relu">} : tensor<3x2xf32>
  %1 = nn.activation %x {act = #nn.act<"neg">} : tensor<3x2xf32>
  %2 = nn.activation %1 {act = #nn.act<"relu">} : tensor<3x2xf32>
  %3 = nn.mul %2, %slope : tensor<3x2xf32>
  %4 = nn.add %0, %3 : tensor<3x2xf32>
  func.return %4 : tensor<3x2xf32>
}

// -----

// The sigmoid of another tensor, and one that is read elsewhere too.

// CHECK-LABEL: func.func @main
// CHECK: nn.mul %x, %
// CHECK: nn.activation %y {act = #nn.act<"silu">}
func.func @main(%x: tensor<5xf32>, %y: tensor<5xf32>) -> tensor<5xf32> {
  %0 = nn.activation %y {act = #nn.act<"sigmoid">} : tensor<5xf32>
  %1 = nn.mul %x, %0 : tensor<5xf32>
  %2 = nn.mul %y, %0 : tensor<5xf32>
  %3 = nn.add %1, %2 : tensor<5xf32>
  func.return %3 : tensor<5xf32>
}
