// A recurrent layer is a kernel with a loop over time around its nests: pointers into sequences move on by `strides`.
// RUN: ml4f-opt %s -p convert-nn-to-loop --run-between-passes | filecheck %s
// RUN: ml4f-opt %s --pipeline default --run-between-passes | filecheck %s --check-prefix CODE

// The gates, h and c are one buffer. The sequence runs backwards, and so the pointers into x and the result do.
// CHECK:       loop.buffer @layer_state {bytes = 72 : i64}
// CHECK:       loop.kernel @layer_start(
// CHECK:         loop.nest %x, %out : <parallel (d0 = 3) copy x["0"], out["d0 + 12"]>
// CHECK:       loop.kernel @layer(%x : arena, {{.*}} : const, {{.*}} : const, %layer_state : arena, {{.*}} : const, %layer_out : arena) {
// CHECK-NEXT:    loop.for %{{.*}} times 4 label "t" {
// CHECK-NEXT:      loop.nest %x, {{.*}} mac x["c + 6"], w["12*c + f"], bias["f"], out["f"]> {strides = array<i64: -2, 0, 0, 0>}
// CHECK-NEXT:      loop.nest {{.*}} mac x["c + 12"], w["12*c + f"], before["f"], out["f"] then add before>
// CHECK-NEXT:      loop.nest {{.*}}<parallel (d0 = 9) copy x["d0"], out["d0"] then activation sigmoid>
// CHECK-NEXT:      loop.nest {{.*}} x["d0 + 9"], other1["d0"], out["d0 + 9"] then activation tanh, mul other1>
// CHECK-NEXT:      loop.nest {{.*}} x["d0 + 15"], {{.*}} out["d0 + 15"] then mul other0, add other1>
// CHECK-NEXT:      loop.nest {{.*}} x["d0 + 15"], {{.*}} out["d0 + 12"] then activation tanh, mul other1>
// CHECK-NEXT:      loop.nest %layer_state, %layer_out : {{.*}} x["d0 + 12"], out["d0 + 9"]> {strides = array<i64: 0, -3>}
// CHECK:       loop.call @layer({{.*}}macs = 240

// CODE-LABEL: thumb.func @layer
// CODE:         thumb.loop {{.*}}label = "t"
func.func @main(%x : tensor<4x2xf32>) -> tensor<4x3xf32> {
  %w = nn.const {value = dense<0.5> : tensor<2x12xf32>} : tensor<2x12xf32>
  %r = nn.const {value = dense<-0.25> : tensor<3x12xf32>} : tensor<3x12xf32>
  %b = nn.const {value = dense<[0.5, -0.5, 1.0, 0.5, -0.5, 1.0, 0.5, -0.5, 1.0, 0.25, 0.75, 0.0]> : tensor<12xf32>} : tensor<12xf32>
  %h = nn.const {value = dense<0.0> : tensor<3xf32>} : tensor<3xf32>
  %0 = nn.lstm %x, %w, %r, %b, %h, %h {activations = [#nn.act<"sigmoid">, #nn.act<"tanh">, #nn.act<"tanh">], reverse, sequence} : tensor<4x3xf32> loc("layer")
  func.return %0 : tensor<4x3xf32>
}
