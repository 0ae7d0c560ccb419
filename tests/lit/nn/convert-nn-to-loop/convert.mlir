// Every tensor becomes a buffer, every op one or more kernels in nest form.
// RUN: ml4f-opt %s -p convert-nn-to-loop --split-input-file --run-between-passes | filecheck %s

// A convolution: padding is a guard, the bias and the activation belong to the nest; the layer's name stays.
// CHECK-DAG:   loop.buffer @x {bytes = 240 : i64}
// CHECK-DAG:   loop.buffer @conv_out {bytes = 192 : i64}
// CHECK:       loop.kernel @conv(%x : arena, %w : const, %bias : const, %out : arena) {
// CHECK-NEXT:    loop.nest %x, %w, %bias, %out : <parallel (oy = 4, ox = 4, f = 3) reduce (ky = 3, kx = 3, c = 3) mac
// CHECK-SAME:      x["15*oy + 3*ox + 15*ky + 3*kx + c - 15"], w["27*ky + 9*kx + 3*c + f"], bias["f"], out["12*oy + 3*ox + f"]
// CHECK-SAME:      where "oy + ky - 1" < 4, {{.*}}then activation relu6>
// CHECK:       loop.program @main
// CHECK-SAME:    inputs = [@x], outputs = [@conv_out]
// CHECK-NEXT:    loop.call @conv(@x, @{{[a-z_]*}}, @{{[a-z_0-9]*}}, @conv_out) {layers = ["conv"], op = "conv2d", {{.*}}macs = 1296
func.func @main(%x : tensor<4x5x3xf32>) -> tensor<4x4x3xf32> {
  %w = nn.const {value = dense<0.5> : tensor<3x3x3x3xf32>} : tensor<3x3x3x3xf32>
  %b = nn.const {value = dense<0.5> : tensor<3xf32>} : tensor<3xf32>
  %0 = nn.conv2d %x, %w, %b {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 0, 1, 1>, groups = 1, act = #nn.act<"relu6">} : tensor<4x4x3xf32> loc("conv")
  func.return %0 : tensor<4x4x3xf32>
}
// -----
// Dims that are contiguous in every operand merge: a 1x1 convolution has one pixel dim, a window of whole rows one reduction.
// CHECK:       loop.nest {{.*}}<parallel (ox = 20, f = 2) reduce (c = 3) mac
// CHECK:       loop.nest {{.*}}<parallel (oy = 4) reduce (c = 10) mac
func.func @main(%x : tensor<4x5x3xf32>) -> tensor<4x1x1xf32> {
  %w = nn.const {value = dense<0.5> : tensor<1x1x3x2xf32>} : tensor<1x1x3x2xf32>
  %v = nn.const {value = dense<0.25> : tensor<1x5x2x1xf32>} : tensor<1x5x2x1xf32>
  %0 = nn.conv2d %x, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<4x5x2xf32>
  %1 = nn.conv2d %0, %v {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<4x1x1xf32>
  func.return %1 : tensor<4x1x1xf32>
}
// -----
// Softmax is four kernels; a costly activation behind a tile of accumulators is a kernel of its own, in place.
// CHECK:       loop.kernel @dense(
// CHECK:       loop.kernel @dense_tanh(
// CHECK:       loop.kernel @softmax_max(
// CHECK:       loop.kernel @softmax_exp(
// CHECK:         then sub row, activation exp_nonpositive
// CHECK:       loop.kernel @softmax_sum(
// CHECK:         then rdiv(1.000000e+00 : f64)
// CHECK:       loop.kernel @softmax_scale(
// CHECK:       loop.call @dense_tanh(@dense_out, @dense_out)
func.func @main(%x : tensor<3xf32>) -> tensor<4xf32> {
  %w = nn.const {value = dense<0.5> : tensor<3x4xf32>} : tensor<3x4xf32>
  %0 = nn.dense %x, %w {act = #nn.act<"tanh">} : tensor<4xf32>
  %1 = nn.softmax %0 {axis = 0} : tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
// -----
// Padding does not count in a mean: the divisors of the border's rows and columns are tables.
// CHECK-DAG:   loop.data @{{.*}}rows = dense<[5.000000e-01, 0.333333343, 5.000000e-01]>
// CHECK-DAG:   loop.data @{{.*}}columns = dense<[1.000000e+00, 5.000000e-01]>
// CHECK:       loop.nest {{.*}} add x[{{.*}} then mul rows, mul columns>
func.func @main(%x : tensor<3x3x1xf32>) -> tensor<3x2x1xf32> {
  %0 = nn.avg_pool2d %x {kernel = array<i64: 3, 2>, strides = array<i64: 1, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 0>} : tensor<3x2x1xf32>
  func.return %0 : tensor<3x2x1xf32>
}
// -----
// Slices, transposes and pads are copies with other strides, offsets and guards; a reshape is nothing.
// CHECK:       loop.nest {{.*}} copy x["-12*d0 + 2*d1 + 18"], out["3*d0 + d1"]>
// CHECK:       loop.nest {{.*}} copy x["d0 + 3*d1"], out["2*d0 + d1"]>
// CHECK:       loop.nest {{.*}} copy x["d0 - 1"], out["d0"] where "d0 - 1" < 6 initial 2.000000e+00 : f64>
func.func @main(%x : tensor<4x6xf32>) -> tensor<8xf32> {
  %0 = nn.slice %x {start = array<i64: 3, 0>, strides = array<i64: -2, 2>, sizes = array<i64: 2, 3>} : tensor<2x3xf32>
  %1 = nn.transpose %0 {permutation = array<i64: 1, 0>} : tensor<3x2xf32>
  %2 = nn.reshape %1 : tensor<6xf32>
  %3 = nn.pad %2 {low = array<i64: 1>, high = array<i64: 1>, value = 2.0 : f32} : tensor<8xf32>
  func.return %3 : tensor<8xf32>
}
// -----
// Reductions over any axes.
// CHECK:       loop.nest {{.*}}<parallel (d1 = 3) reduce (k0 = 2, k2 = 4) mul x["12*k0 + 4*d1 + k2"], out["d1"] initial 1.000000e+00 : f64>
// CHECK:       loop.nest {{.*}} min x[
func.func @main(%x : tensor<2x3x4xf32>) -> tensor<1xf32> {
  %0 = nn.reduce %x {axes = array<i64: 0, 2>, kind = "prod"} : tensor<3xf32>
  %1 = nn.reduce %0 {axes = array<i64: 0>, kind = "min"} : tensor<f32>
  %2 = nn.reshape %1 : tensor<1xf32>
  func.return %2 : tensor<1xf32>
}
// -----
// A power of two tensors is a step of the epilogue, the exponent its operand, broadcast by strides of 0.
// CHECK:       loop.nest {{.*}} copy x["3*d0 + d1"], other["d1"], out["3*d0 + d1"] then pow other>
func.func @main(%x : tensor<2x3xf32>) -> tensor<2x3xf32> {
  %e = nn.const {value = dense<[2.0, 0.5, -1.0]> : tensor<3xf32>} : tensor<3xf32>
  %0 = nn.pow %x, %e : tensor<2x3xf32>
  func.return %0 : tensor<2x3xf32>
}
// -----
// A convolution of volumes has a depth around the image, with a guard of its own.
// CHECK:       loop.nest {{.*}}<parallel (oz = 3, oy = 4, ox = 5, f = 2) reduce (kz = 3, ky = 3, kx = 3, c = 2) mac
// CHECK-SAME:    x["40*oz + 40*kz + 10*oy + 2*ox + 10*ky + 2*kx + c - 52"]
// CHECK-SAME:    where "oz + kz - 1" < 3, "oy + ky - 1" < 4, "ox + kx - 1" < 5>
func.func @main(%x : tensor<3x4x5x2xf32>) -> tensor<3x4x5x2xf32> {
  %w = nn.const {value = dense<0.25> : tensor<3x3x3x2x2xf32>} : tensor<3x3x3x2x2xf32>
  %0 = nn.conv3d %x, %w {strides = array<i64: 1, 1, 1>, dilations = array<i64: 1, 1, 1>, pads = array<i64: 1, 1, 1, 1, 1, 1>, groups = 1} : tensor<3x4x5x2xf32>
  func.return %0 : tensor<3x4x5x2xf32>
}
// -----
// Computed weights are read where they lie (v), constant ones are packed (w).
// CHECK:       loop.kernel @conv(%x : arena, %v : arena, %out : arena) {
// CHECK-NEXT:    loop.nest %x, %v, %out : <parallel (oy = 2, ox = 3, f = 2) reduce (ky = 3, c = 9) mac
// CHECK-SAME:      x["15*oy + 3*ox + 15*ky + c"], v["18*ky + 2*c + f"]
func.func @main(%x : tensor<4x5x3xf32>, %w : tensor<3x3x3x2xf32>) -> tensor<2x3x2xf32> {
  %0 = nn.conv2d %x, %w {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, groups = 1} : tensor<2x3x2xf32> loc("conv")
  func.return %0 : tensor<2x3x2xf32>
}
// -----
// A transposed convolution whose windows lie side by side is one nest: the pixels of a block are filters, those of a row of
// it contiguous with the layer's own. With a larger kernel there is a nest for each phase.
// CHECK:       loop.nest {{.*}}<parallel (oy = 4, ox = 5, py = 2, f = 6) reduce (c = 3) mac
// CHECK-SAME:      x["15*oy + 3*ox + c"], w["12*c + 6*py + f"], bias["f"], out["60*oy + 6*ox + 30*py + f"]>
// CHECK-NOT:   loop.nest
// CHECK:       loop.program @main
func.func @main(%x : tensor<4x5x3xf32>) -> tensor<8x10x3xf32> {
  %w = nn.const {value = dense<0.5> : tensor<2x2x3x3xf32>} : tensor<2x2x3x3xf32>
  %b = nn.const {value = dense<0.5> : tensor<3xf32>} : tensor<3xf32>
  %0 = nn.conv_transpose2d %x, %w, %b {strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, output_pads = array<i64: 0, 0>, groups = 1} : tensor<8x10x3xf32>
  func.return %0 : tensor<8x10x3xf32>
}
// -----
// CHECK-COUNT-4: loop.nest {{.*}}mac
// CHECK:       loop.program @main
func.func @main(%x : tensor<4x5x3xf32>) -> tensor<9x11x3xf32> {
  %w = nn.const {value = dense<0.5> : tensor<3x3x3x3xf32>} : tensor<3x3x3x3xf32>
  %0 = nn.conv_transpose2d %x, %w {strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, output_pads = array<i64: 0, 0>, groups = 1} : tensor<9x11x3xf32>
  func.return %0 : tensor<9x11x3xf32>
}
