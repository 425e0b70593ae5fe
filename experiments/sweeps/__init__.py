"""Many runs of one scenario: over axes of settings, each replicated, on all cores or a cluster, resumable.

    from experiments.sweeps import Sweep, run_sweep

    sweep = Sweep("api-service", axes={"gogc": [50, 100, 200]}, replications=5, set={"run.duration": "100ms"})
    results = run_sweep(sweep, "DIR")

spec: what a sweep file says. points: the settings it stands for, and the runs. record: what is kept of a run.
store: the result directory. pool: any concurrent.futures.Executor at work. tables: what other tools read.
"""

from experiments.sweeps.spec import Range, Sweep
from experiments.sweeps.store import Results, read
from experiments.sweeps.sweeping import run_sweep

__all__ = ["Range", "Results", "Sweep", "read", "run_sweep"]
