// Every nn op prints what it parses, in the short syntax and in the generic one.
// RUN: ml4f-opt %s | ml4f-opt | filecheck %s
// RUN: ml4f-opt %s --print-op-generic | ml4f-opt | filecheck %s
// RUN: ml4f-opt %s --print-op-generic | filecheck %s --check-prefix GENERIC

// CHECK-LABEL: func.func @main(%image: tensor<8x9x4xf32>, %vector: tensor<6xf32>)
func.func @main(%image : tensor<8x9x4xf32>, %vector : tensor<6xf32>) -> tensor<6xf32> {
  // CHECK-NEXT: %w = nn.const {value = dense<{{.*}}> : tensor<3x3x2x6xf32>} : tensor<3x3x2x6xf32>
  // GENERIC:    %w = "nn.const"() <{value = dense<{{.*}}> : tensor<3x3x2x6xf32>}> : () -> tensor<3x3x2x6xf32>
  %w = nn.const {value = dense<0.5> : tensor<3x3x2x6xf32>} : tensor<3x3x2x6xf32>
  // CHECK-NEXT: %half = nn.const {value = dense<{{.*}}> : tensor<2x3x4x2xf32>, half} : tensor<2x3x4x2xf32>
  %half = nn.const {value = dense<0.25> : tensor<2x3x4x2xf32>, half} : tensor<2x3x4x2xf32>
  // CHECK-NEXT: %matrix = nn.const
  %matrix = nn.const {value = dense<1.5> : tensor<6x5xf32>} : tensor<6x5xf32>
  // CHECK-NEXT: %b5 = nn.const {value = dense<[1.000000e+00, 2.000000e+00, 3.000000e+00, 4.000000e+00, 5.000000e+00]>
  %b5 = nn.const {value = dense<[1.0, 2.0, 3.0, 4.0, 5.0]> : tensor<5xf32>} : tensor<5xf32>
  // CHECK-NEXT: %b4 = nn.const
  %b4 = nn.const {value = dense<2.5> : tensor<4xf32>} : tensor<4xf32>
  // CHECK-NEXT: %b6 = nn.const
  %b6 = nn.const {value = dense<-1.0> : tensor<6xf32>} : tensor<6xf32>

  // CHECK-NEXT: %conv = nn.conv2d %image, %w, %b6 {strides = array<i64: 2, 1>, dilations = array<i64: 1, 2>, pads = array<i64: 1, 0, 0, 1>, groups = 2, act = #nn.act<"relu">} : tensor<4x6x6xf32>
  // GENERIC:    %conv = "nn.conv2d"(%image, %w, %b6) <{{{.*}}groups = 2 : i64{{.*}}}> : (tensor<8x9x4xf32>, tensor<3x3x2x6xf32>, tensor<6xf32>) -> tensor<4x6x6xf32>
  %conv = nn.conv2d %image, %w, %b6 {strides = array<i64: 2, 1>, dilations = array<i64: 1, 2>, pads = array<i64: 1, 0, 0, 1>, groups = 2, act = #nn.act<"relu">} : tensor<4x6x6xf32>
  // CHECK-NEXT: %depthwise = nn.depthwise_conv2d %image, %half {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : tensor<7x7x8xf32>
  %depthwise = nn.depthwise_conv2d %image, %half {strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : tensor<7x7x8xf32>
  // CHECK-NEXT: %dense = nn.dense %conv, %matrix, %b5 {act = #nn.act<"leaky_relu", 0.1>} : tensor<4x6x5xf32>
  %dense = nn.dense %conv, %matrix, %b5 {act = #nn.act<"leaky_relu", 0.1>} : tensor<4x6x5xf32>
  // CHECK-NEXT: %max = nn.max_pool2d %conv {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : tensor<2x3x6xf32>
  %max = nn.max_pool2d %conv {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>} : tensor<2x3x6xf32>
  // CHECK-NEXT: %mean = nn.avg_pool2d %conv {{.*}}count_include_pad = true, counted_pads = array<i64: 1, 1, 0, 0>} : tensor<2x3x6xf32>
  %mean = nn.avg_pool2d %conv {kernel = array<i64: 3, 3>, strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 0, 0>, count_include_pad = true, counted_pads = array<i64: 1, 1, 0, 0>} : tensor<2x3x6xf32>
  // CHECK-NEXT: %norm = nn.batch_norm %max, %b6, %b6 : tensor<2x3x6xf32>
  %norm = nn.batch_norm %max, %b6, %b6 : tensor<2x3x6xf32>
  // CHECK-NEXT: %active = nn.activation %norm {act = #nn.act<"clip", "-inf", 6.0>} : tensor<2x3x6xf32>
  %active = nn.activation %norm {act = #nn.act<"clip", "-inf", 6.0>} : tensor<2x3x6xf32>
  // CHECK-NEXT: %prelu = nn.prelu %active, %b6 : tensor<2x3x6xf32>
  %prelu = nn.prelu %active, %b6 : tensor<2x3x6xf32>
  // CHECK-NEXT: %soft = nn.softmax %prelu {axis = 2} : tensor<2x3x6xf32>
  %soft = nn.softmax %prelu {axis = 2} : tensor<2x3x6xf32>
  // CHECK-NEXT: %add = nn.add %soft, %vector : tensor<2x3x6xf32>
  %add = nn.add %soft, %vector : tensor<2x3x6xf32>
  // CHECK-NEXT: %sub = nn.sub %add, %mean {act = #nn.act<"tanh">} : tensor<2x3x6xf32>
  %sub = nn.sub %add, %mean {act = #nn.act<"tanh">} : tensor<2x3x6xf32>
  // CHECK-NEXT: %mul = nn.mul %sub, %b6 : tensor<2x3x6xf32>
  %mul = nn.mul %sub, %b6 : tensor<2x3x6xf32>
  // CHECK-NEXT: %div = nn.div %mul, %b6 : tensor<2x3x6xf32>
  %div = nn.div %mul, %b6 : tensor<2x3x6xf32>
  // CHECK-NEXT: %larger = nn.max %div, %add : tensor<2x3x6xf32>
  %larger = nn.max %div, %add : tensor<2x3x6xf32>
  // CHECK-NEXT: %smaller = nn.min %larger, %add : tensor<2x3x6xf32>
  %smaller = nn.min %larger, %add : tensor<2x3x6xf32>
  // CHECK-NEXT: %power = nn.pow %smaller, %b6 : tensor<2x3x6xf32>
  %power = nn.pow %smaller, %b6 : tensor<2x3x6xf32>
  // CHECK-NEXT: %masked = nn.where %smaller, %add : tensor<2x3x6xf32>
  %masked = nn.where %smaller, %add : tensor<2x3x6xf32>
  // CHECK-NEXT: %padded = nn.pad %masked {low = array<i64: 1, 0, 0>, high = array<i64: 0, 2, 0>, value = -1.000000e+00 : f32} : tensor<3x5x6xf32>
  %padded = nn.pad %masked {low = array<i64: 1, 0, 0>, high = array<i64: 0, 2, 0>, value = -1.0 : f32} : tensor<3x5x6xf32>
  // CHECK-NEXT: %slice = nn.slice %padded {start = array<i64: 2, 0, 1>, strides = array<i64: -1, 2, 1>, sizes = array<i64: 3, 2, 4>} : tensor<3x2x4xf32>
  %slice = nn.slice %padded {start = array<i64: 2, 0, 1>, strides = array<i64: -1, 2, 1>, sizes = array<i64: 3, 2, 4>} : tensor<3x2x4xf32>
  // CHECK-NEXT: %concat = nn.concat %slice, %slice, %slice {axis = 2} : tensor<3x2x12xf32>
  %concat = nn.concat %slice, %slice, %slice {axis = 2} : tensor<3x2x12xf32>
  // CHECK-NEXT: %reduce = nn.reduce %concat {axes = array<i64: 0, 1>, kind = "mean"} : tensor<12xf32>
  %reduce = nn.reduce %concat {axes = array<i64: 0, 1>, kind = "mean"} : tensor<12xf32>
  // CHECK-NEXT: %reshape = nn.reshape %reduce : tensor<2x6xf32>
  %reshape = nn.reshape %reduce : tensor<2x6xf32>
  // CHECK-NEXT: %transpose = nn.transpose %reshape {permutation = array<i64: 1, 0>, source = #nn.source<"a/b:0", [1, 0]>} : tensor<6x2xf32>
  %transpose = nn.transpose %reshape {permutation = array<i64: 1, 0>, source = #nn.source<"a/b:0", [1, 0]>} : tensor<6x2xf32>
  // CHECK-NEXT: %product = nn.matmul %reshape, %reshape {transpose_a, act = #nn.act<"relu">} : tensor<6x6xf32>
  // GENERIC:    %product = "nn.matmul"(%reshape, %reshape) <{transpose_a, act = #nn.act<"relu">}> : (tensor<2x6xf32>, tensor<2x6xf32>) -> tensor<6x6xf32>
  %product = nn.matmul %reshape, %reshape {transpose_a, act = #nn.act<"relu">} : tensor<6x6xf32>
  // CHECK-NEXT: %stretch = nn.conv_transpose2d %image, %half, %b4 {strides = array<i64: 2, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 0, 0, 1>, output_pads = array<i64: 1, 0>, groups = 2} : tensor<16x10x4xf32>
  %stretch = nn.conv_transpose2d %image, %half, %b4 {strides = array<i64: 2, 1>, dilations = array<i64: 1, 1>, pads = array<i64: 1, 0, 0, 1>, output_pads = array<i64: 1, 0>, groups = 2} : tensor<16x10x4xf32>
  // CHECK-NEXT: %volume = nn.reshape %masked : tensor<2x3x6x1xf32>
  %volume = nn.reshape %masked : tensor<2x3x6x1xf32>
  // CHECK-NEXT: %taps = nn.const
  %taps = nn.const {value = dense<0.5> : tensor<1x2x3x1x4xf32>} : tensor<1x2x3x1x4xf32>
  // CHECK-NEXT: %solid = nn.conv3d %volume, %taps, %b4 {strides = array<i64: 1, 1, 2>, dilations = array<i64: 1, 1, 1>, pads = array<i64: 1, 0, 0, 0, 0, 1>, groups = 1} : tensor<3x2x3x4xf32>
  %solid = nn.conv3d %volume, %taps, %b4 {strides = array<i64: 1, 1, 2>, dilations = array<i64: 1, 1, 1>, pads = array<i64: 1, 0, 0, 0, 0, 1>, groups = 1} : tensor<3x2x3x4xf32>
  // CHECK-NEXT: %rows = nn.lookup %product, %vector : tensor<6x6xf32>
  %rows = nn.lookup %product, %vector : tensor<6x6xf32>
  // CHECK-NEXT: %row = nn.slice
  %row = nn.slice %reshape {start = array<i64: 0, 0>, strides = array<i64: 1, 1>, sizes = array<i64: 1, 6>} : tensor<1x6xf32>
  %result = nn.reshape %row : tensor<6xf32>
  func.return %result : tensor<6xf32>
}

// CHECK-LABEL: func.func @recurrent
func.func @recurrent(%x : tensor<5x2xf32>, %h : tensor<3xf32>, %w : tensor<2x12xf32>, %r : tensor<3x12xf32>, %b : tensor<12xf32>, %p : tensor<9xf32>, %gw : tensor<2x9xf32>, %gr : tensor<3x9xf32>, %rw : tensor<2x3xf32>, %rr : tensor<3x3xf32>) {
  // CHECK-NEXT: %lstm = nn.lstm %x, %w, %r, %b, %h, %h, %p {activations = [#nn.act<"sigmoid">, #nn.act<"tanh">, #nn.act<"tanh">], reverse, sequence, cell} : tensor<6x3xf32>
  %lstm = nn.lstm %x, %w, %r, %b, %h, %h, %p {activations = [#nn.act<"sigmoid">, #nn.act<"tanh">, #nn.act<"tanh">], reverse, sequence, cell} : tensor<6x3xf32>
  // CHECK-NEXT: %gru = nn.gru %x, %gw, %gr, %p, %h, %h {activations = [#nn.act<"hard_sigmoid", 0.2, 0.5>, #nn.act<"tanh">], sequence} : tensor<5x3xf32>
  %gru = nn.gru %x, %gw, %gr, %p, %h, %h {activations = [#nn.act<"hard_sigmoid", 0.2, 0.5>, #nn.act<"tanh">], sequence} : tensor<5x3xf32>
  // CHECK-NEXT: %rnn = nn.rnn %x, %rw, %rr, %h, %h {activations = [#nn.act<"relu">]} : tensor<1x3xf32>
  %rnn = nn.rnn %x, %rw, %rr, %h, %h {activations = [#nn.act<"relu">]} : tensor<1x3xf32>
  func.return
}
