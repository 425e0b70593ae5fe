"""What a run showed, in the formats that other tools read. Each module writes one, from `exported.Exported` alone.

    benchmark    Go benchmark text, for benchstat
    hdr          HdrHistogram percentile distributions (.hgrm) and interval logs (.hlog)
    openmetrics  an OpenMetrics snapshot, for Prometheus and what reads its text
    table        comma-separated values, a row per run

All give text; a timeline for Perfetto is a file of the result already (sim/metrics/perfetto.py).
"""
