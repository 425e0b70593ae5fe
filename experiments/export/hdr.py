"""HdrHistogram's text formats: percentile distributions (.hgrm) and interval logs (.hlog).

Our buckets are HdrHistogram's own, of three significant digits from 1 up, so that counts go over one by one and nothing
is rounded. Written anew after the Java implementation's formats, version 1.2 of the log and V2 of the encoding (a header and
counts as ZigZag LEB128, runs of zeros as negative counts; zlib; base64). The ``hdrhistogram`` package of PyPI could write
them as well: its log writer cuts the largest value of an interval to whole units and fails at a start time; it reads ours
in the tests.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping

from experiments.export.exported import Histogram, total

_DIGITS = 3
_LOWEST, _HIGHEST = 1, (1 << 53) - 1  # picoseconds; sim/metrics/histogram.py
_SUB_BUCKETS = 2048
_BUCKETS = 43  # of 2048 values each, the next of twice the width
_PAYLOAD_COOKIE, _COMPRESSED_COOKIE = 0x1C849313, 0x1C849314
_TICKS = 5  # lines for each half of the distance to 100 %
_PS_PER_NS = 1000
_PS_PER_MS = 10**9


def percentile_distribution(histogram: Histogram) -> Iterator[str]:
    """The lines of a .hgrm file, values in nanoseconds. (AbstractHistogram.outputPercentileDistribution)

    Values are the tops of their buckets; mean and deviation take the middle. ValueError of nothing counted.
    """
    count = total(histogram)
    if not count:
        raise ValueError("nothing was counted; a distribution needs values")
    yield f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}"
    yield ""
    for value, level, below in _levels(histogram, count):
        rest = f" {1 / (1 - level / 100):14.2f}" if level < 100 else ""
        yield f"{value / _PS_PER_NS:12.3f} {level / 100:2.12f} {below:10d}{rest}"
    middles = [((low + high + 1) // 2, n) for low, high, n in histogram]
    mean = sum(value * n for value, n in middles) / count
    deviation = math.sqrt(sum((value - mean) ** 2 * n for value, n in middles) / count)
    yield f"#[Mean    = {mean / _PS_PER_NS:12.3f}, StdDeviation   = {deviation / _PS_PER_NS:12.3f}]"
    yield f"#[Max     = {histogram[-1][1] / _PS_PER_NS:12.3f}, Total count    = {count:12d}]"
    yield f"#[Buckets = {_BUCKETS:12d}, SubBuckets     = {_SUB_BUCKETS:12d}]"


def _levels(histogram: Histogram, count: int) -> Iterator[tuple[int, float, int]]:
    """Value, percentile and count up to there, five to each half of what is left to 100 %, then 100. (PercentileIterator)"""
    level, below = 0.0, 0
    for _, high, n in histogram:
        below += n
        while 100.0 * below / count >= level:
            yield high, level, below
            level = _after(level)
            if below == count:  # the last bucket is told once, then as 100 %
                break
    yield histogram[-1][1], 100.0, count


def _after(level: float) -> float:
    halves = int(math.log2(100.0 / (100.0 - level))) + 1
    return level + 100.0 / (_TICKS * 2**halves)


def interval_log(runs: Iterable[tuple[Mapping[str, Histogram], float]]) -> Iterator[str]:
    """The lines of a .hlog file of runs: histograms by cause, and simulated seconds. An interval for each run and cause.

    Intervals are tagged by cause, and follow each other as the runs do, from second 0. Values are picoseconds
    (``-outputValueUnitRatio 1000`` shows nanoseconds); the largest of an interval is in milliseconds, as is usual.
    """
    yield "#[Histogram log format version 1.2]"
    yield "#[Simulated by allocsim: values in picoseconds, a tag for each cause, an interval for each run]"
    yield "#[StartTime: 0.000 (seconds since epoch), simulated time]"
    yield "#[BaseTime: 0.000 (seconds since epoch)]"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"'
    start = 0.0
    for histograms, seconds in runs:
        for cause, histogram in histograms.items():
            if histogram:
                largest = histogram[-1][1] / _PS_PER_MS
                yield f"Tag={cause},{start:.9f},{seconds:.9f},{largest:.9f},{encode(histogram)}"
        start += seconds


def encode(histogram: Histogram) -> str:
    """A histogram as V2 compressed base64. (AbstractHistogram.encodeIntoCompressedByteBuffer)"""
    counts = b"".join(_zigzag(one) for one in _runs(histogram))
    header = struct.pack(">Iiiiqqd", _PAYLOAD_COOKIE, len(counts), 0, _DIGITS, _LOWEST, _HIGHEST, 1.0)
    packed = zlib.compress(header + counts)
    return base64.b64encode(struct.pack(">Ii", _COMPRESSED_COOKIE, len(packed)) + packed).decode("ascii")


def _runs(histogram: Histogram) -> Iterator[int]:
    """Counts from the first bucket on, and between them how many are empty, negative."""
    from sim.metrics.histogram import bucket_of_int

    after = 0
    for low, _, count in histogram:
        place = bucket_of_int(low)
        if place < after:
            raise ValueError(
                f"two buckets are one of HdrHistogram, at {low} ps; cut them as sim/metrics/histogram.py does"
            )
        if place > after:
            yield after - place
        yield count
        after = place + 1


def _zigzag(value: int) -> bytes:
    """A signed number, small ones short: seven bits a byte. (ZigZagEncoding.putLong, which differs from 2**55 on)"""
    rest = (value << 1) ^ (value >> 63)
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)
