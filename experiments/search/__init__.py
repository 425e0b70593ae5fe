"""Search and sensitivity: which setting is best within bounds, and which settings matter.

    from experiments.search import Tune, tune, sensitivity

    aim = Tune("api-service", minimise="response:p99.9", subject_to=["peak-rss <= 64MiB"], axes={"gogc": Range(50, 400)})
    found = tune(aim, "DIR")                                                       # Optuna (extra [search])
    problem = {"names": ["gogc", "gomaxprocs"], "bounds": [[50, 400], [2, 8]]}     # as SALib has it (extra [search])
    indices = sensitivity(problem, "api-service", "gc-cpu", "DIR", method="morris", samples=10)

All runs are runs of a sweep (experiments/sweeps): by any executor, resumable, kept in a directory that `allocsim show`
reads. metrics: figures of a point by name. aims: objective, bounds, Pareto front. spec: what a tune file says. asking:
Optuna's ask and tell. tuning: a search, and how sure its best is. sensitivity: SALib's indices.
"""

from experiments.search.sensitivity import sensitivity
from experiments.search.spec import Tune
from experiments.search.tuning import tune
from experiments.sweeps.spec import Range

__all__ = ["Range", "Tune", "sensitivity", "tune"]
