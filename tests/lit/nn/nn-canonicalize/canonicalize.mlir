// RUN: ml4f-opt %s -p nn-canonicalize,nn-remove-dead-code --split-input-file --run-between-passes | filecheck %s

// What does nothing goes: a linear activation, reshapes of reshapes, a reshape to the shape that is there.
// CHECK-LABEL: func.func @main(%x: tensor<2x6xf32>)
// CHECK-NEXT:    [[A:%.*]] = nn.activation %x {act = #nn.act<"relu">}
// CHECK-NEXT:    [[B:%.*]] = nn.reshape [[A]] : tensor<4x3xf32>
// CHECK-NEXT:    func.return [[B]]
func.func @main(%x : tensor<2x6xf32>) -> tensor<4x3xf32> {
  %0 = nn.activation %x {act = #nn.act<"linear">} : tensor<2x6xf32>
  %1 = nn.reshape %0 : tensor<2x6xf32>
  %2 = nn.activation %1 {act = #nn.act<"relu">} : tensor<2x6xf32>
  %3 = nn.reshape %2 : tensor<12xf32>
  %4 = nn.reshape %3 : tensor<4x3xf32>
  func.return %4 : tensor<4x3xf32>
}
// -----
// A transpose that moves only extents of one is a reshape; two transposes are one.
// CHECK-LABEL: func.func @main(%x: tensor<2x1x3xf32>)
// CHECK-NEXT:    nn.reshape %x : tensor<2x3x1xf32>
// CHECK:         nn.transpose %y {permutation = array<i64: 1, 2, 0>} : tensor<3x4x2xf32>
func.func @main(%x : tensor<2x1x3xf32>) -> tensor<3x4x2xf32> {
  %0 = nn.transpose %x {permutation = array<i64: 1, 0, 2>} : tensor<1x2x3xf32>
  %w = nn.reshape %0 : tensor<2x3x1xf32>
  %c = nn.const {value = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : tensor<4xf32>
  %m = nn.mul %w, %c : tensor<2x3x4xf32>
  %y = nn.softmax %m {axis = 2} : tensor<2x3x4xf32>
  %1 = nn.transpose %y {permutation = array<i64: 2, 1, 0>} : tensor<4x3x2xf32>
  %2 = nn.transpose %1 {permutation = array<i64: 1, 0, 2>} : tensor<3x4x2xf32>
  func.return %2 : tensor<3x4x2xf32>
}
// -----
// Zero padding of height and width moves into the convolution ...
// CHECK-LABEL: func.func @main(%x: tensor<3x4x1xf32>)
// CHECK-NOT:     nn.pad
// CHECK:         nn.conv2d %x, %w {{.*}}pads = array<i64: 1, 2, 0, 3>
func.func @main(%x : tensor<3x4x1xf32>) -> tensor<3x8x1xf32> {
  %w = nn.const {value = dense<[[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]]]> : tensor<2x2x1x1xf32>} : tensor<2x2x1x1xf32>
  %0 = nn.pad %x {low = array<i64: 1, 1, 0>, high = array<i64: 0, 3, 0>, value = 0.0 : f32} : tensor<4x8x1xf32>
  %1 = nn.conv2d %0, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 1, 0, 0>, groups = 1} : tensor<3x8x1xf32>
  func.return %1 : tensor<3x8x1xf32>
}
// -----
// ... but not other values, not channels, and not what has another reader.
// CHECK-LABEL: func.func @main(%x: tensor<3x4x1xf32>)
// CHECK:         nn.pad
// CHECK:         nn.conv2d {{.*}}pads = array<i64: 0, 0, 0, 0>
// CHECK:         nn.pad
// CHECK:         nn.conv2d {{.*}}pads = array<i64: 0, 0, 0, 0>
// CHECK:         nn.pad
// CHECK:         nn.conv2d {{.*}}pads = array<i64: 0, 0, 0, 0>
func.func @main(%x : tensor<3x4x1xf32>) -> tensor<1x5x2xf32> {
  %w = nn.const {value = dense<0.5> : tensor<2x2x1x1xf32>} : tensor<2x2x1x1xf32>
  %v = nn.const {value = dense<0.25> : tensor<2x2x2x2xf32>} : tensor<2x2x2x2xf32>
  %0 = nn.pad %x {low = array<i64: 1, 1, 0>, high = array<i64: 0, 0, 0>, value = 1.0 : f32} : tensor<4x5x1xf32>
  %1 = nn.conv2d %0, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<3x4x1xf32>
  %2 = nn.pad %1 {low = array<i64: 0, 0, 0>, high = array<i64: 0, 0, 1>, value = 0.0 : f32} : tensor<3x4x2xf32>
  %3 = nn.conv2d %2, %v {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<2x3x2xf32>
  %4 = nn.pad %3 {low = array<i64: 0, 1, 0>, high = array<i64: 0, 2, 0>, value = 0.0 : f32} : tensor<2x6x2xf32>
  %5 = nn.conv2d %4, %v {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<1x5x2xf32>
  %6 = nn.slice %4 {start = array<i64: 0, 0, 0>, strides = array<i64: 1, 1, 1>, sizes = array<i64: 1, 5, 2>} : tensor<1x5x2xf32>
  %7 = nn.add %5, %6 : tensor<1x5x2xf32>
  func.return %7 : tensor<1x5x2xf32>
}
