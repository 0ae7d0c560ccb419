// Narrow rows: a tile has several of them, so that a weight is loaded once for more pixels. A tile with an odd number of
// filters goes on by two taps in a loop where weights are float16, since they are loaded in pairs.
// RUN: ml4f-opt %s -p 'loop-choose-schedule{goal="speed"}' --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @narrow
// CHECK:         schedule <loops (oy[2 * 1], ox[2 * 1], f[{{[0-9]}} * {{.*}}) tile ({{f, oy, ox|oy, ox, f}})
// CHECK-LABEL: loop.kernel @odd
// CHECK:         schedule <loops (p[7 * 1], f[3 * 1], c[2 * {{.*}}]) tile ({{f, p|p, f}})
loop.buffer @x {bytes = 512 : i64}
loop.buffer @y {bytes = 256 : i64}
loop.buffer @z {bytes = 84 : i64}
loop.data @v = dense<0.5> : tensor<1152xf32>
loop.data @w = dense<0.5> : tensor<78xf32>
loop.kernel @narrow(%x : arena, %v : const, %out : arena) {
  loop.nest %x, %v, %out : <parallel (oy = 2, ox = 2, f = 16) reduce (ky = 3, kx = 3, c = 8) mac x["32*oy + 8*ox + 32*ky + 8*kx + c"], w["384*ky + 128*kx + 16*c + f"], out["32*oy + 16*ox + f"]>
}
loop.kernel @odd(%x : arena, %w : const, %out : arena) {
  loop.nest %x, %w, %out : <parallel (p = 7, f = 3) reduce (c = 26) mac x["4*p + c"], w["3*c + f"] f16, out["3*p + f"]>
}
loop.program @main attributes {inputs = [@x], outputs = [@z]} {
  loop.call @narrow(@x, @v, @y)
  loop.call @odd(@y, @w, @z)
}
