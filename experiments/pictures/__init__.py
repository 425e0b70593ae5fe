"""Pictures of stored results and sweeps, and reports made of them; never of live objects.

    metrics     figures of a run by name, short names of the usual ones, and what is near a wrong one
    points      a sweep's points with estimates and intervals of such figures; curves of them over an axis
    tails       complementary distributions of latency, and which causes they are made of
    heap        the live heap over time with goals, triggers and cycles
    pareto      points that no other beats
    canvas      how figures look and are written: the same bytes each time
    of_runs     figures of runs
    of_sweep    figures of a sweep
    page        what every report is: one HTML file, without anything from elsewhere
    report_run, report_sweep    reports

Only canvas, of_runs and of_sweep know matplotlib (extra ``[plot]``), and import it when they draw.
"""

from experiments.pictures.points import Curve, curves

__all__ = ["Curve", "curves"]
