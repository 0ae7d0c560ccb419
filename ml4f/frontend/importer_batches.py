"""Operators on several images at once: one after the other. In the compiler a window is always one image's."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ml4f.frontend.importer import Importer
from ml4f.frontend.importer_nodes import Node
from ml4f.frontend.importer_shapes import joined, sliced
from ml4f.frontend.importer_values import NotSupported, Tensor

MOST_IMAGES = 64
"""Each is a call of its own (of the same kernel)."""

Handler = Callable[[Importer, Node], None]


def one_by_one(handle: Handler) -> Handler:
    """A handler of [n, channels, …] from one of [1, channels, …]."""

    def handle_all(importer: Importer, node: Node) -> None:
        name = node.proto.input[0]
        shape = importer.shape(name)
        if len(shape) < 3 or shape[0] == 1:
            handle(importer, node)
            return
        if shape[0] > MOST_IMAGES:
            raise NotSupported(f"{shape[0]} images at once; at most {MOST_IMAGES} are supported")
        tensor = importer.tensor(name)
        parts = [_one(importer, node, handle, tensor, number) for number in range(shape[0])]
        importer.result(node.proto.output[0], joined(importer, parts, 0))

    return handle_all


def _one(importer: Importer, node: Node, handle: Handler, images: Tensor, number: int) -> Tensor:
    rank = len(images.shape)
    output = f"{node.proto.output[0]}/image{number}"
    source = f"{output}/input"
    start = (number, *(0,) * (rank - 1))
    importer.tensors[source] = sliced(importer, images, start, (1,) * rank, (1, *images.shape[1:]))
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.input[0], proto.output[0] = source, output
    handle(importer, node.altered(proto))
    return importer.tensor(output)
