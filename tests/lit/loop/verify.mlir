// What the verifier of the loop dialect refuses.
// RUN: ml4f-opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK: the nest has 2 operands, not 1
loop.kernel @k(%x : arena) {
  loop.nest %x : <parallel (d = 4) copy x["d"], out["d"]>
}
// -----
// CHECK: no such dim: e
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d + e"], out["d"]>
}
// -----
// CHECK: no such dim: e
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d"], out["d"] where "e - 1" < 3>
}
// -----
// CHECK: terms combine by one of mac, add, square, max, min, mul, copy, not 'median'
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) reduce (k = 2) median x["d + k"], out["d"]>
}
// -----
// CHECK: 'mac' needs the operand 'w'
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) reduce (k = 2) mac x["d + k"], out["d"]>
}
// -----
// CHECK: a nest needs the operand 'out'
loop.kernel @k(%x : arena) {
  loop.nest %x : <parallel (d = 4) copy x["d"]>
}
// -----
// CHECK: 'copy' has one term, and so no reduction dims
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) reduce (k = 2) copy x["d + k"], out["d"]>
}
// -----
// CHECK: 'halve' is no step of an epilogue
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d"], out["d"] then halve>
}
// -----
// CHECK: there is no activation 'rleu'
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d"], out["d"] then activation rleu>
}
// -----
// CHECK: 'mul' needs an operand or one constant
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d"], out["d"] then mul>
}
// -----
// CHECK: the epilogue's operand 'scale' is missing
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d"], out["d"] then mul scale>
}
// -----
// CHECK: the segments of d cover 3 of 4 points
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) copy x["d"], out["d"]> schedule <loops (d[3 * 1]) points 1 chunk 0 vector 4>
}
// -----
// CHECK: the schedule must name each dim once: d, k
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) reduce (k = 2) add x["d + k"], out["d"]> schedule <loops (d[4 * 1]) points 1 chunk 0 vector 4>
}
// -----
// CHECK: parallel dims stand before reduction dims
loop.kernel @k(%x : arena) {
  loop.nest %x, %x : <parallel (d = 4) reduce (k = 2) add x["d + k"], out["d"]> schedule <loops (k[2 * 1], d[4 * 1]) points 1 chunk 0 vector 4>
}
// -----
// CHECK: runs at least once
loop.kernel @k(%x : arena) {
  loop.for %i times 0 {
  }
}
// -----
// CHECK: the yielded values do not match the initial values
loop.kernel @k(%x : arena) {
  %c = loop.constant {value = 0.0 : f32}
  %r = loop.repeat times 3 carry (%acc = %c : f32) {
    loop.yield
  }
}
// -----
// CHECK: 1 indices need as many strides, not 0
loop.kernel @k(%x : arena) {
  loop.for %i times 3 {
    %v = loop.load %x[%i] {offset = 0 : i64, space = "arena"} : f32
  }
}
// -----
// CHECK: space is 'arena' or 'const', not 'flash'
loop.kernel @k(%x : arena) {
  %v = loop.load %x[] {offset = 0 : i64, space = "flash"} : f32
}
// -----
// CHECK: needs a second operand or an immediate, and not both
loop.kernel @k(%x : arena) {
  %i = loop.int_constant {value = 1 : i32}
  %j = loop.iadd %i
}
// -----
// CHECK: the predicate is one of lt, le, gt, ge, eq, ne, uno
loop.kernel @k(%x : arena) {
  %c = loop.constant {value = 0.0 : f32}
  %s = loop.fselect "less" %c, %c, %c, %c
}
// -----
// CHECK: the predicate is one of lt, le, gt, ge, eq, ne
loop.kernel @k(%x : arena) {
  %i = loop.int_constant {value = 1 : i32}
  %s = loop.iselect "uno" %i, %i, %i, %i : i32, i32 -> i32
}
// -----
// CHECK: needs one space for each argument
"loop.kernel"() <{sym_name = "k", spaces = []}> ({
^bb0(%x : !loop.ptr):
}) : () -> ()
