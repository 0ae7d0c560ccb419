// RUN: ml4f-opt %s -p nn-reduce-strength --split-input-file --run-between-passes | filecheck %s

// A mean of squares is one reduction, also behind a reshape ...
// CHECK-LABEL: func.func @main(%x: tensor<2x6xf32>)
// CHECK-NEXT:    [[FLAT:%.*]] = nn.reshape %x : tensor<2x6x1xf32>
// CHECK-NEXT:    nn.reduce [[FLAT]] {axes = array<i64: 1>, kind = "mean_square", act = #nn.act<"sqrt">} : tensor<2x1xf32>
func.func @main(%x : tensor<2x6xf32>) -> tensor<2x1xf32> {
  %0 = nn.mul %x, %x : tensor<2x6xf32>
  %1 = nn.reshape %0 : tensor<2x6x1xf32>
  %2 = nn.reduce %1 {axes = array<i64: 1>, kind = "mean", act = #nn.act<"sqrt">} : tensor<2x1xf32>
  func.return %2 : tensor<2x1xf32>
}
// -----
// ... but not where the squares are read by others, too, or where a product is not a square.
// CHECK-LABEL: func.func @main(%x: tensor<2x6xf32>)
// CHECK:         kind = "sum"}
// CHECK:         kind = "sum"}
func.func @main(%x : tensor<2x6xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2x6xf32>) {
  %0 = nn.activation %x {act = #nn.act<"square">} : tensor<2x6xf32>
  %1 = nn.reduce %0 {axes = array<i64: 1>, kind = "sum"} : tensor<2xf32>
  %2 = nn.mul %x, %0 : tensor<2x6xf32>
  %3 = nn.reduce %2 {axes = array<i64: 1>, kind = "sum"} : tensor<2xf32>
  func.return %1, %3, %0 : tensor<2xf32>, tensor<2xf32>, tensor<2x6xf32>
}
// -----
// A division by one root for a row is a product with its reciprocal: the root is at least 0.001.
// CHECK-LABEL: func.func @main(%x: tensor<2x6xf32>, %v: tensor<2x1xf32>)
// CHECK:         [[ROOT:%.*]] = nn.add {{%.*}}, {{%.*}} {act = #nn.act<"sqrt">}
// CHECK-NEXT:    [[RECIPROCAL:%.*]] = nn.activation [[ROOT]] {act = #nn.act<"reciprocal">} : tensor<2x1xf32>
// CHECK-NEXT:    nn.mul %x, [[RECIPROCAL]] {act = #nn.act<"relu">} : tensor<2x6xf32>
func.func @main(%x : tensor<2x6xf32>, %v : tensor<2x1xf32>) -> tensor<2x6xf32> {
  %c = nn.const {value = dense<1.0e-06> : tensor<f32>} : tensor<f32>
  %0 = nn.activation %v {act = #nn.act<"square">} : tensor<2x1xf32>
  %1 = nn.add %0, %c {act = #nn.act<"sqrt">} : tensor<2x1xf32>
  %2 = nn.div %x, %1 {act = #nn.act<"relu">} : tensor<2x6xf32>
  func.return %2 : tensor<2x6xf32>
}
// -----
// It stays a division where the root could be 0, where the divisor is exact (whoever rounds the quotient relies on
// that), and where there is a divisor for each element.
// CHECK-LABEL: func.func @main(%x: tensor<2x6xf32>, %v: tensor<2x1xf32>)
// CHECK-COUNT-3: nn.div
// CHECK-NOT:     reciprocal
func.func @main(%x : tensor<2x6xf32>, %v : tensor<2x1xf32>) -> tensor<2x6xf32> {
  %c = nn.const {value = dense<1.0> : tensor<f32>} : tensor<f32>
  %0 = nn.activation %v {act = #nn.act<"square">} : tensor<2x1xf32>
  %1 = nn.activation %0 {act = #nn.act<"sqrt">} : tensor<2x1xf32>
  %2 = nn.div %x, %1 : tensor<2x6xf32>
  %3 = nn.max %0, %c : tensor<2x1xf32>
  %4 = nn.div %2, %3 : tensor<2x6xf32>
  %5 = nn.activation %4 {act = #nn.act<"exp">} : tensor<2x6xf32>
  %6 = nn.add %5, %c : tensor<2x6xf32>
  %7 = nn.div %4, %6 : tensor<2x6xf32>
  func.return %7 : tensor<2x6xf32>
}
// -----
// A maximum over overlapping windows goes along columns first here (that leaves fewer values), then along rows.
// CHECK-LABEL: func.func @main(%x: tensor<9x5x1xf32>)
// CHECK-NEXT:    [[A:%.*]] = nn.max_pool2d %x {kernel = array<i64: 3, 1>, strides = array<i64: 2, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 0, 1, 0>} : tensor<5x5x1xf32>
// CHECK-NEXT:    nn.max_pool2d [[A]] {kernel = array<i64: 1, 5>, strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 2, 0, 2>, act = #nn.act<"relu">} : tensor<5x5x1xf32>
func.func @main(%x : tensor<9x5x1xf32>) -> tensor<5x5x1xf32> {
  %0 = nn.max_pool2d %x {kernel = array<i64: 3, 5>, strides = array<i64: 2, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 2, 1, 2>, act = #nn.act<"relu">} : tensor<5x5x1xf32>
  func.return %0 : tensor<5x5x1xf32>
}
// -----
// Sums are cheap: a mean is split where windows are large. What pads count is said for each axis.
// CHECK-LABEL: func.func @main(%x: tensor<9x9x1xf32>)
// CHECK:         nn.avg_pool2d %x {kernel = array<i64: 1, 7>, {{.*}}counted_pads = array<i64: 0, 1, 0, 3>
// CHECK-NEXT:    nn.avg_pool2d {{.*}}kernel = array<i64: 7, 1>, {{.*}}counted_pads = array<i64: 2, 0, 3, 0>
// CHECK-NEXT:    nn.avg_pool2d {{.*}}kernel = array<i64: 3, 3>
// CHECK-NEXT:    nn.max_pool2d {{.*}}kernel = array<i64: 2, 2>
func.func @main(%x : tensor<9x9x1xf32>) -> tensor<4x4x1xf32> {
  %0 = nn.avg_pool2d %x {kernel = array<i64: 7, 7>, strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 3, 3, 3, 3>, count_include_pad = 1, counted_pads = array<i64: 2, 1, 3, 3>} : tensor<9x9x1xf32>
  %1 = nn.avg_pool2d %0 {kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>} : tensor<9x9x1xf32>
  %2 = nn.max_pool2d %1 {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : tensor<4x4x1xf32>
  func.return %2 : tensor<4x4x1xf32>
}
