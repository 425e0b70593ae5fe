"""What the collector did, gathered while it does it: a `Cycle` for each cycle, MemStats' and metrics' figures, a timeline.

The collector tells when its phases begin; everything else is read off the heap's header then. Nothing here decides
anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.go import gccontroller
from sim.go.mstats import GcStats
from sim.go.state import WORK_ASSIST, WORK_SWEEP
from sim.metrics.cycles import Cycle, Swept
from sim.metrics.timeline import GoTracks, Timeline, add_cycle, go_tracks

if TYPE_CHECKING:
    from sim.engine.lock import TimedLock
    from sim.go.world import World

_WORK = {WORK_ASSIST: "assist", WORK_SWEEP: "sweep"}
_WORK_ROOM = 1 << 18  # assists and sweeps that a timeline takes


class GcLog:
    """The record of one world's collections.

    ``cycles``: those that ended, in order; the last one has no sweep yet while that is under way. ``stats``: for
    MemStats and metrics. ``timeline``: None unless asked for.
    """

    def __init__(self, world: World, timeline: Timeline | None) -> None:
        self.world = world
        self.cycles: list[Cycle] = []
        self.stats = GcStats()
        self.timeline = timeline
        self.tracks: GoTracks | None = None
        if timeline is not None:
            self.tracks = go_tracks(timeline, int(world.heap.fields.nprocs))
            world.heap.tables.allocate("work_log", _WORK_ROOM)
        self._open: dict[str, Any] = {}
        self._sweep: dict[str, int] | None = None

    # a cycle

    def begin(self, kind: str, begun: int, stopped: int) -> None:
        """Marking is set up; the world was asked to stop at ``begun`` and stood at ``stopped``. `marking` follows."""
        world, fields = self.world, self.world.heap.fields
        trigger, goal = map(int, self._before)
        self._open = {
            "number": len(self.cycles) + 1,
            "kind": kind,
            "t_sweep_term": begun,
            "stop_sweep_term": stopped - begun,
            "procs": int(fields.nprocs),
            "stw_procs": min(int(fields.nprocs), world.cpus),
            "heap0": self._live,
            "heap_goal_start": goal,
            "trigger": trigger,
            "triggered": max(int(fields.triggered), 0),
            "heap_scan": int(fields.heap_scan),
            "assist_ratio": float(fields.assist_work_per_byte),
            "dedicated_workers": int(fields.dedicated_mark_workers_needed),
            "fractional_goal": float(fields.fractional_utilization_goal),
            "runway": int(fields.runway),
            "cons_mark": float(fields.cons_mark),
            "expected_scan_work": int(fields.last_heap_scan + fields.last_stack_scan + fields.globals_scan),
        }

    def marking(self, time: int) -> None:
        """Marking begins at a time: whoever had something to do has been woken."""
        self._open |= {"t_mark": time, "pause_sweep_term": time - self._open["t_sweep_term"]}

    def before(self) -> None:
        """A cycle is about to stop the world: how large the heap is, and where it should have begun."""
        self._live = int(self.world.heap.fields.heap_live)
        self._before = gccontroller.trigger(self.world.heap.header)

    def terminating(self) -> None:
        """Marking is over, the world stands, nothing has been reset yet."""
        fields = self.world.heap.fields
        self._open |= {
            "heap1": int(fields.heap_live),
            "heap2": int(fields.bytes_marked),
            "assist_time": int(fields.assist_time),
            "dedicated_time": int(fields.dedicated_mark_time),
            "fractional_time": int(fields.fractional_mark_time),
            "idle_time": int(fields.idle_mark_time),
            "heap_goal": int(gccontroller.heap_goal(self.world.heap.header)),
            "heap_scan_work": int(fields.heap_scan_work),
            "stack_scan_work": int(fields.stack_scan_work),
            "globals_scan_work": int(fields.globals_scan_work),
            "stack_scan": int(fields.stack_scan_work),
            "max_stack_scan": int(fields.max_stack_scan),
            "globals_scan": int(fields.globals_scan),
        }

    def end(self, begun: int, stopped: int) -> None:
        """The cycle is over at this instant; the world was asked to stop at ``begun`` and stood at ``stopped``."""
        time, cpu, values = self.world.now, self.stats.cpu, self._open
        values |= {
            "t_mark_term": begun,
            "t_end": time,
            "stop_mark_term": stopped - begun,
            "pause_mark_term": time - begun,
        }
        cpu.accumulate_marking(*(values[f"{name}_time"] for name in ("assist", "dedicated", "fractional", "idle")))
        for name in ("sweep_term", "mark_term"):
            stopping, pause = values[f"stop_{name}"], values[f"pause_{name}"]
            if self.world.heap.facts.cpu_metrics:
                cpu.accumulate_gc_pause_time(stopping, 1)
                cpu.accumulate_gc_pause_time(pause - stopping, values["procs"])
            else:
                cpu.accumulate_gc_pause_time(pause, values["stw_procs"])
        values |= {
            "gc_total_time": cpu.gc_total_time,
            "gc_idle_time": cpu.gc_idle_time,
            "total_time": time * values["procs"],
        }
        cycle = Cycle(**values)
        self.cycles.append(cycle)
        self.stats.add(cycle)
        if self.world.heap.fields.limiter_enabled:
            self.stats.limiter_last_enabled = cycle.number
        self._sweep = self._sweep_counts()

    # its sweep

    def _sweep_counts(self) -> dict[str, int]:
        """What sweeping has done since the program began."""
        fields = self.world.heap.fields
        counts = {"spans_swept": fields.fact_swept, "spans_freed": fields.fact_swept_free}
        counts |= {"objects_freed": fields.fact_freed, "bytes_freed": fields.total_free}
        return {name: int(count) for name, count in counts.items()}

    def swept(self) -> None:
        """Nothing is left to sweep of the last cycle, whoever swept it."""
        if self._sweep is None:
            return
        fields = self.world.heap.fields
        counts: dict[str, Any] = {name: count - self._sweep[name] for name, count in self._sweep_counts().items()}
        swept = Swept(
            t_done=self.world.now,
            heap_live=int(fields.heap_live),
            heap_live_basis=int(fields.sweep_heap_live_basis),
            pages_swept=int(fields.pages_swept),
            pages_per_byte=self._pages_per_byte,
            released_bg=int(fields.scav_released_bg),
            released_eager=int(fields.scav_released_eager),
            heap_released=int(fields.heap_released),
            heap_in_use=int(fields.heap_in_use),
            heap_retained=int(fields.heap_in_use + fields.heap_free),
            **counts,
        )
        fields.scav_released_bg = fields.scav_released_eager = 0
        self.cycles[-1] = self.cycles[-1].with_swept(swept)
        self._sweep = None
        if self.timeline is not None and self.tracks is not None:
            add_cycle(self.timeline, self.tracks, self.cycles[-1])

    def paced(self) -> None:
        """The sweep's pace was set."""
        self._pages_per_byte = float(self.world.heap.fields.sweep_pages_per_byte)

    # the timeline

    def was(self, p: int, begin: int, end: int, name: str) -> None:
        """A P was at something."""
        assert self.timeline is not None and self.tracks is not None
        self.timeline.slice(self.tracks.procs[p], begin, end, name, "p")

    def watch_lock(self, lock: TimedLock) -> None:
        """Have every hold of a lock told."""
        if self.timeline is None or self.tracks is None:
            return
        timeline, track = self.timeline, self.timeline.track(lock.name, self.tracks.locks)
        lock.held = lambda begin, end, owner: timeline.slice(track, begin, end, f"P{owner}", "lock")

    def finish(self) -> Timeline | None:
        """The timeline of a run that is over: what is going on ends now; assists and sweeps within mallocgc are entered."""
        if self.timeline is None or self.tracks is None:
            return None
        for p in self.world.sched.procs:
            p.turn_to(p.kind)
        fields, work = self.world.heap.fields, self.world.heap.arrays["work_log"]
        for line in work[: int(fields.work_used)]:
            begin, length = int(line["time"]), int(line["length"])
            if begin + length <= self.world.now:
                name = _WORK[int(line["kind"])]
                self.timeline.slice(self.tracks.procs[int(line["p"])], begin, begin + length, name, "malloc")
        self.timeline.finish(self.world.now)
        return self.timeline

    # figures

    def gc_stats(self) -> GcStats:
        """MemStats' and metrics' figures as of now."""
        fields, stats = self.world.heap.fields, self.stats
        stats.gc_percent = int(fields.gc_percent)
        stats.memory_limit = int(fields.memory_limit)
        stats.heap_goal = int(gccontroller.heap_goal(self.world.heap.header))
        stats.heap_marked = int(fields.heap_marked)
        stats.heap_scan = int(fields.heap_scan)
        stats.last_stack_scan = int(fields.last_stack_scan)
        stats.globals_scan = int(fields.globals_scan)
        stats.starting_stack_size = int(fields.starting_stack_size)
        stats.cpu.scavenge_assist_time = int(fields.scavenge_assist_time)
        stats.cpu.scavenge_bg_time = int(fields.scavenge_background_time)
        return stats
