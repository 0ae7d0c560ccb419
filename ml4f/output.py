"""Writes a set of files, all or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ml4f.errors import Ml4fError


def write_all(directory: str | Path, files: Mapping[str, bytes | str], force: bool = True) -> list[Path]:
    """Write every file into `directory` (made if absent), or none: first under temporary names, then renamed.

    Raises Ml4fError when the folder cannot be written, or a file exists and `force` is false.
    """
    directory = Path(directory)
    targets = [directory / name for name in files]
    existing = [path for path in targets if path.exists()]
    if existing and not force:
        raise Ml4fError(f"{existing[0]}: exists already; --force overwrites")
    made_directory = not directory.exists()
    temporaries: list[Path] = []
    done = False
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for contents in files.values():
            data = contents.encode() if isinstance(contents, str) else contents
            handle, temporary = tempfile.mkstemp(dir=directory, prefix=".ml4f-")
            temporaries.append(Path(temporary))
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o644)
        for temporary, target in zip(temporaries, targets, strict=True):
            if target.is_dir():
                raise Ml4fError(f"{target}: is a folder; give another --basename or --output")
        for temporary, target in zip(temporaries, targets, strict=True):
            os.replace(temporary, target)
        done = True
    except OSError as error:
        raise Ml4fError(f"{directory}: cannot be written: {error.strerror or error}; give another --output") from None
    finally:
        if not done:
            for temporary in temporaries:
                with contextlib.suppress(OSError):
                    temporary.unlink()
            if made_directory:
                with contextlib.suppress(OSError):
                    directory.rmdir()
    return targets
