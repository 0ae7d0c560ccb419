"""The numpy meaning of nn.lookup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.ir import Operation

from ml4f.dialects.nn.lookup_ops import LookupOp

Array = np.ndarray


def _lookup(op: LookupOp, operands: Sequence[Array]) -> Array:
    table, index = operands
    numbers = np.nan_to_num(index.astype(np.float64), nan=0.0)
    numbers = np.where(numbers < 0, numbers + len(table), numbers)
    return table[np.clip(np.trunc(numbers), 0, len(table) - 1).astype(np.int64)]


EVALUATORS: dict[type[Operation], Callable[[Any, Sequence[Array]], Array]] = {LookupOp: _lookup}
