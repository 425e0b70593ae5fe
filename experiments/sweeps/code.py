"""Which code makes a run's result: a digest of the sources and data that take part in it.

Records carry it, so that results of different code never stand in one table. What only shows, fits or measures takes
no part: a sweep goes on after a change of that.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from experiments.errors import InputError
from sim import __version__

_ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = (
    "sim",
    "workloads",
    "experiments/machines",
    *(
        f"experiments/{name}.py"
        for name in (
            *("calibrate_objects", "cautions", "collector", "errors", "machine", "machine_file", "machine_gc", "machine_mixed"),
            *("machine_small", "quantiles", "result", "run"),
            *("sweeps/code", "sweeps/record", "sweeps/work"),
        )
    ),
)
"""Files, and folders with all that is in them, below the root of this distribution."""
_SKIPPED = {".pyc", ".md"}
_NO_PART = {"__pycache__", "scenarios"}  # what a scenario says is in the key of a run


@cache
def code_version(root: Path = _ROOT) -> str:
    """The version of this distribution and a digest of `PARTS`."""
    digest = hashlib.sha256()
    for part in PARTS:
        whole = root / part
        for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
            if path.is_file() and path.suffix not in _SKIPPED and not _NO_PART & set(path.relative_to(root).parts):
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return f"{__version__}+{digest.hexdigest()[:16]}"


def file_digest(path: str) -> str:
    """A digest of what a file holds; InputError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a file that can") from None
