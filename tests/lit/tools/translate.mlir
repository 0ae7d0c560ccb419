// IR to assembly and to an object; the object to assembly that says the same.
// RUN: ml4f-translate --mlir-to-asm %s | filecheck %s
// RUN: ml4f-translate --mlir-to-object %s -o %t.ml4f
// RUN: ml4f-translate --object-to-asm %t.ml4f | filecheck %s --check-prefix OBJECT
// RUN: not ml4f-translate --object-to-asm %s 2>&1 | filecheck %s --check-prefix ERROR

// CHECK:      .word 0x30470f62 @ magic
// CHECK:      ml4f_entry:
// CHECK-NEXT:   push
// CHECK:        @ activation first -> [9]; x at arena+[[X:[0-9]+]], first_out at arena+
// CHECK:        bic.w

// OBJECT:     .word 0x30470f62 @ magic
// OBJECT:     ml4f_entry:
// OBJECT-NEXT:  push
// OBJECT-NOT:   .short
// OBJECT:       bic.w

// ERROR:      ml4f-translate: {{.*}}translate.mlir: not a usable ml4f object

func.func @main(%x : tensor<9xf32>) -> tensor<9xf32> {
  %y = nn.activation %x {act = #nn.act<"relu">} : tensor<9xf32> loc("first")
  func.return %y : tensor<9xf32>
}
