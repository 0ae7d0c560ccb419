"""Writes a set of files, all or nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ml4f.errors import Ml4fError

PREFIX = ".ml4f-"
"""Temporary files begin with it; they lie beside their targets, so that renaming them is one step."""


def write_all(
    directory: str | Path, files: Mapping[str, bytes | str], elsewhere: Mapping[Path, bytes] | None = None
) -> list[Path]:
    """Write every file into `directory` (made if absent), and those of `elsewhere` to their own paths, or none at all.

    Everything is written under temporary names first, then renamed. If a renaming fails, those before it are undone,
    and files that were there before are there again. Raises Ml4fError, which names what could not be written and why.
    """
    directory = Path(directory)
    contents = {directory / name: data.encode() if isinstance(data, str) else data for name, data in files.items()}
    for path, data in (elsewhere or {}).items():
        if path in contents:
            raise Ml4fError(f"{path}: is one of the results; give another name")
        contents[path] = data
    with _Transaction() as transaction:
        for path, data in contents.items():
            transaction.add(path, data)
        transaction.commit()
    return list(contents)


def check_directory(directory: str | Path) -> None:
    """Raises Ml4fError if files can certainly not be written there: said before a long compilation rather than after
    it.
    """
    path = Path(directory)
    existing = next((p for p in [path, *path.parents] if os.path.lexists(p)), Path())
    if not existing.is_dir():
        raise Ml4fError(f"{directory}: cannot be written: {existing} is not a folder; give another --output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Ml4fError(f"{directory}: cannot be written: no permission in {existing}; give another --output")


class _Transaction(contextlib.AbstractContextManager["_Transaction"]):
    """Files to be renamed together; undoes everything on leaving, unless committed."""

    def __init__(self) -> None:
        self.written: list[tuple[Path, Path]] = []
        self.made: list[Path] = []
        self.done = False

    def add(self, target: Path, data: bytes) -> None:
        """Write a file under a temporary name beside its target."""
        try:
            self._make_directory(target.parent)
            if target.is_dir():
                raise Ml4fError(f"{target}: is a folder, not a file; give another --basename or --output")
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=PREFIX)
            self.written.append((Path(temporary), target))
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
        except OSError as error:
            raise _refusal(target, error) from None

    def _make_directory(self, directory: Path) -> None:
        absent = [directory, *directory.parents]
        absent = [path for path in absent if not path.exists()]
        for path in reversed(absent):
            path.mkdir(exist_ok=True)
            self.made.append(path)

    def commit(self) -> None:
        """Give every file its name."""
        replaced: list[tuple[Path, Path | None]] = []
        try:
            for temporary, target in self.written:
                replaced.append((target, _set_aside(target)))
                os.replace(temporary, target)
            self.done = True
        except OSError as error:
            raise _refusal(replaced[-1][0], error) from None
        finally:
            for target, former in reversed(replaced):
                with contextlib.suppress(OSError):
                    if former is not None and not self.done:
                        os.replace(former, target)
                    elif former is not None:
                        former.unlink()
                    elif not self.done:
                        target.unlink()

    def __exit__(self, *_: object) -> None:
        if self.done:
            return
        for temporary, _target in self.written:
            with contextlib.suppress(OSError):
                temporary.unlink()
        for path in reversed(self.made):
            with contextlib.suppress(OSError):
                path.rmdir()


def _set_aside(target: Path) -> Path | None:
    """Rename a file that is in the way; None if there is none."""
    if not target.exists():
        return None
    handle, former = tempfile.mkstemp(dir=target.parent, prefix=PREFIX)
    os.close(handle)
    try:
        os.replace(target, former)
    except OSError:
        os.unlink(former)
        raise
    return Path(former)


def _refusal(path: Path, error: OSError) -> Ml4fError:
    return Ml4fError(
        f"{path}: cannot be written: {error.strerror or error}; nothing was written; give another --output"
    )


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
