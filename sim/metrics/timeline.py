"""What happened when: slices of time on tracks and counters over time, recorded in flat columns for a viewer.

A track is a line of the picture; two slices of one track are apart, or one lies within the other. Slices are
recorded whole (`Timeline.slice`) or as they begin and end; times are integer picoseconds, in any order. A counter is
a value that holds until the next sample.

Off is None: whoever may record holds ``Timeline | None`` and asks ``if timeline is not None``, which is all it costs.
On, a slice costs some 40 bytes and about a microsecond. A timeline takes ``room`` slices and samples; what comes later
is counted in ``dropped`` and left out, so that a long run cannot fill the memory.

Invariants: an end has a begin and is not before it; slices of a track nest (`nested` throws where they do not).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sim.metrics.cycles import Cycle
from sim.units import throw

Args = Mapping[str, float | str | bool]
ROOM = 1_000_000
_OPEN = -1  # end of a slice that has not ended
_DROPPED = -1  # row of a slice that found no room


@dataclass(frozen=True, slots=True)
class Track:
    """A line of the picture. ``parent``: the track it belongs below, or none. ``unit``: a counter's, else None."""

    name: str
    parent: int | None
    unit: str | None


class Timeline:
    """Slices and samples in columns; a row each.

    ``begin``, ``end``: picoseconds; ``track``: index in ``tracks``; ``name``, ``category``: index in ``names``; ``args``
    by row. Samples: ``sample_time``, ``sample_track``, ``sample_value``.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.dropped = 0
        self.tracks: list[Track] = []
        self.names: list[str] = []
        self.begins, self.ends = array("q"), array("q")
        self.slice_tracks, self.slice_names, self.categories = array("i"), array("i"), array("i")
        self.args: dict[int, Args] = {}
        self.sample_times, self.sample_values, self.sample_tracks = array("q"), array("q"), array("i")
        self._ids: dict[str, int] = {}
        self._open: list[list[int]] = []  # rows of open slices by track, the innermost last

    def track(self, name: str, parent: int | None = None) -> int:
        """A new track for slices, below the others of its parent."""
        return self._add_track(Track(name, parent, None))

    def counter(self, name: str, unit: str, parent: int | None = None) -> int:
        """A new track for samples of a value in ``unit``."""
        return self._add_track(Track(name, parent, unit))

    def _add_track(self, track: Track) -> int:
        if track.parent is not None and not 0 <= track.parent < len(self.tracks):
            throw(f"track {track.name!r} belongs to track {track.parent} of {len(self.tracks)}")
        self.tracks.append(track)
        self._open.append([])
        return len(self.tracks) - 1

    def _id(self, text: str) -> int:
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = len(self.names)
            self.names.append(text)
        return found

    def _has_room(self) -> bool:
        if len(self.begins) + len(self.sample_times) < self.room:
            return True
        self.dropped += 1
        return False

    def slice(
        self, track: int, begin: int, end: int, name: str, category: str = "", args: Args | None = None
    ) -> None:
        """Something that took from ``begin`` to ``end``."""
        if end < begin:
            throw(f"slice {name!r} of track {self.tracks[track].name!r} ends at {end}, before its begin at {begin}")
        if self._has_room():
            self._add_slice(track, begin, end, name, category, args)

    def _add_slice(self, track: int, begin: int, end: int, name: str, category: str, args: Args | None) -> int:
        if self.tracks[track].unit is not None:
            throw(f"a slice on counter {self.tracks[track].name!r}")
        if begin < 0:
            throw(f"slice {name!r} begins at {begin}")
        row = len(self.begins)
        self.begins.append(begin)
        self.ends.append(end)
        self.slice_tracks.append(track)
        self.slice_names.append(self._id(name))
        self.categories.append(self._id(category))
        if args:
            self.args[row] = args
        return row

    def begin(self, track: int, time: int, name: str, category: str = "", args: Args | None = None) -> None:
        """Something begins on a track, within what is going on there."""
        row = self._add_slice(track, time, _OPEN, name, category, args) if self._has_room() else _DROPPED
        self._open[track].append(row)

    def end(self, track: int, time: int) -> None:
        """What began last on a track and has not ended ends."""
        if not self._open[track]:
            throw(f"an end at {time} on track {self.tracks[track].name!r}, where nothing has begun")
        row = self._open[track].pop()
        if row == _DROPPED:
            return
        if time < self.begins[row]:
            throw(f"slice {self._name(row)} ends at {time}, before its begin at {self.begins[row]}")
        self.ends[row] = time

    def finish(self, time: int) -> None:
        """The run is over: what is going on ends now."""
        for track, rows in enumerate(self._open):
            while rows:
                self.end(track, time)

    def sample(self, counter: int, time: int, value: int) -> None:
        """The value of a counter from now on, an integer below 2**63."""
        if self.tracks[counter].unit is None:
            throw(f"a sample of track {self.tracks[counter].name!r}, which is no counter")
        if time < 0:
            throw(f"a sample of {self.tracks[counter].name!r} at {time}")
        if self._has_room():
            self.sample_times.append(time)
            self.sample_tracks.append(counter)
            self.sample_values.append(value)

    def by_track(self) -> list[tuple[int, list[int]]]:
        """Each track that has slices, and their rows as they begin; of those that begin together the longest first."""
        begins, ends, tracks = (np.array(column, np.int64) for column in (self.begins, self.ends, self.slice_tracks))
        order = np.lexsort((-ends, begins, tracks))  # stable: of the same extent, the one recorded first
        borders = np.flatnonzero(np.diff(tracks[order])) + 1
        return [(self.slice_tracks[rows[0]], rows.tolist()) for rows in np.split(order, borders) if len(rows)]

    def nested(self, track: int, rows: list[int]) -> Iterator[tuple[int, int]]:
        """Rows that `by_track` gave, each with its depth; throws where a slice is open or two overlap.

        Of slices with the same begin and end, the one recorded first is outside; an empty slice at another's end
        follows it.
        """
        around: list[int] = []
        for row in rows:
            if self.ends[row] == _OPEN:
                throw(f"slice {self._name(row)} of track {self.tracks[track].name!r} never ends")
            while around and self.ends[around[-1]] <= self.begins[row]:
                around.pop()
            if around and self.ends[row] > self.ends[around[-1]]:
                both = f"slices {self._name(around[-1])} and {self._name(row)}"
                throw(f"{both} of track {self.tracks[track].name!r} overlap")
            yield row, len(around)
            around.append(row)

    def _name(self, row: int) -> str:
        return repr(self.names[self.slice_names[row]])


@dataclass(frozen=True, slots=True)
class GoTracks:
    """The tracks of a simulated Go program: indexes in a timeline."""

    procs: tuple[int, ...]  # by P: what it runs
    gc: int  # phases of cycles
    scavenger: int
    locks: int  # a track for each lock belongs below it: holds of one never overlap
    heap_live: int  # counters, bytes
    heap_goal: int
    heap_trigger: int


def go_tracks(timeline: Timeline, nprocs: int) -> GoTracks:
    """Tracks and counters for a program on so many Ps."""
    gc = timeline.track("GC")
    counters = [timeline.counter(f"heap {name}", "bytes") for name in ("live", "goal", "trigger")]
    procs = tuple(timeline.track(f"P{p}") for p in range(nprocs))
    return GoTracks(procs, gc, timeline.track("scavenger"), timeline.track("locks"), *counters)


def add_cycle(timeline: Timeline, tracks: GoTracks, cycle: Cycle) -> None:
    """The phases of a cycle, its sweep if that is done, and the heap at their borders."""

    def phase(begin: int, end: int, name: str, args: Args | None = None) -> None:
        timeline.slice(tracks.gc, begin, end, name, "gc", args)

    args: Args = {"kind": cycle.kind, "heap0": cycle.heap0, "heap1": cycle.heap1, "heap2": cycle.heap2}
    phase(cycle.t_sweep_term, cycle.t_end, f"gc {cycle.number}", args)
    phase(cycle.t_sweep_term, cycle.t_mark, "sweep termination", {"stopping_ps": cycle.stop_sweep_term})
    marking = {"assist_ps": cycle.assist_time, "dedicated_ps": cycle.dedicated_time}
    marking |= {"fractional_ps": cycle.fractional_time, "idle_ps": cycle.idle_time, "scan_work": cycle.scan_work}
    phase(cycle.t_mark, cycle.t_mark_term, "mark", marking)
    phase(cycle.t_mark_term, cycle.t_end, "mark termination", {"stopping_ps": cycle.stop_mark_term})
    swept = cycle.swept
    if swept is not None:
        freed = {"spans": swept.spans_swept, "spans_freed": swept.spans_freed, "objects_freed": swept.objects_freed}
        phase(cycle.t_end, swept.t_done, "sweep", freed)
        timeline.sample(tracks.heap_live, swept.t_done, swept.heap_live)
    timeline.sample(tracks.heap_goal, cycle.t_sweep_term, cycle.heap_goal_start)
    timeline.sample(tracks.heap_trigger, cycle.t_sweep_term, cycle.trigger)
    timeline.sample(tracks.heap_live, cycle.t_sweep_term, cycle.heap0)
    timeline.sample(tracks.heap_live, cycle.t_mark_term, cycle.heap1)
    timeline.sample(tracks.heap_live, cycle.t_end, cycle.heap2)
