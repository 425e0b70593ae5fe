"""Optuna's ask and tell (extra ``[search]``): it says which points to try next, whoever runs them.

The sampler is TPE (Bergstra et al., "Algorithms for hyper-parameter optimization", NIPS 2011), which takes bounds as
constraints: what keeps them is better than what does not, and less of a violation better than more. The same seed and
the same figures give the same points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.errors import InputError
from experiments.search.aims import Aim, Tried
from experiments.sweeps.points import value_at
from experiments.sweeps.spec import Range, Value

Evaluate = Callable[[list[dict[str, Value]]], Sequence[Tried] | None]
"""Takes points; what was found of each, in order, or None if it was stopped."""


def search(
    axes: Mapping[str, Sequence[Value] | Range], aim: Aim, samples: int, batch: int, seed: int, evaluate: Evaluate
) -> list[Tried] | None:
    """Try so many points, ``batch`` at a time; all of them, in order, or None if ``evaluate`` was stopped."""
    optuna = _optuna()
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        direction="minimize" if aim.lowest else "maximize",
    )
    tried: list[Tried] = []
    while len(tried) < samples:
        trials = [study.ask() for _ in range(min(batch, samples - len(tried)))]
        found = evaluate([_point(trial, axes) for trial in trials])
        if found is None:
            return None
        for trial, one in zip(trials, found, strict=True):
            _tell(optuna, study, trial, aim, one)
        tried += found
    return tried


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("tune: optuna is not installed; pip install 'allocsim[search]'") from None
    if int(optuna.__version__.partition(".")[0]) < 5:
        raise InputError(f"tune: optuna {optuna.__version__} is too old; pip install 'allocsim[search]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _point(trial: Any, axes: Mapping[str, Sequence[Value] | Range]) -> dict[str, Value]:
    """The settings that a trial stands for: of a range a place within it, of a list one of its values."""
    found: dict[str, Value] = {}
    for key, axis in axes.items():
        if isinstance(axis, Range):
            found[key] = value_at(axis, trial.suggest_float(key, 0.0, 1.0))
        else:
            found[key] = axis[trial.suggest_categorical(key, list(range(len(axis))))]
    return found


def _tell(optuna: Any, study: Any, trial: Any, aim: Aim, one: Tried) -> None:
    if not one.figures:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    for number, violation in enumerate(aim.violations(one.figures)):
        trial.set_constraint(str(number), violation)
    study.tell(trial, one.figures[0])
