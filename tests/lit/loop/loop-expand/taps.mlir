// A loop over taps (here: even ones, odd ones) is for tiles that have all of them. The first tile lacks taps: unrolled.
// RUN: ml4f-opt %s -p loop-expand | filecheck %s
// RUN: ml4f-opt %s -p loop-plan-memory,loop-expand,loop-lower-addresses --run-between-passes

// CHECK-LABEL: loop.kernel @strided
// CHECK-NOT:     loop.for
// CHECK-COUNT-3: loop.load %x[]
// CHECK-NOT:     loop.load
// CHECK:         loop.store {{.*}}%out[] {offset = 0 : i64
// CHECK-NEXT:    loop.for [[TILE:%.*]] times 3 label "d" {
// CHECK:           loop.for [[PHASE:%.*]] times 2 carry ({{.*}}) label "k" {
// CHECK-COUNT-2:     loop.load %x{{\[}}[[TILE]], [[PHASE]]] {{{.*}}strides = array<i64: 8, 4>
// CHECK-NOT:         loop.load
// CHECK:           }
// CHECK:           loop.store
loop.buffer @x {bytes = 36 : i64}
loop.buffer @y {bytes = 16 : i64}
loop.kernel @strided(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 4) reduce (k = 2, t = 2) add x["2*d + k + 2*t - 1"], out["d"] where "2*d + k + 2*t - 1" < 9> schedule <loops (d[1 * 1, 1 * 3], k[1 * 2], t[2 * 1]) unroll (k, t) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @strided(@x, @y)
}
