// A depthwise layer of one pixel has no weights to share: neighbouring channels are a tile, by multiple loads and stores.
// RUN: ml4f-opt %s -p loop-choose-schedule --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @depthwise
// CHECK:         schedule <loops (c[8 * 4], k[{{.*}}]) tile (c) unroll (k) multiple ({{.*}}w, out)
loop.buffer @x {bytes = 1920 : i64}
loop.buffer @y {bytes = 128 : i64}
loop.data @w = dense<0.5> : tensor<480xf32>
loop.kernel @depthwise(%x : arena, %w : const, %out : arena) {
  loop.nest %x, %w, %out : <parallel (c = 32) reduce (k = 15) mac x["32*k + c"], w["32*k + c"], out["c"]>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @depthwise(@x, @w, @y)
}
