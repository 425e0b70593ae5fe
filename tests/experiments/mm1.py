"""An M/M/1 queue, many runs at once, and what is known of it. Service takes 1 on average; ``load`` arrive meanwhile."""

import numpy as np
from scipy.stats import nbinom


def waits(rng, runs, customers, load, start=None):
    """Waiting times, runs x customers: Lindley's recursion, unrolled.

    ``start``: what the first customer finds to wait; None draws it from the steady state, so that all of it is steady.
    """
    steps = rng.exponential(1.0, (runs, customers - 1))
    steps -= rng.exponential(1 / load, (runs, customers - 1))
    return walk(steps, steady(rng, runs, load) if start is None else np.full(runs, float(start)))


def walk(steps, first):
    """Waits that begin at ``first`` and change by these steps, but never below 0."""
    heights = np.concatenate([first[:, None], steps], axis=1).cumsum(axis=1)
    return heights - np.minimum(np.minimum.accumulate(heights, axis=1), 0)


def steady(rng, runs, load):
    """Waits of the steady state: none with probability 1 - load, else exponential."""
    return np.where(rng.random(runs) < load, rng.exponential(1 / (1 - load), runs), 0.0)


def mean_wait(load):
    """Mean wait of the steady state."""
    return load / (1 - load)


def mean_of_first(customers, load):
    """Mean of the first customers' waits from an empty queue, by Spitzer's identity.

    The n-th (from 0) waits the sum over k of E max(S_k, 0) / k on average, S_k the sum of k services less k gaps. As both
    are Poisson processes, k gaps pass while J services end, J negative binomial; k - J are left, each 1.
    """
    positive = []
    for k in range(1, customers):
        ended = np.arange(k)
        positive.append((nbinom.pmf(ended, k, load / (1 + load)) * (k - ended)).sum() / k)
    return np.concatenate([[0.0], np.cumsum(positive)]).mean()


def sojourn_quantile(q, load):
    """Quantile of the time from arrival to departure, which is exponential."""
    return -np.log(1 - q) / (1 - load)
