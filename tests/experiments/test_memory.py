"""What a simulated heap takes of our own memory: so much a span, whatever has died in it."""

import subprocess
import sys

import pytest

from sim.jit import PLAIN

BYTES_A_SPAN = 400  # 144 at 2.8 million spans; tables that double hold up to twice what is used for a moment

# The peak of a fresh process after a smaller and after a larger heap: what both have in common cancels out.
PROGRAM = """
import gc
from pathlib import Path
from experiments.bench import our_world
for mallocs in (100_000, 3_000_000, 12_000_000):
    world, load = our_world(8, mallocs)
    world.run(until=load.done)
    # not getrusage's maxrss: a process inherits that of the one that started it
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(world.heap.fields.nspans), int(peak.split()[1]) << 10)
    del world, load
    gc.collect()
"""


@pytest.mark.slow
@pytest.mark.skipif(PLAIN or sys.platform != "linux", reason="millions of mallocs; reads /proc")
def test_a_heap_of_20_gib_fits_into_2_gib():
    """100 million mallocs of ten sizes, GC off, are 2.84 million spans, 21.7 GiB: the run itself is the same, longer."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=600)
    (_, _), (few, before), (many, after) = [map(int, line.split()) for line in done.stdout.splitlines()]
    assert many > 300_000
    slope = (after - before) / (many - few)
    assert slope < BYTES_A_SPAN
    assert before + slope * 2_840_000 < 2 << 30
