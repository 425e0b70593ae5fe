"""How far marking is after so much CPU, for tests that list its parts by themselves."""

import numpy as np
from numba import int64, types, void

from sim.go import mgcmark
from sim.go.state import heap_type
from sim.jit import bare, entry


@entry(void(heap_type, int64, int64, int64, int64))
def pieces(h, work, number, objects, whole):
    mgcmark.set_oblets(bare(h), work, number, objects, whole)


@entry(types.UniTuple(int64, 2)(heap_type, int64))
def arrays_among(h, large):
    return mgcmark.arrays(bare(h), large)


@entry(int64(heap_type, int64))
def work_given(h, cpu):
    return mgcmark.work_by(bare(h), np.int64(2), cpu)


@entry(int64(heap_type, int64))
def cpu_until(h, work):
    return mgcmark.cpu_for(bare(h), work)
