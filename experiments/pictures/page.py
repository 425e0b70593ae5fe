"""What every report is: one HTML file that needs nothing else, for wide and narrow screens, light and dark.

Figures stand in ``<data value=...>`` beside what people read, so that programs can take them from a page.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import InputError, visible
from experiments.pictures import canvas
from sim import __version__
from sim.units import NS, SEC, format_size, format_time

_MAX = 1 << 20  # bytes of a file that is quoted
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --dim: #666; --bad: #b00020; --bar: #4477aa55; }
@media (prefers-color-scheme: dark) { :root { --dim: #aaa; --bad: #ff8a80; --bar: #66aadd55; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 70rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p { margin: .5rem 0; }
.dim, figcaption { color: var(--dim); font-size: .9rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; padding: 0; }
.figures div { background: var(--soft); border-radius: .4rem; padding: .5rem .7rem; }
.figures dt { color: var(--dim); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .8rem 0; }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; min-width: 34rem; max-width: 54rem; height: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom-width: 2px; vertical-align: bottom; }
tr.best td, tr.best th { background: var(--bar); }
.part { padding-left: 1.2rem !important; }
.beware { border-left: .3rem solid var(--bad); background: var(--soft); padding: .4rem .9rem; margin: 1rem 0; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .8rem; border-radius: .4rem; }
summary { cursor: pointer; margin: .6rem 0; }
dl.plain { margin: .6rem 0; } dl.plain dt { font-weight: 600; } dl.plain dd { margin: 0 0 .4rem; overflow-wrap: anywhere; }
@media (min-width: 42rem) { dl.plain { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; } }
"""

Cell = str
"""Markup of a cell."""


def text(what: object) -> str:
    """Markup of a text, whatever it holds."""
    return html.escape(visible(what))


def figure_of(value: float, shown: str) -> Cell:
    """Markup of a figure: what people read, and the value in full."""
    return f'<data value="{value!r}">{text(shown)}</data>'


def nanoseconds(value: float) -> Cell:
    """Markup of a time in nanoseconds."""
    return figure_of(value, format_time(value * NS))


def seconds(value: float) -> Cell:
    """Markup of a time in seconds."""
    return figure_of(value, format_time(value * SEC))


def size(value: float) -> Cell:
    """Markup of a number of bytes."""
    return figure_of(value, format_size(value))


def count(value: float) -> Cell:
    """Markup of a number of things."""
    return figure_of(value, f"{value:,}" if isinstance(value, int) else f"{value:,.4g}")


def figures(rows: Iterable[tuple[str, Cell]]) -> str:
    """The figures that matter most, side by side."""
    return '<dl class="figures">' + "".join(f"<div><dt>{text(k)}</dt><dd>{v}</dd></div>" for k, v in rows) + "</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], best: Callable[[int], bool] = lambda i: False) -> str:
    """A table with a row heading in front; names that begin with spaces are parts of what is above them."""
    cells = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = [f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>']
    for i, (name, *others) in enumerate(rows):
        mark = ' class="part"' if name.startswith(" ") else ""
        row = f'<th scope="row"{mark} style="font-weight:normal">{name.strip()}</th>'
        lines.append(
            f"<tr{' class=best' if best(i) else ''}>{row}{''.join(f'<td>{cell}</td>' for cell in others)}</tr>"
        )
    return "\n".join([*lines, "</tbody></table></div>"])


def picture(draw: Callable[[], Any], name: str, label: str, caption: str) -> str:
    """A figure with what it shows below; why not, where it cannot be drawn."""
    try:
        drawn = canvas.inline(draw, name, label)
    except InputError as error:
        return f'<p class="dim">{text(label)}: not drawn. {text(error)}</p>'
    return f'<figure><div class="wide">{drawn}</div><figcaption>{text(caption)}</figcaption></figure>'


def hidden(title: str, content: str) -> str:
    """Content that opens at a click."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def quoted(content: str) -> str:
    """A text as it is."""
    return f"<pre>{html.escape(content)}</pre>"


def beware(lines: Sequence[str]) -> str:
    """What a reader must know first; nothing if there is nothing."""
    return f'<div class="beware" role="note">{"".join(f"<p>{text(line)}</p>" for line in lines)}</div>' if lines else ""


def definitions(rows: Iterable[tuple[str, object]]) -> str:
    """Names and what they are."""
    return '<dl class="plain">' + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in rows) + "</dl>"


def page(title: str, lead: str, sections: Iterable[tuple[str, str]]) -> str:
    """The whole file: a title, what stands below it, and sections by their headings."""
    return "\n".join(_lines(title, lead, sections)) + "\n"


def _lines(title: str, lead: str, sections: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{text(title)}</h1>"
    yield lead
    for heading, content in sections:
        if content:
            yield f"<section>\n<h2>{text(heading)}</h2>\n{content}\n</section>"
    yield f'</main>\n<footer class="dim"><p>allocsim {text(__version__)}</p></footer>\n</body>\n</html>'


# What stands beside a result


def beside(directory: str, name: str) -> str:
    """The text of a file of a result; "" if it cannot be had, since a page can do without."""
    try:
        with (Path(directory) / name).open("rb") as stream:
            return stream.read(_MAX).decode("utf-8")
    except (OSError, ValueError):
        return ""


def host_of(directory: str) -> list[tuple[str, object]]:
    """When and where a result was made, but for the machine's name."""
    try:
        host = json.loads(beside(directory, "host.json"))
        kept = ("date", "wall_seconds", "system", "cpus", "python", "numba")
        return [(key.replace("_", " "), host[key]) for key in kept if key in host]
    except (ValueError, TypeError):
        return []


def named(directory: str) -> str:
    """What a directory is called, without the way to it."""
    return os.path.basename(os.path.realpath(directory))


FAR = (
    "Prices are measurements of one machine, but for some that nobody measured. Simulated figures were held against"
    " real Go programs, workload by workload; `allocsim validate` and experiments/validation.md say how far apart they are:"
    " numbers of cycles, goals and heaps by a few percent, latencies by tens of percent and pauses by more. Differences"
    " between settings are safer to read than any one figure."
)
"""How far any result is from reality."""
