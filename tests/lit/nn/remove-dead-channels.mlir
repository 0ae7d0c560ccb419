// RUN: ml4f-opt -p nn-remove-dead-channels,nn-remove-dead-code --run-between-passes --split-input-file %s | filecheck %s

// The second filter has no weights to speak of: its value, relu(3), moves into the next bias: 1 + 3 * 4.

// CHECK-LABEL: func.func @main
// CHECK-SAME: removed_channels = 1 : i64
// CHECK-SAME: exact_up_to
// CHECK: nn.const {value = dense<[5.000000e-01, 2.500000e-01]> : tensor<2xf32>}
// CHECK: nn.conv2d {{.*}}channels = array<i64: 0, 2>{{.*}} : tensor<2x2x2xf32>
// CHECK: nn.const {value = dense<1.300000e+01> : tensor<1xf32>}
// CHECK: nn.conv2d {{.*}} : tensor<2x2x1xf32>
func.func @main(%x: tensor<2x2x1xf32>) -> tensor<2x2x1xf32> {
  %w = nn.const {value = dense<[[[[1.0, 1.0e-30, 2.0]]]]> : tensor<1x1x1x3xf32>} : tensor<1x1x1x3xf32>
  %b = nn.const {value = dense<[0.5, 3.0, 0.25]> : tensor<3xf32>} : tensor<3xf32>
  %0 = nn.conv2d %x, %w, %b {act = #nn.act<"relu">, dilations = array<i64: 1, 1>, groups = 1, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : tensor<2x2x3xf32>
  %v = nn.const {value = dense<[[[[1.0], [4.0], [1.0]]]]> : tensor<1x1x3x1xf32>} : tensor<1x1x3x1xf32>
  %c = nn.const {value = dense<[1.0]> : tensor<1xf32>} : tensor<1xf32>
  %1 = nn.conv2d %0, %v, %c {dilations = array<i64: 1, 1>, groups = 1, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : tensor<2x2x1xf32>
  func.return %1 : tensor<2x2x1xf32>
}

// -----

// With zero padding the constant's share differs at the border: a tensor of constants is added.

// CHECK-LABEL: func.func @main
// CHECK: nn.conv2d {{.*}} : tensor<1x2x1xf32>
// CHECK: nn.add {{.*}} : tensor<1x2x1xf32>
func.func @main(%x: tensor<1x2x1xf32>) -> tensor<1x2x1xf32> {
  %w = nn.const {value = dense<[[[[1.0, 0.0]]]]> : tensor<1x1x1x2xf32>} : tensor<1x1x1x2xf32>
  %b = nn.const {value = dense<[0.5, 3.0]> : tensor<2xf32>} : tensor<2xf32>
  %0 = nn.conv2d %x, %w, %b {act = #nn.act<"relu">, dilations = array<i64: 1, 1>, groups = 1, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : tensor<1x2x2xf32>
  %v = nn.const {value = dense<[[[[1.0], [4.0]], [[2.0], [5.0]]]]> : tensor<1x2x2x1xf32>} : tensor<1x2x2x1xf32>
  %1 = nn.conv2d %0, %v {dilations = array<i64: 1, 1>, groups = 1, pads = array<i64: 0, 0, 0, 1>, strides = array<i64: 1, 1>} : tensor<1x2x1xf32>
  func.return %1 : tensor<1x2x1xf32>
}

// -----

// Nothing to remove: the module stays as it is.

// CHECK-LABEL: func.func @main
// CHECK-NOT: removed_channels
// CHECK: nn.dense {{.*}} : tensor<2xf32>
func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  %w = nn.const {value = dense<[[1.0, 1.0e-3], [2.0, 1.0e-3]]> : tensor<2x2xf32>} : tensor<2x2xf32>
  %0 = nn.dense %x, %w : tensor<2xf32>
  func.return %0 : tensor<2xf32>
}

// -----

// A scalar has no channels, whatever is computed with it.

// CHECK-LABEL: func.func @main
// CHECK-NOT: removed_channels
// CHECK: nn.activation {{.*}} : tensor<f32>
func.func @main(%x: tensor<f32>) -> tensor<f32> {
  %c = nn.const {value = dense<2.0> : tensor<f32>} : tensor<f32>
  %0 = nn.mul %x, %c : tensor<f32>
  %1 = nn.activation %0 {act = #nn.act<"tanh">} : tensor<f32>
  %2 = nn.activation %c {act = #nn.act<"relu">} : tensor<f32>
  %3 = nn.add %1, %2 : tensor<f32>
  func.return %3 : tensor<f32>
}
