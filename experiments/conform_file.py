"""A file of recorded answers, and what comparing it with the rooms found; the kinds of files stand beside this one."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import InputError


@dataclass(frozen=True)
class Conformance:
    """How many recorded answers the rooms give too, and the first that differs."""

    kind: str
    total: int
    equal: int
    first_difference: str | None


def load(path: Path) -> Any:
    """The JSON of a plain or .xz file; InputError for anything else."""
    try:
        raw = path.read_bytes()
        if raw[:6] == b"\xfd7zXZ\0":
            raw = lzma.decompress(raw)
        return json.loads(raw)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a file of recorded answers") from None
    except (lzma.LZMAError, EOFError):
        raise InputError(f"{path}: damaged xz data; get the file again") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; a file of recorded answers is JSON, plain or .xz") from None
