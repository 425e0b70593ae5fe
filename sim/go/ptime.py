"""What a P's time goes to: every picosecond of it is of one kind (proc.py:Proc.times).

Outside the pump it is one of `KINDS`; in it the pump knows it as malloc, compute, first touch or assist.
"""

from __future__ import annotations

from sim.go.mgcpacer import DEDICATED, FRACTIONAL
from sim.go.mgcpacer import IDLE as IDLE_WORKER

KINDS = (
    "idle",
    "lock",  # waiting for a runtime lock, and holding it
    "stopped",  # stopped with the world, or stopping it
    "no_cpu",
    "scheduling",
    "gc_dedicated",
    "gc_fractional",
    "gc_idle",
    "system",  # other work of the runtime: sweeping in the background, flushing a cache, a collection's steps
    "scavenging",
    "stacks",  # stacks given to goroutines, grown and freed
)
IDLE, LOCKED, STOPPED, NO_CPU, SCHEDULING, GC_DEDICATED, GC_FRACTIONAL, GC_IDLE, SYSTEM, SCAVENGING, STACK_TIME = range(11)
PUMPED = len(KINDS)
OF_WORKER = {DEDICATED: GC_DEDICATED, FRACTIONAL: GC_FRACTIONAL, IDLE_WORKER: GC_IDLE}
