"""Where the recorded traces of real programs are: the shipped one beside the workloads, the others with the tests."""

from pathlib import Path

_ROOT = Path(__file__).parent.parent


def trace_path(name):
    """The file of a trace by its name."""
    path = _ROOT / "tests" / "data" / f"{name}.trace.xz"
    return path if path.exists() else _ROOT / "workloads" / "data" / path.name
