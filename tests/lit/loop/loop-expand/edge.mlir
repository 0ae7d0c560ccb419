// Single pixels at both edges share a loop over taps, whose bounds are in a table behind those of the rows; tiles between
// have all taps. There are two pixels at each edge: one loop goes over both edges, another one over the pixels.
// RUN: ml4f-opt %s -p loop-pack-weights,loop-expand | filecheck %s
// RUN: ml4f-opt %s -p loop-pack-weights,loop-plan-memory,loop-expand,loop-lower-addresses --run-between-passes

// CHECK: loop.data @k_bounds = {{.*}} : tensor<20xi8>
// CHECK-LABEL: loop.kernel @k
// CHECK:       loop.for [[ROW:%.*]] times 5 label "oy" {
// CHECK:         {{.*}}loop.load_byte %bounds{{\[}}[[ROW]]]
// CHECK:         loop.for [[SIDE:%.*]] times 2 label "ox" {
// CHECK-NEXT:      loop.for [[PIXEL:%.*]] times 2 label "ox" {
// CHECK-NEXT:        [[FIRST:%.*]] = loop.load_byte %bounds{{\[}}[[SIDE]], [[PIXEL]]] {offset = 10 : i64, {{.*}}strides = array<i64: 4, 2>
// CHECK-NEXT:        [[COUNT:%.*]] = loop.load_byte %bounds{{\[}}[[SIDE]], [[PIXEL]]] {offset = 11 : i64
// CHECK:             loop.for {{.*}} label "ky" {
// CHECK-NEXT:          {{.*}}loop.for [[TAP:%.*]] from [[FIRST]] times [[COUNT]] carry {{.*}} label "kx" {
// CHECK-NEXT:            {{.*}}loop.load %x{{\[}}[[ROW]], [[SIDE]], [[PIXEL]], {{%.*}}, [[TAP]]]
// CHECK:         loop.for [[TILE:%.*]] times 2 label "ox" {
// CHECK:           loop.for {{.*}} label "ky" {
// CHECK-NEXT:        {{.*}}loop.for {{%.*}} times 5 carry {{.*}} label "kx" {
loop.data @w = dense<[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5]> : tensor<15xf32>
loop.buffer @x {bytes = 160 : i64}
loop.buffer @out {bytes = 160 : i64}
loop.kernel @k(%x : arena, %w : const, %out : arena) {
  loop.nest %x, %w, %out : <parallel (oy = 5, ox = 8) reduce (ky = 3, kx = 5) mac x["8*oy + ox + 8*ky + kx - 10"], w["5*ky + kx"], out["8*oy + ox"] where "oy + ky - 1" < 5, "ox + kx - 2" < 8> schedule <loops (oy[1 * 5], ox[1 * 2, 2 * 2, 1 * 2], ky[1 * 3], kx[1 * 5]) tile (ox) unroll (kx) points 1 chunk 0 vector 4 trim (oy, ky) edge (ox, kx)>
}
loop.program @main attributes {input_shapes = [[40 : i64]], output_shapes = [[40 : i64]], inputs = [@x], outputs = [@out]} {
  loop.call @k(@x, @w, @out)
}
