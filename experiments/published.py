"""Published figures against the model: ``python -m experiments.published [-o FILE] [--json]``.

Each figure says where it stands, what of it was given to the model and what the model predicted, the band in which a
prediction counts as right, and the outcome; also where it misses. Two come from studies of their own, in which there is
more: `mcentral_mutex` and `assist_tails`.

Not answered: the 4.0 us that Go 1.12 held mheap.lock (a treap, not modelled); golang/go issue 61427, where the credit of
background marking is flushed (its cache line is not modelled).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from experiments import assist_tails, mcentral_mutex, published_guide, published_limit, published_locks
from experiments.machine import load_machine
from experiments.published_figure import Figure, Row, show, table

RATE = 50_000  # requests a second of assist_tails


def mutex() -> Figure:
    """What the mutex of mcentral cost (issue 37487)."""
    prices = mcentral_mutex.used_memory(load_machine(mcentral_mutex.MACHINE, "go1.19"))
    work = mcentral_mutex.fitted_work(prices)
    rows = []
    for ps in (8, 28):
        lost, sets = mcentral_mutex.MEASURED[ps]
        rates = [
            mcentral_mutex.measure(version, prices, ps, work[ps]).gib_per_second for version in ("go1.14", "go1.19")
        ]
        what = f"% of throughput lost to it at {ps} Ps"
        rows.append(Row(what, 100 * (1 - lost / sets), 100 * (1 - rates[0] / rates[1]), 0.3))
    return Figure(
        name="mcentral's mutex",
        source="https://github.com/golang/go/commit/a13691966ad5",
        fitted="work between mallocs, to the throughput without the mutex at each number of Ps",
        rows=tuple(rows),
        says="The prices of the mutex are assumed, and a holder that others poll is not slowed down in the model.",
    )


def assists() -> Figure:
    """How much of response times mark assists are (issue 56966)."""
    p99 = {
        variant: assist_tails.measure(variant, 8, RATE, assist_tails.WINDOW).response_us["p99"]
        for variant in ("as is", "no assists")
    }
    return Figure(
        name="mark assists in response times",
        source="https://github.com/golang/go/issues/56966",
        fitted="nothing; the program there is known by its rate and its size of message alone, so this is another one",
        rows=(
            Row(
                "99th percentile, times that without assists (go1.19)",
                73.4 / 3.9,
                p99["as is"] / p99["no assists"],
                0.5,
            ),
        ),
        says="In 'assist_tails' it depends on how near the service is to saturation, which nothing tells of the program there.",
    )


FIGURES: tuple[Callable[[], Figure], ...] = (
    published_guide.figure,
    published_locks.page_heap,
    mutex,
    published_locks.sched_lock,
    assists,
    published_limit.figure,
)


def page(figures: Sequence[Figure]) -> Iterator[str]:
    """All figures as a page of Markdown."""
    predicted = [row for one in figures for row in one.rows if not row.fitted]
    within = sum(row.outcome == "within" for row in predicted)
    yield "# Published figures"
    yield ""
    yield f"Predicted by the model: {len(predicted)} numbers, {within} of them within their band."
    yield "Written by `python -m experiments.published`; prices of the machine epyc-2core."
    for one in figures:
        yield from ("", f"## {one.name}", "", f"Source: {one.source}  ", f"Fitted: {one.fitted}.", "")
        yield from table(one.rows, "published")
        yield from ("", one.says)


@click.command("published", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the page there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the page.")
def main(output: Path | None, as_json: bool) -> None:
    """Hold the model against published figures of Go's allocator and collector."""

    def make() -> tuple[Iterator[str], Any]:
        figures = [one() for one in FIGURES]
        found = [asdict(one) | {"rows": [asdict(r) | {"outcome": r.outcome} for r in one.rows]} for one in figures]
        return page(figures), found

    show("published", output, as_json, make)


if __name__ == "__main__":
    main()
