// What the verifier of the nn dialect refuses: shapes that do not follow from the operands, and what no kernel could compute.
// RUN: ml4f-opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: the result's shape is [3, 3, 6], not [3, 3, 5]
func.func @main(%x : tensor<5x5x2xf32>, %w : tensor<3x3x2x6xf32>) {
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<3x3x5xf32>
  func.return
}
// -----
// CHECK: 2 channels in 2 groups do not fit weights [3, 3, 2, 6]
func.func @main(%x : tensor<5x5x2xf32>, %w : tensor<3x3x2x6xf32>) {
  %y = nn.conv2d %x, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 2} : tensor<3x3x6xf32>
  func.return
}
// -----
// CHECK: a window of 5 does not fit 3 + 1 + 0 elements
func.func @main(%x : tensor<3x9x2xf32>, %w : tensor<3x3x2x1xf32>) {
  %y = nn.depthwise_conv2d %x, %w {strides = array<i64: 1, 1>, dilations = array<i64: 2, 1>, pads = array<i64: 1, 0, 0, 0>} : tensor<1x7x2xf32>
  func.return
}
// -----
// CHECK: kernel 0, stride 1, dilation 1 must be positive, pads not negative
func.func @main(%x : tensor<3x9x2xf32>) {
  %y = nn.max_pool2d %x {kernel = array<i64: 0, 1>, strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : tensor<3x9x2xf32>
  func.return
}
// -----
// CHECK: the bias should have the shape [5], not [6]
func.func @main(%x : tensor<4xf32>, %w : tensor<4x5xf32>, %b : tensor<6xf32>) {
  %y = nn.dense %x, %w, %b : tensor<5xf32>
  func.return
}
// -----
// CHECK: shapes [2, 3] and [2] do not broadcast
func.func @main(%a : tensor<2x3xf32>, %b : tensor<2xf32>) {
  %y = nn.add %a, %b : tensor<2x3xf32>
  func.return
}
// -----
// CHECK: the slope broadcasts to the input, not the input to the slope
func.func @main(%a : tensor<3xf32>, %b : tensor<2x3xf32>) {
  %y = nn.prelu %a, %b : tensor<2x3xf32>
  func.return
}
// -----
// CHECK: there is no activation 'rleu'
func.func @main(%a : tensor<3xf32>) {
  %y = nn.activation %a {act = #nn.act<"rleu">} : tensor<3xf32>
  func.return
}
// -----
// CHECK: axis 1 of [3]
func.func @main(%a : tensor<3xf32>) {
  %y = nn.softmax %a {axis = 1} : tensor<3xf32>
  func.return
}
// -----
// CHECK: elements 2 to -2 do not lie in 3
func.func @main(%a : tensor<3xf32>) {
  %y = nn.slice %a {start = array<i64: 2>, strides = array<i64: -2>, sizes = array<i64: 3>} : tensor<3xf32>
  func.return
}
// -----
// CHECK: [4, 3] and [2, 2] differ in more than axis 0
func.func @main(%a : tensor<2x2xf32>, %b : tensor<4x3xf32>) {
  %y = nn.concat %a, %b {axis = 0} : tensor<6x2xf32>
  func.return
}
// -----
// CHECK: the kind is one of sum, mean, max, min, prod
func.func @main(%a : tensor<3xf32>) {
  %y = nn.reduce %a {axes = array<i64: 0>, kind = "median"} : tensor<f32>
  func.return
}
// -----
// CHECK: [2, 3] has 6 elements, [5] has 5
func.func @main(%a : tensor<2x3xf32>) {
  %y = nn.reshape %a : tensor<5xf32>
  func.return
}
// -----
// CHECK: [0, 0] is no permutation of the axes of [2, 3]
func.func @main(%a : tensor<2x3xf32>) {
  %y = nn.transpose %a {permutation = array<i64: 0, 0>} : tensor<2x2xf32>
  func.return
}
// -----
// CHECK: needs 1 low and high paddings that are not negative, not [-1] and [0]
func.func @main(%a : tensor<3xf32>) {
  %y = nn.pad %a {low = array<i64: -1>, high = array<i64: 0>, value = 0.0 : f32} : tensor<2xf32>
  func.return
}
// -----
// CHECK: operands and results are tensors of f32
func.func @main(%a : tensor<3xf64>) {
  %y = nn.reshape %a : tensor<3xf32>
  func.return
}
// -----
// CHECK: extents are constants of at least 1, not [?]
func.func @main(%a : tensor<?xf32>) {
  %y = nn.reshape %a : tensor<3xf32>
  func.return
}
// -----
// CHECK: the value's type is the result's
func.func @main() {
  %w = nn.const {value = dense<1.0> : tensor<3xf32>} : tensor<4xf32>
  func.return
}
// -----
// CHECK: needs x [steps, inputs], w [inputs, 3 * units] and r [units, 3 * units], not [5, 2], [2, 9] and [3, 12]
func.func @main(%x : tensor<5x2xf32>, %h : tensor<3xf32>, %w : tensor<2x9xf32>, %r : tensor<3x12xf32>, %b : tensor<9xf32>) {
  %y = nn.gru %x, %w, %r, %b, %h {activations = [#nn.act<"sigmoid">, #nn.act<"tanh">]} : tensor<1x3xf32>
  func.return
}
// -----
// CHECK: needs 3 activations, not 1
func.func @main(%x : tensor<5x2xf32>, %h : tensor<3xf32>, %w : tensor<2x12xf32>, %r : tensor<3x12xf32>, %b : tensor<12xf32>) {
  %y = nn.lstm %x, %w, %r, %b, %h, %h {activations = [#nn.act<"sigmoid">]} : tensor<1x3xf32>
  func.return
}
// -----
// CHECK: needs [..., m, k] and [..., k, n], not [2, 3] and [2, 3]
func.func @main(%a : tensor<2x3xf32>) {
  %y = nn.matmul %a, %a : tensor<2x2xf32>
  func.return
}
// -----
// CHECK: the result's shape is [6, 4, 2], not [5, 4, 2]
func.func @main(%a : tensor<3x4x2xf32>, %w : tensor<2x1x2x2xf32>) {
  %y = nn.conv_transpose2d %a, %w {strides = array<i64: 2, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, output_pads = array<i64: 0, 0>, groups = 1} : tensor<5x4x2xf32>
  func.return
}
// -----
// CHECK: needs a table [rows, width] and indices [n], not [2, 3] and [2, 3]
func.func @main(%a : tensor<2x3xf32>) {
  %y = nn.lookup %a, %a : tensor<2x3xf32>
  func.return
}
// -----
// CHECK: 2 channels in 1 groups do not fit weights [1, 1, 1, 3, 4]
func.func @main(%a : tensor<2x3x4x2xf32>, %w : tensor<1x1x1x3x4xf32>) {
  %y = nn.conv3d %a, %w {strides = array<i64: 1, 1, 1>, dilations = array<i64: 1, 1, 1>, pads = array<i64: 0, 0, 0, 0, 0, 0>, groups = 1} : tensor<2x3x4x4xf32>
  func.return
}
