// What nothing reads goes, together with what only it reads; everything else stays.
// RUN: ml4f-opt %s -p nn-remove-dead-code --run-between-passes | filecheck %s

// CHECK-LABEL: func.func @main(%x: tensor<2xf32>)
// CHECK-NEXT:    %kept = nn.const
// CHECK-NEXT:    %y = nn.add %x, %kept : tensor<2xf32>
// CHECK-NEXT:    func.return %y
func.func @main(%x : tensor<2xf32>) -> tensor<2xf32> {
  %kept = nn.const {value = dense<1.0> : tensor<2xf32>} : tensor<2xf32>
  %only = nn.const {value = dense<2.0> : tensor<2xf32>} : tensor<2xf32>
  %y = nn.add %x, %kept : tensor<2xf32>
  %dead = nn.mul %y, %only : tensor<2xf32>
  %deader = nn.activation %dead {act = #nn.act<"relu">} : tensor<2xf32>
  func.return %y : tensor<2xf32>
}
