"""The files of a directory that `allocsim record` wrote; light to import."""

from __future__ import annotations

import os
from pathlib import Path

RECORD, TRACE, LOG, PROFILE, ALLOCS = "record.json", "trace", "gctrace.txt", "heap.pb.gz", "allocs.pb.gz"


def trace_of(path: Path) -> Path:
    """The trace in a directory of `allocsim record`, or the path itself; ValueError if the directory has none."""
    if not os.path.isdir(path) or not (path / RECORD).is_file():  # isdir takes any name
        return path
    if not (path / TRACE).is_file():
        raise ValueError(f"{path}: holds no trace; record a test, or a server with --pprof, without --no-trace")
    return path / TRACE
