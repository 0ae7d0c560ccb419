// One instruction after the other is selected; the program becomes the entry function with addresses in r0, r1, ...
// RUN: ml4f-opt %s -p convert-loop-to-thumb --run-between-passes | filecheck %s

// CHECK:       builtin.module attributes {input_shapes = {{.*}}arena_bytes = 5096 : i64, input_offsets = [0 : i64], output_offsets = [5000 : i64]
// CHECK:       thumb.func @main() attributes {entry} {
// CHECK-NEXT:    [[X:%.*]] = thumb.arena_address {offset = 0} : !thumb.r<r0>
// CHECK-NEXT:    [[W:%.*]] = thumb.data_address {symbol = @w} : !thumb.r<r1>
// CHECK-NEXT:    [[Y:%.*]] = thumb.arena_address {offset = 5000} : !thumb.r<r2>
// CHECK-NEXT:    thumb.call @scale([[X]], [[W]], [[Y]]) {layers = ["scale"], where = "x at arena+0, w, y at arena+5000"
// CHECK:       thumb.data @w = {{.*}} {alignment = 4 : i64}
// CHECK:       thumb.func @scale(%x: !thumb.r<r0>, %w: !thumb.r<r1>, %out: !thumb.r<r2>) {
// CHECK:         [[TENTH:%.*]] = thumb.movw {immediate = 52429}
// CHECK-NEXT:    [[T2:%.*]] = thumb.movt [[TENTH]] {immediate = 15820}
// CHECK-NEXT:    [[C:%.*]] = thumb.vmov_s_r [[T2]]
// CHECK-NEXT:    [[ONE:%.*]] = thumb.vmov_imm {value = 1.000000e+00 : f32}
// CHECK:         [[N:%.*]] = thumb.mov_imm {immediate = 12}
// CHECK-NEXT:    thumb.loop [[N]] carry ([[P:%.*]] = %x : !thumb.r, [[Q:%.*]] = %out : !thumb.r) -> !thumb.r, !thumb.r attributes {label = "d"} {
// CHECK-NEXT:      [[A:%.*]], [[B:%.*]], [[NEXT:%.*]] = thumb.vldmia [[P]] {space = "arena"}
// CHECK:           thumb.vfma {{%.*}}, [[A]], [[C]]
// CHECK:           thumb.vselect {{.*}} {predicate = "lt"}
// CHECK:           thumb.bic [[BITS:%.*]], [[BITS]] {shift = "asr", amount = 31}
// CHECK-NEXT:      thumb.str
// CHECK:           thumb.yield [[NEXT]],
loop.buffer @x {bytes = 96 : i64, offset = 0 : i64}
loop.buffer @y {bytes = 96 : i64, offset = 5000 : i64}
loop.data @w = dense<2.5> : tensor<1xf32>
loop.kernel @scale(%x : arena, %w : const, %out : arena) {
  %c = loop.constant {value = 0.1 : f32}
  %one = loop.constant {value = 1.0 : f32}
  %w0 = loop.load %w[] {offset = 0 : i64, space = "const"} : f32
  %end, %past = loop.repeat times 12 carry (%p = %x : !loop.ptr, %q = %out : !loop.ptr) label "d" {
    %a, %b, %next = loop.load_multiple %p[] {offset = 0 : i64, space = "arena", advance} : f32, f32, !loop.ptr
    %f = loop.fma %a, %c, %w0
    %s = loop.fselect "lt" %b, %one, %one, %b
    %g = loop.fmul %f, %s
    %bits = loop.bits %g
    %relu = loop.relu_bits %bits
    loop.store %relu, %q[] {offset = 0 : i64, space = "arena"} : i32
    loop.store %s, %q[] {offset = 4 : i64, space = "arena"} : f32
    %after = loop.advance %q {offset = 8 : i64}
    loop.yield %next, %after : !loop.ptr, !loop.ptr
  }
}
loop.program @main attributes {inputs = [@x], outputs = [@y], arena_bytes = 5096 : i64, input_shapes = [[24 : i64]], output_shapes = [[24 : i64]]} {
  loop.call @scale(@x, @w, @y) {layers = ["scale"]}
}
