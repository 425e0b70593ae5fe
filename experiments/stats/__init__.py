"""Statistics of simulation output: warm-up, intervals of means, differences and quantiles, and when to stop.

    interval    what every method returns, and the plain t interval over independent replications
    warmup      how much of a run's beginning to delete
    batches     one long run cut into batches
    paired      two configurations under common random numbers
    quantiles   merged histograms, their quantiles and intervals
    stopping    replications until the interval is narrow enough

Numbers in, numbers out: nothing here knows the simulator, a file or the clock on the wall. What cannot be computed raises
ValueError with a line that says why. Units are those of what is given, unless said otherwise. Every method is checked by
coverage on an M/M/1 queue, whose truth is known (tests/experiments/test_stats_coverage.py).
"""
