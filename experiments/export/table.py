"""Comma-separated values (RFC 4180): a row per run, a column per setting and metric, called as ``run --json`` calls them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.export.exported import Exported, settings


def lines(runs: Sequence[Exported]) -> Iterator[str]:
    """The heading and a line for each run; what a run has no value for is left empty."""
    rows = [
        {"scenario": run.scenario, "seed": run.seed} | dict(settings(run.config)) | dict(run.metrics) for run in runs
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield _line(columns)
    for row in rows:
        yield _line([_cell(row.get(name, "")) for name in columns])


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, Mapping | list | tuple | bool) else value


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
