"""Worlds whose scheduler costs nothing unless a test says so, and what every test of them asks at the end."""

from dataclasses import replace

from sim.costs import Price
from sim.go.goroutine import Goroutine
from sim.go.world import World
from tests.go.prices import made_up_prices, with_wakes

SCHEDULER = ("goroutine_new", "goroutine_reused", "goroutine_exit", "switch", "steal", "wake_p", "os_switch", "preempt_signal")


def new_world(nprocs=1, *, version="go1.27", cpus=None, seed=1, facts=None, futex_wake=0, **steps):
    """A world with made-up prices; ``steps``: those of the scheduler in picoseconds; ``futex_wake``: that of locks."""
    prices = made_up_prices(version)
    given = dict.fromkeys(SCHEDULER, 0) | steps
    prices = replace(
        prices,
        steps=dict(prices.steps) | {name: Price(price) for name, price in given.items()},
        lock=with_wakes(prices.lock, futex_wake),
    )
    return World(facts or version, nprocs, prices, seed, cpus=cpus, gogc=-1)


def tokens(world, n):
    """Goroutines that are only moved about."""

    def never(g):
        yield

    return [Goroutine(world, f"g{i}", never, ()) for i in range(n)]


def adds_up(world):
    """Each P's picoseconds are the time, and none is negative but what it ran ahead."""
    for p in world.sched.procs:
        times = p.times()
        assert sum(times.values()) == world.now, (p.index, times)
        assert all(time >= 0 for kind, time in times.items() if kind != "ahead"), (p.index, times)


def finish(world, *events):
    """Run to the end of some goroutines; the sums must hold."""
    world.run(until=world.env.all_of(events))
    adds_up(world)
