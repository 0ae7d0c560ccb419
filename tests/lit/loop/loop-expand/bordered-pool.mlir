// A large padded window: where a tile lacks terms the loop goes over those that exist, here three of five at the border.
// RUN: ml4f-opt %s -p loop-expand --run-between-passes | filecheck %s

// CHECK-LABEL: loop.kernel @k
// CHECK-NEXT:    [[FIRST:%.*]] = loop.load %x[] {offset = 0 : i64
// CHECK-NEXT:    {{.*}}loop.for {{%.*}} times 2 carry ({{%.*}} = [[FIRST]] : f32) label "k" {
// CHECK:         loop.for {{%.*}} times 3 label "o" {
// CHECK:           {{.*}}loop.for {{%.*}} times 4 carry {{.*}} label "k" {
loop.buffer @x {bytes = 44 : i64}
loop.buffer @y {bytes = 16 : i64}
loop.kernel @k(%x : arena, %out : arena) {
  loop.nest %x, %out : <parallel (o = 4) reduce (k = 5) max x["2*o + k - 2"], out["o"] where "2*o + k - 2" < 9 initial -1.0e30> schedule <loops (o[1 * 1, 1 * 3], k[1 * 1, 1 * 4]) unroll (k) points 1 chunk 0 vector 4>
}
loop.program @main attributes {inputs = [@x], outputs = [@y]} {
  loop.call @k(@x, @y)
}
