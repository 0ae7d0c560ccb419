// A sum of everything to a single number keeps its own kernel: there is no dim left along which a tile could extend.
// RUN: ml4f-opt %s -p loop-fuse-pool | filecheck %s
// RUN: ml4f-opt %s -p loop-fuse-pool,loop-choose-schedule,loop-pack-weights,loop-plan-memory,loop-expand --run-between-passes

loop.buffer @x {bytes = 24 : i64}
// CHECK: @between
loop.buffer @between {bytes = 24 : i64}
loop.buffer @out {bytes = 4 : i64}
// CHECK: loop.kernel @square
loop.kernel @square(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (d = 6) copy x["d"], out["d"] then activation square>
}
// CHECK: loop.kernel @sum
loop.kernel @sum(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (o = 1) reduce (k = 6) add x["k"], out["0"]>
}
loop.program @main attributes {input_shapes = [[6 : i64]], output_shapes = [[1 : i64]], inputs = [@x], outputs = [@out]} {
  loop.call @square(@x, @between)
  loop.call @sum(@between, @out)
}
