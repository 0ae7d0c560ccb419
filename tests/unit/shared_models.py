"""Where the shared collection of models and their golden outputs is: $ML4F_SHARED, or `../shared` beside the
checkout.
"""

from __future__ import annotations

import os
from pathlib import Path


def shared_models() -> Path | None:
    """The folder `models` of the collection, None if it is not there: tests that need it skip and say so."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    root = Path(os.environ.get("ML4F_SHARED") or beside)
    for folder in (root / "models", root):
        if (folder / "trained").is_dir():
            return folder
    return None
