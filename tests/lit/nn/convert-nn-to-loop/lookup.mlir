// Rows of a table by their numbers: the number of a row is the lower bound of a loop of one iteration.
// RUN: ml4f-opt %s -p convert-nn-to-loop --run-between-passes | filecheck %s

// CHECK:       loop.kernel @lookup(%table : const, %index : arena, %out : arena) {
// CHECK-NEXT:    loop.for %{{.*}} times 3 label "i" {
// CHECK-NEXT:      [[NUMBER:%.*]] = loop.load %index[
// CHECK:           [[ROW:%.*]] = loop.to_index
// CHECK-NEXT:      loop.for [[K:%[0-9]+]] from [[ROW]] times 1 label "row" {
// CHECK-NEXT:        loop.load %table{{.}}[[K]]{{.}} {offset = 0 : i64, space = "const", strides = array<i64: 8>
// CHECK:             loop.store
// CHECK:       loop.call @lookup(@const_data, @i, @lookup_out)
func.func @main(%i : tensor<3xf32>) -> tensor<3x2xf32> {
  %t = nn.const {value = dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]> : tensor<4x2xf32>} : tensor<4x2xf32>
  %y = nn.lookup %t, %i : tensor<3x2xf32>
  func.return %y : tensor<3x2xf32>
}
