"""The engine against closed forms. Tolerances come from standard errors of batch means, never from taste."""

import numpy as np
import pytest
import simpy
from scipy import stats

from sim.costs import LockPrices
from sim.engine.clock import LOCK, RUN, after, priority
from sim.engine.lock import LockOrder, TimedLock
from sim.engine.rng import Stream
from sim.units import NS

FREE = LockPrices(**dict.fromkeys(LockPrices.__slots__, 0))
SERVICE = 100 * NS
CUSTOMERS = 30_000
BATCHES = 30
WARMUP = 3  # batches


def lock_as_queue(load, exponential):
    """Poisson arrivals at a fifo lock held for 100 ns (on average): the lock, and per customer its wait and what it
    found on arrival."""
    env = simpy.Environment()
    lock = TimedLock(env, "server", 1, "fifo", FREE, LockOrder())
    arrivals, services = Stream(11, "arrivals"), Stream(11, "services")
    waits, found = np.zeros(CUSTOMERS), np.zeros(CUSTOMERS)
    gap = round(SERVICE / load)

    def customer(i, owner, service):
        start = env.now
        yield from lock.acquire(owner, start)
        waits[i] = env.now - start
        yield after(env, service, priority(RUN, owner))
        lock.release(owner, env.now)

    def source():
        for i in range(CUSTOMERS):
            yield after(env, arrivals.exponential(gap), priority(LOCK, 0))
            found[i] = lock.waiters + (lock.holder is not None)
            env.process(customer(i, i % 4096, services.exponential(SERVICE) if exponential else SERVICE))

    env.process(source())
    env.run()
    return lock, waits, found


def batch_means(values):
    """Mean and its standard error, from means of batches long against the queue's memory."""
    means = values.reshape(BATCHES, -1).mean(axis=1)[WARMUP:]
    return means.mean(), means.std(ddof=1) / len(means) ** 0.5


@pytest.mark.parametrize("exponential", [False, True], ids=["M/D/1", "M/M/1"])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_fifo_lock_is_a_single_server_queue(load, exponential):
    lock, waits, found = lock_as_queue(load, exponential)
    variation = 1 if exponential else 0  # squared coefficient of the service times
    expected = load / (1 - load) * (1 + variation) / 2 * SERVICE  # Pollaczek-Khinchine
    mean, error = batch_means(waits)
    assert error < 0.08 * expected  # narrow enough to tell M/D/1 from M/M/1, and load 0.8 from 0.75
    assert abs(mean - expected) < 4 * error
    # Poisson arrivals see time averages: the share that finds the lock held is the load,
    # and the number found is Little's law's arrival rate * (wait + service)
    share, error = batch_means((found > 0).astype(float))
    assert abs(share - load) < 4 * error
    number, error = batch_means(found)
    assert abs(number - (load * expected / SERVICE + load)) < 4 * error
    assert lock.waits == (found > 0).sum()
    assert lock.total_wait == waits.sum()
    assert lock.acquisitions == lock.releases == CUSTOMERS


def test_wait_of_m_m_1_is_exponential_beyond_zero():
    """P(wait > t) = load * exp(-(1 - load) t / service): every 50th customer, so that they hardly know each other."""
    load = 0.5
    _, waits, _ = lock_as_queue(load, exponential=True)
    some = waits[1000::50]
    some = some[some > 0] / SERVICE * (1 - load)
    assert len(some) > 200
    assert stats.kstest(some, "expon").pvalue > 0.01
