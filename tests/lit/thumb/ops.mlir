// Every thumb op. The file is written as the printer prints: what is parsed comes out again, from both syntaxes.
// RUN: grep -v -e '^ *//' -e '^$' %s > %t.written
// RUN: ml4f-opt %s | grep -v '^$' | diff %t.written -
// RUN: ml4f-opt %s --print-op-generic | ml4f-opt | grep -v '^$' | diff %t.written -
// RUN: ml4f-opt %s --print-op-generic | filecheck %s

// CHECK: "thumb.vldmia"(%n) <{space = "const"}> : (!thumb.r<r0>) -> (!thumb.s, !thumb.s, !thumb.r)
// CHECK: "thumb.loop"(%count, %sum, %base) <{label = "oy"}> ({
// CHECK-NEXT: ^bb0(%acc: !thumb.s, %p: !thumb.r):
builtin.module {
  thumb.data @table = dense<[1, 2, 3, 4]> : tensor<4xi8> {alignment = 4 : i64}
  thumb.func @integers(%a: !thumb.r<r0>, %b: !thumb.r<r1>) {
    %mov = thumb.mov %a : !thumb.r
    %mov_imm = thumb.mov_imm {immediate = 4294967295} : !thumb.r
    %movw = thumb.movw {immediate = 65535} : !thumb.r
    %movt = thumb.movt %movw {immediate = 16256} : !thumb.r
    %mvn = thumb.mvn %a : !thumb.r
    %mvn_shifted = thumb.mvn %a {shift = "ror", amount = 31} : !thumb.r
    %add_imm = thumb.add_imm %a {immediate = 4095} : !thumb.r
    %sub_imm = thumb.sub_imm %a {immediate = 4080} : !thumb.r
    %rsb_imm = thumb.rsb_imm %a {immediate = 0} : !thumb.r
    %add = thumb.add %a, %b {shift = "lsl", amount = 2} : !thumb.r
    %sub = thumb.sub %a, %b : !thumb.r
    %mul = thumb.mul %a, %b : !thumb.r
    %mla = thumb.mla %a, %b, %mul : !thumb.r
    %mls = thumb.mls %a, %b, %mul : !thumb.r
    %sdiv = thumb.sdiv %a, %b : !thumb.r
    %udiv = thumb.udiv %a, %b : !thumb.r
    %and = thumb.and %a, %b : !thumb.r
    %orr = thumb.orr %a, %b {shift = "lsr", amount = 32} : !thumb.r
    %eor = thumb.eor %a, %b : !thumb.r
    %bic = thumb.bic %a, %a {shift = "asr", amount = 31} : !thumb.r
    %and_imm = thumb.and_imm %a {immediate = 255} : !thumb.r
    %orr_imm = thumb.orr_imm %a {immediate = 16711935} : !thumb.r
    %eor_imm = thumb.eor_imm %a {immediate = 2147483648} : !thumb.r
    %bic_imm = thumb.bic_imm %a {immediate = 1} : !thumb.r
    %lsl_imm = thumb.lsl_imm %a {immediate = 31} : !thumb.r
    %lsr_imm = thumb.lsr_imm %a {immediate = 1} : !thumb.r
    %asr_imm = thumb.asr_imm %a {immediate = 31} : !thumb.r
    %lsl = thumb.lsl %a, %b : !thumb.r
    %lsr = thumb.lsr %a, %b : !thumb.r
    %asr = thumb.asr %a, %b : !thumb.r
    %clz = thumb.clz %a : !thumb.r
    %ssat = thumb.ssat %a {bits = 8} : !thumb.r
    %usat = thumb.usat %a {bits = 7} : !thumb.r
    %select = thumb.select %a, %b, %a, %b {predicate = "lt"} : !thumb.r
    %select_imm = thumb.select_imm %a, %b, %a {immediate = -255, predicate = "ge"} : !thumb.r
    thumb.return
  }
  thumb.func @floats(%bits: !thumb.r<r0>) {
    %one = thumb.vmov_imm {value = 1.000000e+00 : f32} : !thumb.s
    %x = thumb.vmov_s_r %bits : !thumb.s
    %vadd = thumb.vadd %x, %one : !thumb.s
    %vsub = thumb.vsub %x, %one : !thumb.s
    %vmul = thumb.vmul %x, %one : !thumb.s
    %vnmul = thumb.vnmul %x, %one : !thumb.s
    %vdiv = thumb.vdiv %x, %one : !thumb.s
    %vneg = thumb.vneg %x : !thumb.s
    %vabs = thumb.vabs %x : !thumb.s
    %vsqrt = thumb.vsqrt %x : !thumb.s
    %vmov = thumb.vmov %x : !thumb.s
    %vmla = thumb.vmla %vadd, %x, %one : !thumb.s
    %vmls = thumb.vmls %vsub, %x, %one : !thumb.s
    %vfma = thumb.vfma %vmul, %x, %one : !thumb.s
    %vfms = thumb.vfms %vnmul, %x, %one : !thumb.s
    %vcvt_s32_f32 = thumb.vcvt_s32_f32 %x : !thumb.s
    %vcvtr_s32_f32 = thumb.vcvtr_s32_f32 %x : !thumb.s
    %vcvt_f32_s32 = thumb.vcvt_f32_s32 %vcvt_s32_f32 : !thumb.s
    %vcvt_f32_u32 = thumb.vcvt_f32_u32 %vcvtr_s32_f32 : !thumb.s
    %vcvtb_f32_f16 = thumb.vcvtb_f32_f16 %x : !thumb.s
    %vcvtt_f32_f16 = thumb.vcvtt_f32_f16 %x : !thumb.s
    %vcvtb_f16_f32 = thumb.vcvtb_f16_f32 %vdiv, %x : !thumb.s
    %vcvtt_f16_f32 = thumb.vcvtt_f16_f32 %vcvtb_f16_f32, %one : !thumb.s
    %vmov_r_s = thumb.vmov_r_s %x : !thumb.r
    %t, %u = thumb.vmov_rr_ss %x, %one : !thumb.r, !thumb.r
    %m0, %m1 = thumb.vmov_ss_rr %t, %u : !thumb.s, !thumb.s
    %vmaxnm = thumb.vmaxnm %x, %one : !thumb.s
    %vminnm = thumb.vminnm %x, %one : !thumb.s
    %vrinta = thumb.vrinta %x : !thumb.s
    %vrintn = thumb.vrintn %x : !thumb.s
    %vrintp = thumb.vrintp %x : !thumb.s
    %vrintm = thumb.vrintm %x : !thumb.s
    %vrintz = thumb.vrintz %x : !thumb.s
    %vselect = thumb.vselect %x, %one, %x, %one {predicate = "uno"} : !thumb.s
    thumb.return
  }
  thumb.func @memory(%n: !thumb.r<r0>, %w: !thumb.r<r1>) attributes {frame = 8} {
    %ldr = thumb.ldr %n {offset = 4092, space = "arena"} : !thumb.r
    %ldrh = thumb.ldrh %n {offset = 2, space = "const"} : !thumb.r
    %ldrb = thumb.ldrb %n {offset = -255, space = "const"} : !thumb.r
    thumb.str %ldr, %n {offset = 0, space = "arena"}
    thumb.strh %ldrh, %n {offset = 6, space = "arena"}
    thumb.strb %ldrb, %n {offset = 7, space = "arena"}
    %vldr = thumb.vldr %n {offset = -1020, space = "const"} : !thumb.s
    thumb.vstr %vldr, %n {offset = 1020, space = "arena"}
    %d0, %d1, %behind = thumb.vldmia %n {space = "const"} : !thumb.s, !thumb.s, !thumb.r
    %d2, %d3 = thumb.vldm %n {space = "const"} : !thumb.s, !thumb.s
    %advanced = thumb.vstmia %w, %d0, %d1 {space = "arena"} : !thumb.r
    thumb.frame_store %ldr {slot = 4}
    %slot = thumb.frame_load {slot = 4} : !thumb.r
    thumb.return
  }
  thumb.func @loops(%count: !thumb.r<r0>, %base: !thumb.r<r1>) {
    %sum = thumb.vmov_imm {value = 2.500000e-01 : f32} : !thumb.s
    %total, %end = thumb.loop %count carry (%acc = %sum : !thumb.s, %p = %base : !thumb.r) -> !thumb.s, !thumb.r attributes {label = "oy"} {
      %inner = thumb.mov_imm {immediate = 3} : !thumb.r
      thumb.loop %inner {
        thumb.yield
      }
      %x = thumb.vldr %p {offset = 0, space = "arena"} : !thumb.s
      %next = thumb.vadd %acc, %x : !thumb.s
      %q = thumb.add_imm %p {immediate = 4} : !thumb.r
      thumb.yield %next, %q
    }
    thumb.return
  }
  thumb.func @spilled(%p: !thumb.r<r0>) attributes {frame = 8} {
    %count = thumb.mov_imm {immediate = 3} : !thumb.r<r1>
    thumb.frame_store %count {slot = 0}
    thumb.loop %count attributes {counter_slot = 0, slots = array<i64: 4>} {
      %again = thumb.frame_load {slot = 0} : !thumb.r<r1>
      thumb.yield counter %again
    }
    thumb.return
  }
  thumb.func @main() attributes {entry} {
    %arena = thumb.arena_address {offset = 100000} : !thumb.r<r0>
    %data = thumb.data_address {symbol = @table} : !thumb.r<r1>
    thumb.call @loops(%arena, %data) {layers = ["a/b", "c"], shape = [2 : i64, 3 : i64]}
    thumb.return
  }
}
