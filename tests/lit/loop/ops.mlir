// Every loop op, in all three forms of a kernel's body. The file is written as the printer prints.
// RUN: grep -v -e '^ *//' -e '^$' %s > %t.written
// RUN: ml4f-opt %s | grep -v '^$' | diff %t.written -
// RUN: ml4f-opt %s --print-op-generic | ml4f-opt | grep -v '^$' | diff %t.written -
// RUN: ml4f-opt %s --print-op-generic | filecheck %s

// CHECK: "loop.nest"(%x, %w, %out) <{nest = #loop.nest<parallel (oy = 4, f = 8) reduce (ky = 3, c = 2) mac
// CHECK: "loop.load"(%x, %i, %j) <{strides = array<i64: 24, 4>, offset = -4 : i64, space = "arena"}> : (!loop.ptr, index, index) -> f32
builtin.module {
  loop.buffer @in {bytes = 80 : i64}
  loop.buffer @out {bytes = 128 : i64, offset = 96 : i64}
  loop.data @w = dense<[5.000000e-01, -2.500000e-01]> : tensor<2xf32>
  loop.kernel @nest(%x : arena, %w : const, %out : arena) {
    loop.nest %x, %w, %out : <parallel (oy = 4, f = 8) reduce (ky = 3, c = 2) mac x["4*oy + 2*ky + c - 2"], w["8*ky + f"] f16, out["8*oy + f"] where "oy + ky - 1" < 4 then mul(2.000000e+00 : f64), activation leaky_relu(1.000000e-01 : f64), max out, pool_max> schedule <loops (oy[3 * 1, 1 * 1], f[4 * 2], ky[1 * 3], c[2 * 1]) tile (f, oy) unroll (c) multiple (w) early (x) order (c[1, 0]) points 2 chunk 8 vector 4 trim (oy, ky) hoist> {packed}
  }
  loop.kernel @other_nests(%x : arena, %out : arena) {
    loop.nest %x, %out : <parallel (d0 = 8) copy x["-d0 + 7"], out["d0"] initial -1.500000e+00 : f64> schedule <loops (d0[1 * 8]) points 1 chunk 0 vector 4 roll (d0, d0) 2>
    loop.nest %x, %out : <parallel (d0 = 4) reduce (k = 2) max x["2*d0 + k"], out["d0"] initial 0xfff0000000000000 : f64 nonnegative>
    loop.nest %x, %out : <parallel (d0 = 4) reduce (k = 2) min x["2*d0 + k"], out["d0"] initial 0x7ff0000000000000 : f64>
    loop.nest %x, %out : <parallel (d0 = 4) reduce (k = 2) mul x["2*d0 + k"], out["d0"] then prelu out, sub out, rdiv(1.000000e+00 : f64) initial 1.000000e+00 : f64>
    loop.nest %x, %out : <parallel (d0 = 4) reduce (k = 2) add x["2*d0 + k"], out["d0"]>
  }
  loop.kernel @nest_in_a_loop(%x : arena, %out : arena) {
    loop.for %t times 5 label "t" {
      loop.nest %x, %out : <parallel (d0 = 4) copy x["d0"], out["d0"]> {strides = array<i64: 4, -4>}
      loop.yield
    }
  }
  loop.kernel @indexed(%x : arena, %out : arena, %bounds : const) {
    loop.for %i times 4 label "oy" {
      %first = loop.load_byte %bounds[%i] {strides = array<i64: 2>, offset = 0 : i64, space = "const"}
      %count = loop.load_byte %bounds[%i] {strides = array<i64: 2>, offset = 1 : i64, space = "const"}
      %zero = loop.constant {value = 0.000000e+00 : f32}
      %sum = loop.for %j from %first times %count carry (%acc = %zero : f32) label "ky" {
        %v = loop.load %x[%i, %j] {strides = array<i64: 24, 4>, offset = -4 : i64, space = "arena"} : f32
        %a, %b = loop.load_multiple %x[%i] {strides = array<i64: 8>, offset = 4 : i64, space = "arena"} : f32, f32
        %next = loop.fadd %acc, %v
        loop.yield %next : f32
      }
      loop.store %sum, %out[%i] {strides = array<i64: 4>, offset = 0 : i64, space = "arena"} : f32
      loop.store_multiple %sum, %zero to %out[%i] {strides = array<i64: 4>, offset = 16 : i64, space = "arena"}
      loop.yield
    }
  }
  loop.kernel @from_a_computed_bound(%x : arena, %table : arena, %out : arena) {
    %number = loop.load %x[] {offset = 0 : i64, space = "arena"} : f32
    %row = loop.to_int %number
    %first_row = loop.to_index %row
    loop.for %k from %first_row times 1 label "row" {
      %element = loop.load %table[%k] {strides = array<i64: 8>, offset = 4 : i64, space = "arena"} : f32
      loop.store %element, %out[] {offset = 0 : i64, space = "arena"} : f32
      loop.yield
    }
  }
  loop.kernel @pointers(%x : arena, %out : arena, %bounds : const) {
    %zero = loop.constant {value = 0.000000e+00 : f32}
    %count = loop.load_byte %bounds[] {offset = 1 : i64, space = "const"}
    %bytes = loop.scale %count {factor = 12 : i64}
    %start = loop.advance %x by %bytes {offset = 8 : i64}
    %end, %sum = loop.repeat times %count carry (%p = %start : !loop.ptr, %acc = %zero : f32) label "k" {
      %a, %b, %q = loop.load_multiple %p[] {offset = 0 : i64, space = "arena", advance} : f32, f32, !loop.ptr
      %ab = loop.fmul %a, %b
      %next = loop.fadd %acc, %ab
      loop.yield %q, %next : !loop.ptr, f32
    }
    %past = loop.repeat times 3 carry (%p_1 = %out : !loop.ptr) {
      loop.store %sum, %p_1[] {offset = 0 : i64, space = "arena"} : f32
      %r = loop.store_multiple %sum, %zero to %p_1[] {offset = 0 : i64, space = "arena"} : !loop.ptr
      %q_1 = loop.advance %p_1 {offset = 4 : i64}
      loop.yield %q_1 : !loop.ptr
    }
  }
  loop.kernel @values(%x : arena, %out : arena) {
    %a = loop.load %x[] {offset = 0 : i64, space = "arena"} : f32
    %i = loop.load %x[] {offset = 4 : i64, space = "arena"} : i32
    %b = loop.constant {value = -1.500000e+00 : f32}
    %j = loop.int_constant {value = 1065353216 : i32}
    %fsub = loop.fsub %a, %b
    %fdiv = loop.fdiv %a, %b
    %fmax = loop.fmax %a, %b
    %fmin = loop.fmin %a, %b
    %fneg = loop.fneg %a
    %fabs = loop.fabs %a
    %fsqrt = loop.fsqrt %fabs
    %fma = loop.fma %a, %b, %fsqrt
    %to_int = loop.to_int %a
    %to_int_nearest = loop.to_int_nearest %a
    %bits = loop.bits %a
    %bits_a, %bits_b = loop.bits_pair %a, %b
    %to_float = loop.to_float %i
    %from_bits = loop.from_bits %bits
    %low = loop.half_low %a
    %high = loop.half_high %a
    %iadd = loop.iadd %i, %j
    %isub = loop.isub %i {immediate = 3 : i32}
    %imul = loop.imul %i, %j
    %iand = loop.iand %i {immediate = -2147483648 : i32}
    %ior = loop.ior %i, %j
    %ixor = loop.ixor %i, %j
    %ibic = loop.ibic %i, %j
    %ishl = loop.ishl %i {immediate = 23 : i32}
    %ilshr = loop.ilshr %i {immediate = 1 : i32}
    %iashr = loop.iashr %i {immediate = 31 : i32}
    %relu = loop.relu_bits %bits
    %imax = loop.imax %i, %j
    %fselect = loop.fselect "uno" %a, %b, %fmax, %fmin
    %iselect = loop.iselect "lt" %i, %imax, %iadd, %j : i32, i32 -> i32
    %iselect_imm = loop.iselect "ne" %i, %fneg, %fabs {immediate = -7 : i32} : f32, f32 -> f32
    loop.store %relu, %out[] {offset = 0 : i64, space = "arena"} : i32
  }
  loop.program @main attributes {inputs = [@in], outputs = [@out], arena_bytes = 224 : i64} {
    loop.call @nest(@in, @w, @out) {layers = ["conv"], op = "conv2d"}
  }
}
