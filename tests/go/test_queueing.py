"""Ps as the servers of a queue: waiting times of requests of known length against the closed forms of M/M/c and M/D/c.

The scheduler's prices are 0, so that a goroutine waits for a P alone. It is not first come, first served (a P takes a
share of the global queue, thieves take halves), but it never idles with work about and looks at no length: the mean
wait is that of any such order.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from sim.costs import Price
from sim.engine.rng import Stream
from sim.go.world import World
from sim.jit import PLAIN
from sim.units import US
from tests.go.prices import made_up_prices

SERVICE = 100 * US
SCHEDULER = ("goroutine_new", "goroutine_reused", "goroutine_exit", "switch", "steal", "wake_p", "os_switch")


def mean_wait(servers, load, lengths, seed, requests):
    """Mean wait of an open loop in units of the mean service, the first tenth left out."""
    prices = made_up_prices()
    prices = replace(prices, steps=dict(prices.steps) | dict.fromkeys(SCHEDULER, Price(0)))
    world = World("go1.27", servers, prices, seed, gogc=-1)
    arrivals, services = Stream(seed, "arrivals"), Stream(seed, "services")
    served = []

    def request(g, length):
        yield g.compute(length)
        served.append(g)

    def arrive():
        for _ in range(requests):
            yield world.env.timeout(arrivals.exponential(round(SERVICE / (servers * load))))
            length = SERVICE if lengths == "D" else max(1, services.exponential(SERVICE))
            started.append(world.go(request, length))

    started = []
    world.env.process(arrive())
    world.run()
    assert len(served) == requests
    waits = [g.waited for g in started[requests // 10 :]]
    return sum(waits) / len(waits) / SERVICE


def wait_m_m_c(servers, load):
    """Erlang's C formula: the mean wait in units of the mean service."""
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1 - load)
    busy = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    return busy / (servers * (1 - load))


def wait_m_d_c(servers, load):
    """Crommelin: who is there one service later are those that waited now and those that came since; Little's law."""
    size = 400
    come = [math.exp(k * math.log(servers * load) - servers * load - math.lgamma(k + 1)) for k in range(size)]
    there = np.zeros(size)
    there[0] = 1.0
    while True:
        left = np.concatenate([[there[: servers + 1].sum()], there[servers + 1 :]])
        after = np.convolve(left, come)[:size]
        if np.abs(after - there).max() < 1e-13:
            break
        there = after
    queue = sum((n - servers) * p for n, p in enumerate(there) if n > servers)
    return queue / (servers * load)


def test_the_closed_forms_agree_where_both_are_known():
    assert wait_m_m_c(1, 0.8) == pytest.approx(0.8 / 0.2)
    assert wait_m_d_c(1, 0.8) == pytest.approx(0.8 / (2 * 0.2))  # Pollaczek and Khinchine
    assert wait_m_m_c(2, 0.5) == pytest.approx(1 / 3)
    assert 0.5 < wait_m_d_c(8, 0.9) / wait_m_m_c(8, 0.9) < 0.6


@pytest.mark.parametrize(("lengths", "closed"), [("M", wait_m_m_c), ("D", wait_m_d_c)])
@pytest.mark.parametrize(
    ("servers", "load", "requests"), [(1, 0.5, 1000), (1, 0.8, 2500), (4, 0.8, 2500), (8, 0.9, 4000)]
)
def test_requests_wait_as_long_as_theory_says(lengths, closed, servers, load, requests):
    """A run is some hundred services long or more, which is many times what the queue remembers."""
    runs, requests = (4, 400) if PLAIN else (12, requests)
    found = [mean_wait(servers, load, lengths, seed, requests) for seed in range(runs)]
    error = np.std(found, ddof=1) / math.sqrt(runs)
    assert abs(np.mean(found) - closed(servers, load)) <= 3 * error + 1e-9
    assert error < 0.2 * closed(servers, load) or PLAIN
