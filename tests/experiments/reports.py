"""Made-up reports for tests of what is shown and stored."""

from experiments.result import SCHEMA, SHOWN_METRICS, Report


def row(count, mean_ns=20.0, share=1.0, **times):
    """The summary of a cause."""
    names = ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "p99.99_ns", "p99.999_ns", "max_ns")
    return {"count": count, "share": share, "mean_ns": mean_ns, **{name: times.get(name, mean_ns) for name in names}}


def made_up(malloc, latency=None, metrics=None, cycles=(), **others):
    """A report of these buckets (picoseconds, picoseconds, count); what is not given is plain."""
    calls = sum(count for _, _, count in malloc)
    shown = dict.fromkeys(sorted(SHOWN_METRICS), 0) | {"/sched/gomaxprocs:threads": 4, "/sim/mallocs:objects": calls}
    summary = {
        "schema": SCHEMA,
        "allocsim": "0.1.0",
        "scenario": "made-up",
        "seed": 7,
        "cut_short": False,
        "config": {
            "purpose": "Nothing in particular",
            "runtime": {"version": "go1.27", "gogc": 100, "memory_limit": "off"},
            "machine": {"prices": "epyc-2core", "cpus": 4},
            "run": {"duration": "1s"},
            "workload": {"kind": "workers"},
        },
        "metrics": shown | (metrics or {}),
        "latency": {"all": row(calls)} if latency is None and calls else latency or {},
        "assumed_prices": {"lock.acquire": "so", "lock.release": "so", "steal": "so"},
    }
    return Report(summary | others, malloc, cycles)
