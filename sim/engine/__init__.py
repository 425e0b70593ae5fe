"""The engine: time, locks, waking and randomness. It knows SimPy and nothing of memory.

Files: ``clock`` (integer picoseconds, tie order), ``lock`` (timed locks, lock ranks, park and wake), ``rng`` (named
random streams). SimPy is imported here and nowhere else in ``sim``, numba only by ``rng``.
"""
