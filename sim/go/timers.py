"""Sleeping goroutines: whose timers they are, and who looks at them (mirrors time.go, proc.go and netpoll_epoll.go).

A timer is that of the P whose goroutine went to sleep. This P looks at it whenever it schedules; a P that looks for work
elsewhere looks at those of all. While a P has nothing to do one thread waits for the next timer in epoll, in whole
milliseconds: the rest of less than one is waited for as one, so that a sleep may be a millisecond late. Then that thread
takes an idle P, if there is one, to look. Whoever finds a timer due has its goroutine next.

Left out: sysmon, which starts a thread for a timer that nobody looked at for up to 10 ms, and the system's timer slack.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

import simpy

from sim.engine.clock import WAKE, after, now, priority, wake
from sim.units import MS

if TYPE_CHECKING:
    from sim.go.goroutine import Goroutine
    from sim.go.proc import Proc
    from sim.go.world import World


def poll_time(delay: int) -> int:
    """How long epoll waits for a timer so far ahead, picoseconds. (netpoll)"""
    return 0 if delay <= 0 else max(delay // MS, 1) * MS


class Timers:
    """The timers of a world's Ps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._of: dict[int, list[tuple[int, int, simpy.Event]]] = {}  # by P, a heap: when, which, whose
        self._made = 0
        self._polls: simpy.Event | None = None  # the end of the wait in epoll
        self._polled = 0  # until when that waits

    def sleep(self, g: Goroutine, duration: int) -> simpy.Event:
        """What a goroutine yields to sleep for so long at least, from its own code. (timeSleep)"""
        p = g.p
        assert p is not None, "a goroutine that does not run cannot go to sleep"
        self._made += 1
        event = simpy.Event(self.world.env)
        when = self.world.now + duration
        heappush(self._of.setdefault(p.index, []), (when, self._made, event))
        if self._polls is None:
            self.world.sched.wake_p(p)  # to wait for it
        elif when < self._polled:
            self._wait()  # netpollBreak
        return event

    def run_due(self, p: Proc, everybody: bool = False) -> bool:
        """A P readies who has slept long enough: of its own, or of everybody's; whether there was one. (checkTimers)"""
        ran = False
        for index in sorted(self._of) if everybody else (p.index,):
            heap = self._of.get(index)
            while heap and heap[0][0] <= self.world.now:
                _, _, event = heappop(heap)
                self.world.sched.note_running(p)
                self.world.env.fire(event, self.world.now, None)
                ran = True
        return ran

    def left_idle(self) -> None:
        """A thread has nothing to do: it waits for the next timer, if nobody does. (findRunnable, netpoll)"""
        if self._polls is None:
            self._wait()

    def _wait(self) -> None:
        """Wait in epoll for the next timer, if there is one."""
        first = min((heap[0][0] for heap in self._of.values() if heap), default=None)
        if first is None:
            return
        env = self.world.env
        wait = poll_time(first - now(env))
        self._polled = self.world.now + wait
        self._polls = over = after(env, wait, priority(WAKE, len(self.world.sched.procs)))
        assert over.callbacks is not None
        over.callbacks.append(self._polled_out)

    def _polled_out(self, over: simpy.Event) -> None:
        """The wait is over: the thread goes on with an idle P, or leaves the timer to busy ones."""
        if over is not self._polls:
            return
        self._polls = None
        sched = self.world.sched
        if sched.idle and not sched.stopping:
            p = sched.idle.pop()
            assert p.wakeup is not None
            wake(self.world.env, p.wakeup, p.order, None, self.world.prices.lock.wake_latency)
            p.wakeup = None
