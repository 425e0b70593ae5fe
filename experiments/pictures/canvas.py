"""How figures look, and how they are written: SVG or PNG files, or SVG to stand in a page. The same bytes each time."""

from __future__ import annotations

import html
import importlib.util
import io
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.output import atomic
from sim.units import GIB, KIB, MIB, MS, NS, SEC, US

SUFFIXES = (".svg", ".png")
PALETTE = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"),  # Tol, bright: told apart by the colour-blind
    *("#999933", "#882255", "#44aa99", "#117733", "#cc6677", "#88ccee", "#332288", "#ddcc77"),
)
QUIET = "#999999"
INK = "#252526"  # of texts and axes; in a page what the page's text has, light or dark
_STYLE = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9.5,
    "grid.alpha": 0.25,
    "legend.fontsize": "small",
    "legend.framealpha": 0.0,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # names may hold a $
    "xtick.color": INK,
    "ytick.color": INK,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def needed() -> None:
    """InputError, before any work, if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("matplotlib: is not installed, and draws pictures; pip install 'allocsim[plot]'")


@contextmanager
def _styled(salt: str) -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # not those of whoever runs this
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": salt})
        yield


def write(draw: Callable[[], Any], path: Path) -> None:
    """Write the figure that ``draw`` makes, SVG or PNG by the path's suffix, whole or not at all."""
    with _styled("allocsim"), atomic(path) as temporary:
        metadata = _NO_METADATA if path.suffix == ".svg" else {"Software": None}
        draw().savefig(temporary, metadata=metadata, dpi=144)


def inline(draw: Callable[[], Any], name: str, label: str) -> str:
    """The figure as an SVG element for a page, whose text colour it takes over.

    ``name`` begins every id, so that several can stand in one page; ``label`` tells what it shows to who cannot see it.
    """
    with _styled(name):
        stream = io.StringIO()
        draw().savefig(stream, format="svg", metadata=_NO_METADATA, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(INK, "currentColor")
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', text[: text.index(">")])
    rest = text[text.index(">") + 1 :]
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
    )


# Axes


def time_axis(axis: Any) -> None:
    """Ticks of a logarithmic axis of picoseconds as people write them."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: _time(value)))
    axis.set_minor_formatter(NullFormatter())


def _time(ps: float) -> str:
    unit, name = next(((unit, name) for unit, name in ((SEC, "s"), (MS, "ms"), (US, "us")) if ps >= unit), (NS, "ns"))
    return f"{ps / unit:g}{name}"


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 of each power of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def bytes_unit(largest: float) -> tuple[float, str]:
    """The unit that sizes up to this one are told in, as bytes and by name."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if largest >= unit:
            return float(unit), name
    return 1.0, "B"


def seconds_unit(largest: float) -> tuple[float, str]:
    """The unit that times up to this one are told in, as seconds and by name."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if largest >= unit:
            return unit, name
    return 1e-9, "ns"


def unit_of(metric: str, values: list[float]) -> tuple[float, str]:
    """What values of a metric are divided by to be shown, and what they are then in."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    base = metric.partition(":")[2].partition("/")[0]
    if base == "bytes":
        return bytes_unit(largest)
    if base in ("seconds", "cpu-seconds"):
        size, name = seconds_unit(largest)
        return size, f"CPU {name}" if base == "cpu-seconds" else name
    if base == "share":
        return 0.01, "%"
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= size:
            return size, f"{prefix} {base}".strip()
    return 1.0, base
