"""Files that a command writes: checked before any work, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import InputError, visible


def writable(path: Path, force: bool, sources: Sequence[str | Path] = ()) -> Path:
    """The path of an output; InputError, before any work, where writing it would fail or lose something.

    ``sources``: what is read, which is not written over with ``force`` either.
    """
    folder = path.parent
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a directory; name a file in it with -o")
        if path.exists():
            if any(path.samefile(source) for source in sources):
                raise InputError(f"{path}: is what is read; name another file with -o")
            if not path.is_file():
                raise InputError(f"{path}: is not a plain file; name another with -o")
            if not force:
                raise InputError(f"{path}: exists already; name another file with -o, or replace it with --force")
        if not folder.is_dir():
            raise InputError(f"{path}: there is no directory {folder}; make it first")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: directory {folder} is not writable; name another with -o")
    except (OSError, ValueError) as error:
        raise InputError(f"{visible(path)}: cannot be written ({error}); name another file with -o") from None
    return path


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that becomes it at the end, or is gone if the body fails."""
    try:
        with tempfile.TemporaryDirectory(prefix=".allocsim-", dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{target}: cannot be written ({why}); make room or name another file with -o") from error


def write_whole(path: Path, text: str) -> None:
    """Make a file hold this text, in one step."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
