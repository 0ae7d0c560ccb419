// RUN: ml4f-opt %s -p nn-fold-batch-norm,nn-remove-dead-code --split-input-file --run-between-passes | filecheck %s

// Behind a linear operation: the scale goes into the weights, the offset into the bias.
// CHECK-LABEL: func.func @main(%x: tensor<2xf32>)
// CHECK-DAG:     [[W:%.*]] = nn.const {value = dense<{{\[\[}}2.000000e+00, 1.000000e+01], [6.000000e+00, 2.000000e+01]]>
// CHECK-DAG:     [[B:%.*]] = nn.const {value = dense<[1.200000e+01, 1.500000e+01]>
// CHECK:         [[Y:%.*]] = nn.dense %x, [[W]], [[B]] : tensor<2xf32>
// CHECK-NEXT:    func.return [[Y]]
func.func @main(%x : tensor<2xf32>) -> tensor<2xf32> {
  %w = nn.const {value = dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>} : tensor<2x2xf32>
  %b = nn.const {value = dense<[1.0, -1.0]> : tensor<2xf32>} : tensor<2xf32>
  %scale = nn.const {value = dense<[2.0, 5.0]> : tensor<2xf32>} : tensor<2xf32>
  %offset = nn.const {value = dense<[10.0, 20.0]> : tensor<2xf32>} : tensor<2xf32>
  %0 = nn.dense %x, %w, %b : tensor<2xf32>
  %1 = nn.batch_norm %0, %scale, %offset : tensor<2xf32>
  func.return %1 : tensor<2xf32>
}
// -----
// In front of one, behind a reshape: each row of the weights is scaled.
// CHECK-LABEL: func.func @main(%x: tensor<2x2xf32>)
// CHECK-DAG:     [[W:%.*]] = nn.const {value = dense<{{\[\[}}2.000000e+00], [1.000000e+01], [6.000000e+00], [2.000000e+01]]>
// CHECK-DAG:     [[B:%.*]] = nn.const {value = dense<1.000000e+00>
// CHECK:         nn.dense {{%.*}}, [[W]], [[B]] : tensor<1xf32>
func.func @main(%x : tensor<2x2xf32>) -> tensor<1xf32> {
  %w = nn.const {value = dense<[[1.0], [2.0], [3.0], [4.0]]> : tensor<4x1xf32>} : tensor<4x1xf32>
  %scale = nn.const {value = dense<[2.0, 5.0]> : tensor<2xf32>} : tensor<2xf32>
  %offset = nn.const {value = dense<[1.0, -0.5]> : tensor<2xf32>} : tensor<2xf32>
  %0 = nn.batch_norm %x, %scale, %offset : tensor<2x2xf32>
  %1 = nn.reshape %0 : tensor<4xf32>
  %2 = nn.dense %1, %w : tensor<1xf32>
  func.return %2 : tensor<1xf32>
}
// -----
// An offset in front of zero padding would be wrong at the border: only a scale may pass.
// CHECK-LABEL: func.func @main(%x: tensor<3x3x1xf32>)
// CHECK:         nn.add
// CHECK:         nn.conv2d
// CHECK-NOT:     nn.mul
// CHECK:         nn.conv2d
func.func @main(%x : tensor<3x3x1xf32>) -> tensor<3x3x1xf32> {
  %w = nn.const {value = dense<0.5> : tensor<3x3x1x1xf32>} : tensor<3x3x1x1xf32>
  %c = nn.const {value = dense<2.0> : tensor<1xf32>} : tensor<1xf32>
  %0 = nn.add %x, %c : tensor<3x3x1xf32>
  %1 = nn.conv2d %0, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, groups = 1, act = #nn.act<"relu">} : tensor<3x3x1xf32>
  %2 = nn.mul %1, %c : tensor<3x3x1xf32>
  %3 = nn.conv2d %2, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, groups = 1} : tensor<3x3x1xf32>
  func.return %3 : tensor<3x3x1xf32>
}
// -----
// Arithmetic with constants is one operation; what has an activation, or another reader, stays.
// CHECK-LABEL: func.func @main(%x: tensor<2xf32>)
// CHECK:         nn.batch_norm %x, {{.*}} {act = #nn.act<"relu">} : tensor<2xf32>
// CHECK-NEXT:    nn.dense
// CHECK:         nn.mul
func.func @main(%x : tensor<2xf32>) -> tensor<2xf32> {
  %w = nn.const {value = dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>} : tensor<2x2xf32>
  %scale = nn.const {value = dense<[2.0, 5.0]> : tensor<2xf32>} : tensor<2xf32>
  %offset = nn.const {value = dense<[1.0, -0.5]> : tensor<2xf32>} : tensor<2xf32>
  %1 = nn.batch_norm %x, %scale, %offset {act = #nn.act<"relu">} : tensor<2xf32>
  %2 = nn.dense %1, %w : tensor<2xf32>
  %3 = nn.mul %2, %scale : tensor<2xf32>
  %4 = nn.add %3, %2 : tensor<2xf32>
  func.return %4 : tensor<2xf32>
}
// -----
// Infinite factors are left alone: (1 - 0) * inf is infinite, inf - 0 * inf is no number.
// CHECK:       nn.sub
// CHECK-NEXT:  nn.mul
func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %one = nn.const {value = dense<1.0> : tensor<4xf32>} : tensor<4xf32>
  %infinite = nn.const {value = dense<"0x0000807F0000807F0000807F0000807F"> : tensor<4xf32>} : tensor<4xf32>
  %0 = nn.sub %one, %x : tensor<4xf32>
  %1 = nn.mul %0, %infinite : tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
