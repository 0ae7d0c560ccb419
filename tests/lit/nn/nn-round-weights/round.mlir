// Weights become float16 numbers: 0.1 is 0.0999755859 then. Biases, and weights that float16 cannot hold, stay as they are.
// RUN: ml4f-opt %s -p nn-round-weights | filecheck %s

// CHECK-DAG:  [[B:%.*]] = nn.const {value = dense<1.000000e-01> : tensor<1xf32>} : tensor<1xf32>
// CHECK-DAG:  [[W:%.*]] = nn.const {value = dense<{{.*}}0.0999755859{{.*}}> : tensor<2x1xf32>, half} : tensor<2x1xf32>
// CHECK-DAG:  [[V:%.*]] = nn.const {value = dense<7.000000e+04> : tensor<1x1xf32>} : tensor<1x1xf32>
// CHECK:      nn.dense %x, [[W]], [[B]] : tensor<1xf32>
// CHECK:      nn.dense {{%.*}}, [[V]] : tensor<1xf32>
func.func @main(%x : tensor<2xf32>) -> tensor<1xf32> {
  %w = nn.const {value = dense<[[0.1], [2.0]]> : tensor<2x1xf32>} : tensor<2x1xf32>
  %b = nn.const {value = dense<0.1> : tensor<1xf32>} : tensor<1xf32>
  %v = nn.const {value = dense<70000.0> : tensor<1x1xf32>} : tensor<1x1xf32>
  %0 = nn.dense %x, %w, %b : tensor<1xf32>
  %1 = nn.dense %0, %v : tensor<1xf32>
  func.return %1 : tensor<1xf32>
}
