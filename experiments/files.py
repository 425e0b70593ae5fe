"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from experiments.errors import InputError, visible


def write_whole(path: Path, text: str) -> None:
    """Make a file hold this text, in one step: what was there stays until then. InputError, one line, if it cannot be."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"{visible(path)}: cannot be written: {error.strerror}; name another file") from None
