// Every nest gets a schedule; one that has one keeps it. Without search: a tile of four by four.
// RUN: ml4f-opt %s -p loop-choose-schedule --run-between-passes | filecheck %s
// RUN: ml4f-opt %s -p 'loop-choose-schedule{search=false}' --run-between-passes | filecheck %s --check-prefix PLAIN

loop.buffer @x {bytes = 400 : i64}
loop.buffer @y {bytes = 800 : i64}
loop.buffer @z {bytes = 800 : i64}
loop.data @w = dense<0.5> : tensor<50xf32>

// CHECK-LABEL: loop.kernel @dense
// CHECK:         schedule <loops (p[{{[0-9]}} * {{[0-9, *]*}}], f[{{.*}}], c[{{.*}}]) tile ({{f, p|p, f}})
// PLAIN-LABEL: loop.kernel @dense
// PLAIN:         schedule <loops (p[4 * 5], f[4 * 2, 2 * 1], c[5 * 1]) tile (f, p)
loop.kernel @dense(%x : arena, %w : const, %out : arena) {
  loop.nest %x, %w, %out : <parallel (p = 20, f = 10) reduce (c = 5) mac x["5*p + c"], w["10*c + f"], out["10*p + f"]>
}
// CHECK-LABEL: loop.kernel @copy
// CHECK:         schedule <loops (d0[2 * 100]) points 1 chunk 0 vector 4>
loop.kernel @copy(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d0 = 200) copy x["d0"], out["d0"]> schedule <loops (d0[2 * 100]) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@z]} {
  loop.call @dense(@x, @w, @y)
  loop.call @copy(@y, @z)
}
