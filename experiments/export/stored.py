"""What exporters take of a directory: the result it holds, or every run of a sweep that was made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.cli_sweep import is_sweep
from experiments.errors import InputError
from experiments.export.exported import Exported


def runs_in(name: str) -> list[Exported]:
    """The runs in a directory; InputError, one line, if it holds neither a result nor a run of a sweep that did not fail.

    The config of a sweep's run is what the sweep sets: ``[set]``, the values of its point, the seed.
    """
    if is_sweep(name):
        return list(_swept(name))
    from experiments.result import read, read_histograms

    summary = read(name).summary
    return [Exported(summary["scenario"], summary["config"], summary["metrics"], read_histograms(name))]


def _swept(name: str) -> Iterator[Exported]:
    from experiments.sweeps import store

    results = store.read(name)
    scenario, fixed = str(results.sweep.get("scenario")), results.sweep.get("set", {})
    made = 0
    for run, record in results.records():
        if record.error is None:
            made += 1
            config = _sections({**fixed, **results.values(run), "run.seed": run.seed})
            yield Exported(scenario, config, record.metrics, {cause: one.rows() for cause, one in record.latency.items()})
    if not made:
        raise InputError(f"{name}: holds a sweep no run of which was made; give the command of the sweep again")


def _sections(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings by the section that each is of, as a scenario's file has them."""
    from workloads.scenario import full_key
    from workloads.scenario_schema import SECTIONS

    found: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        section, *rest = full_key(name, SECTIONS, "")
        found.setdefault(section, {})[".".join(rest)] = value
    return found
