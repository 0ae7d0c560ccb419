// A tile of a copy extends over several dims where the innermost one is short. Elements that are repeated are the tile's
// innermost: each is loaded once.
// RUN: ml4f-opt %s -p 'loop-choose-schedule{goal="speed"}' --run-between-passes | filecheck %s
// RUN: ml4f-opt %s -p 'loop-choose-schedule{goal="speed"},loop-plan-memory,loop-expand' --run-between-passes | filecheck %s --check-prefix EXPANDED

// CHECK-LABEL: loop.kernel @shuffle
// CHECK:         schedule <loops (p[{{[2-9]}} * {{.*}}], c[6 * 1], g[2 * 1]) tile (p, c, g)
// CHECK-LABEL: loop.kernel @twice
// CHECK:         schedule <loops (y[1 * 7], r[2 * 1], x[{{.*}}], s[2 * 1], c[6 * 1]) tile ({{(x, )?}}c, r, s)
// EXPANDED-LABEL: loop.kernel @twice
// EXPANDED:         [[A:%.*]] = loop.load
// EXPANDED-COUNT-4: loop.store {{.*}}[[A]]
// EXPANDED-NOT:     loop.store {{.*}}[[A]]
loop.buffer @x {bytes = 8112 : i64}
loop.buffer @y {bytes = 8112 : i64}
loop.buffer @z {bytes = 3360 : i64}
loop.kernel @shuffle(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (p = 169, c = 6, g = 2) copy x["12*p + c + 6*g"], out["12*p + 2*c + g"]>
}
loop.kernel @twice(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (y = 7, r = 2, x = 5, s = 2, c = 6) copy x["30*y + 6*x + c"], out["120*y + 60*r + 12*x + 6*s + c"]>
}
loop.program @main attributes {inputs = [@x], outputs = [@z]} {
  loop.call @shuffle(@x, @y)
  loop.call @twice(@y, @z)
}
