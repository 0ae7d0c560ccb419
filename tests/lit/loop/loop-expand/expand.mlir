// Schedules are executed: loops, tiles, unrolled bodies; each address is loaded once.
// RUN: ml4f-opt %s -p loop-expand --split-input-file --run-between-passes | filecheck %s

// A tile of two and a remainder of one; neighbours share a tap, so that three loads serve four terms.
// CHECK-LABEL: loop.kernel @sum
// CHECK-NEXT:    loop.for [[I:%.*]] times 2 label "d" {
// CHECK-COUNT-3:   loop.load %x{{\[}}[[I]]{{\]}} {{{.*}}strides = array<i64: 8>
// CHECK-NOT:       loop.load
// CHECK-COUNT-2:   loop.store {{.*}}%out{{\[}}[[I]]{{\]}} {{{.*}}strides = array<i64: 8>
// CHECK:         }
// CHECK-COUNT-2: loop.load %x[] {
// CHECK:         loop.store {{.*}}%out[] {offset = 16 : i64
// CHECK-NOT:     loop.store
loop.buffer @x {bytes = 24 : i64}
loop.buffer @y {bytes = 20 : i64}
loop.kernel @sum(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 5) reduce (k = 2) add x["d + k"], out["d"]> schedule <loops (d[2 * 2, 1 * 1], k[2 * 1]) tile (d) unroll (k) points 2 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @sum(@x, @y)
}
// -----
// A reduction loop carries its accumulators; the first term is peeled, so that nothing has to be zeroed.
// CHECK-LABEL: loop.kernel @total
// CHECK-NEXT:    [[FIRST:%.*]] = loop.load %x[] {offset = 0 : i64
// CHECK-NEXT:    [[SUM:%.*]] = loop.for {{%.*}} times 5 carry ([[ACC:%.*]] = [[FIRST]] : f32) label "k" {
// CHECK:           [[NEXT:%.*]] = loop.fadd [[ACC]],
// CHECK-NEXT:      loop.yield [[NEXT]] : f32
// CHECK:         [[BITS:%.*]] = loop.bits [[SUM]]
// CHECK-NEXT:    [[RELU:%.*]] = loop.relu_bits [[BITS]]
// CHECK-NEXT:    loop.store [[RELU]], %out[] {{.*}} : i32
loop.buffer @x {bytes = 24 : i64}
loop.buffer @y {bytes = 4 : i64}
loop.kernel @total(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 1) reduce (k = 6) add x["k"], out["d"] then activation relu> schedule <loops (d[1 * 1], k[1 * 1, 1 * 5]) unroll (k) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @total(@x, @y)
}
// -----
// Terms in the padding are left out: the left column's tile has one term, the others two.
// CHECK-LABEL: loop.kernel @padded
// CHECK-NEXT:    [[LEFT:%.*]] = loop.load %x[] {offset = 0 : i64
// CHECK-NEXT:    loop.store [[LEFT]], %out[] {offset = 0 : i64
// CHECK-NEXT:    loop.for {{%.*}} times 3 label "d" {
// CHECK-COUNT-2:   loop.load
// CHECK:           loop.fadd
loop.buffer @x {bytes = 16 : i64}
loop.buffer @y {bytes = 16 : i64}
loop.kernel @padded(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 4) reduce (k = 2) add x["d + k - 1"], out["d"] where "d + k - 1" < 4> schedule <loops (d[1 * 1, 1 * 3], k[2 * 1]) unroll (k) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @padded(@x, @y)
}
