// A dense layer that consumes results, with float16 weights: these lie in pairs, so its outputs are accumulated in pairs.
// RUN: ml4f-opt %s -p loop-pack-weights,loop-expand | filecheck %s
// RUN: ml4f-opt %s -p loop-plan-memory,loop-pack-weights,loop-expand,loop-lower-addresses --run-between-passes

// CHECK: loop.data @k_dense = {{.*}} : tensor<32xi8>
// CHECK-LABEL: loop.kernel @k
// CHECK: loop.for [[TILE:%.*]] times 2 label "d" {
// CHECK:   loop.for [[PAIR:%.*]] times 2 label "j" {
// CHECK-NEXT: [[EVEN:%.*]] = loop.load %out{{\[}}[[PAIR]]] {offset = 0 : i64, {{.*}}strides = array<i64: 8>}
// CHECK-NEXT: [[ODD:%.*]] = loop.load %out{{\[}}[[PAIR]]] {offset = 4 : i64
// CHECK-NEXT: [[WORD:%.*]] = loop.load %dense{{\[}}[[TILE]], [[PAIR]]] {offset = 0 : i64, {{.*}}strides = array<i64: 16, 4>}
// CHECK-NEXT: loop.load %dense{{.*}} {offset = 8 : i64
// CHECK-NEXT: loop.half_low [[WORD]]
// CHECK-NEXT: loop.half_high [[WORD]]
// CHECK-COUNT-4: loop.fadd
// CHECK-NEXT: loop.store {{%.*}}, %out{{\[}}[[PAIR]]] {offset = 0 : i64
// CHECK-NEXT: loop.store {{%.*}}, %out{{\[}}[[PAIR]]] {offset = 4 : i64
loop.data @w = dense<[0.5, -0.25, 1.0, 2.0, 0.75, 4.0, -1.0, 8.0, 0.5, -0.25, 1.0, 2.0, 0.75, 4.0, -1.0, 8.0]> : tensor<16xf32>
loop.data @bias = dense<[1.0, 2.0, -1.0, 0.5]> : tensor<4xf32>
loop.buffer @x {bytes = 20 : i64}
loop.buffer @out {bytes = 16 : i64}
loop.kernel @start(%x : const, %out : arena) {
  loop.nest %x, %out : <parallel (d = 4) copy x["d"], out["d"]> schedule <loops (d[4 * 1]) tile (d) points 1 chunk 0 vector 4>
}
loop.kernel @k(%x : arena, %dense : const, %out : arena) {
  loop.nest %x, %dense, %out : <parallel (d = 4) reduce (k = 2) add x["d + k"], dense["4*d"] f16, out["0"] then dense dense(4.0)> schedule <loops (d[2 * 2], k[2 * 1]) tile (d) unroll (k) points 1 chunk 0 vector 4>
}
loop.program @main attributes {input_shapes = [[5 : i64]], output_shapes = [[4 : i64]], inputs = [@x], outputs = [@out]} {
  loop.call @start(@bias, @out)
  loop.call @k(@x, @w, @out)
}
