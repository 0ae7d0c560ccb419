// --cost prints on standard error what each pass buys; the module goes to standard output as ever.
// RUN: ml4f-opt %s --cost -p nn-canonicalize,nn-fuse-activation,convert-nn-to-loop 2>&1 >/dev/null | filecheck %s
// RUN: ml4f-opt %s --cost -p nn-fuse-activation 2>/dev/null | filecheck %s --check-prefix IR
// RUN: not ml4f-opt %s --cost 2>&1 | filecheck %s --check-prefix NONE

// CHECK:      cost after {{ +}}cycles {{ +}}code {{ +}}arena
// CHECK-NEXT: (input) {{[ 0-9,]+}}{{$}}
// CHECK-NEXT: nn-canonicalize {{.*}} = {{.*}} = {{.*}} =
// CHECK-NEXT: nn-fuse-activation {{ +[0-9,]+ +}}-{{[0-9.]+%}}
// CHECK-NEXT: convert-nn-to-loop {{.*}} = {{.*}} = {{.*}} =
// CHECK-NEXT: all passes {{ +[0-9,]+ +}}-{{[0-9.]+%}}

// IR-NOT: cost after
// IR:     nn.dense
// IR-NOT: nn.activation

// NONE: give some with -p or --pipeline

func.func @main(%x : tensor<8xf32>) -> tensor<5xf32> {
  %w = nn.const {value = dense<0.5> : tensor<8x5xf32>} : tensor<8x5xf32>
  %b = nn.const {value = dense<[-1.0, 2.0, -3.0, 4.0, -5.0]> : tensor<5xf32>} : tensor<5xf32>
  %z = nn.dense %x, %w, %b : tensor<5xf32>
  %y = nn.activation %z {act = #nn.act<"relu">} : tensor<5xf32>
  func.return %y : tensor<5xf32>
}
