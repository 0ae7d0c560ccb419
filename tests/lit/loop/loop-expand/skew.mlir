// Two columns of a narrow output read the same two inputs and differ only in the taps that these meet: one loop over
// the columns has code for both. The input's address does not change in it, the weights' goes back by a tap.
// RUN: ml4f-opt %s -p loop-pack-weights,loop-plan-memory,loop-expand | filecheck %s
// RUN: ml4f-opt %s -p loop-pack-weights,loop-plan-memory,loop-expand,loop-lower-addresses --run-between-passes

loop.data @w = dense<[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75]> : tensor<12xf32>
loop.buffer @x {bytes = 64 : i64}
loop.buffer @out {bytes = 256 : i64}
// CHECK: loop.kernel @k
loop.kernel @k(%x : arena, %w : const, %out : arena) {
  // CHECK: loop.for [[ROW:%.*]] times 4 label "oy"
  // CHECK: loop.for [[COLUMN:%.*]] times 2 label "ox"
  // CHECK: loop.for [[FILTER:%.*]] times 2 label "f"
  // CHECK-NEXT: loop.load %x[[[ROW]]] {{{.*}}offset = 0 : i64
  // CHECK: loop.load %w[[[FILTER]], [[COLUMN]]] {{{.*}}strides = array<i64: 24, -8>
  loop.nest %x, %w, %out : <parallel (oy = 8, ox = 2, f = 4) reduce (kx = 3) mac x["2*oy + ox + kx - 1"], w["4*kx + f"], out["8*oy + 4*ox + f"] where "ox + kx - 1" < 2> schedule <loops (oy[2 * 4], ox[1 * 2], f[2 * 2], kx[3 * 1]) tile (f, oy) unroll (kx) points 1 chunk 0 vector 4 skew (ox, kx) 1>
}
loop.program @main attributes {input_shapes = [[16 : i64]], output_shapes = [[64 : i64]], inputs = [@x], outputs = [@out]} {
  loop.call @k(@x, @w, @out)
}
