// Zero padding moves into a convolution through reshapes that move extents of one: along which axis, they decide.
// RUN: ml4f-opt %s -p nn-canonicalize,nn-remove-dead-code --run-between-passes | filecheck %s

// CHECK-LABEL: @main
// CHECK-NOT:     nn.pad
// CHECK:         [[X:%.*]] = nn.reshape %x : tensor<1x10x2xf32>
// CHECK:         nn.conv2d [[X]], %w {{.*}}pads = array<i64: 0, 1, 0, 5>
func.func @main(%x : tensor<10x1x2xf32>) -> tensor<1x14x1xf32> {
  %w = nn.const {value = dense<0.5> : tensor<1x3x2x1xf32>} : tensor<1x3x2x1xf32>
  %0 = nn.pad %x {low = array<i64: 1, 0, 0>, high = array<i64: 3, 0, 0>, value = 0.0 : f32} : tensor<14x1x2xf32>
  %1 = nn.reshape %0 : tensor<1x14x2xf32>
  %2 = nn.conv2d %1, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 2>, groups = 1} : tensor<1x14x1xf32>
  func.return %2 : tensor<1x14x1xf32>
}
