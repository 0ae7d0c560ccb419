// xDSL's flags, and ours.
// RUN: ml4f-opt %s -p nn-canonicalize,nn-remove-dead-code --print-between-passes | filecheck %s --check-prefix BETWEEN
// RUN: ml4f-opt %s -p nn-canonicalize,nn-remove-dead-code --print-ir-after-all -o %t 2>&1 | filecheck %s --check-prefix AFTER
// RUN: filecheck %s --check-prefix FILE < %t
// RUN: ml4f-opt %s --pipeline default --run-between-passes --time-passes -t thumb-hex 2>&1 | filecheck %s --check-prefix HEX
// RUN: cat %s | ml4f-opt - --pipeline unoptimized -t thumb-asm | filecheck %s --check-prefix ASM
// RUN: not ml4f-opt %s -p nn-canonicalise 2>&1 | filecheck %s --check-prefix UNKNOWN
// RUN: not ml4f-opt %s -p nn-canonicalize,loop-plan-memory 2>&1 | filecheck %s --check-prefix PASS
// RUN: not ml4f-opt %s -t thumb-asm 2>&1 | filecheck %s --check-prefix LEVEL

// BETWEEN:      IR after nn-canonicalize:
// BETWEEN:        nn.activation
// BETWEEN-NOT:  IR after nn-remove-dead-code

// AFTER:        // IR after nn-canonicalize
// AFTER:        // IR after nn-remove-dead-code
// AFTER-NEXT:   builtin.module
// AFTER-NOT:    // IR after

// FILE:         func.func @main(%x: tensor<4xf32>)
// FILE-NEXT:      %y = nn.activation %x
// FILE-NEXT:      func.return %y

// HEX:          s  nn-canonicalize
// HEX:          s  thumb-verify-allocation
// HEX:          62 0f 47 30 4d 4c 34 46

// ASM:          ml4f_entry:
// ASM:            bic.w
// ASM:            pop

// UNKNOWN:      ml4f-opt: -p nn-canonicalise: Unrecognized passes: ['nn-canonicalise']

// PASS:         ml4f-opt: loop-plan-memory works on the loop level, the module is at the nn level

// LEVEL:        ml4f-opt: the module is at the nn level, {{.*}} --pipeline default

func.func @main(%x : tensor<4xf32>) -> tensor<4xf32> {
  %same = nn.reshape %x : tensor<4xf32>
  %y = nn.activation %same {act = #nn.act<"relu">} : tensor<4xf32>
  func.return %y : tensor<4xf32>
}
