"""Made-up prices for tests: every one different, some varying, so that a mix-up shows."""

from dataclasses import replace

from sim.costs import STEPS, HeapPrices, LockPrices, MarkPrices, Price, Prices
from sim.units import NS


def _varying(mean):
    """A price whose 1024 values rise around a mean."""
    return Price(mean, tuple(mean // 2 + mean * i // 1023 for i in range(1024)))


def made_up_prices(version="go1.27", cpus=2):
    """Prices of the order of the real ones."""
    steps = {name: Price((50 + 7 * i) * NS) for i, name in enumerate(STEPS)}
    steps |= {"tiny": Price(6 * NS), "first_touch": _varying(1900 * NS), "huge_touch": Price(175_000 * NS)}
    steps |= {"grow": _varying(10_000 * NS), "page_cache_refill": _varying(300 * NS), "page_level": Price(3 * NS)}
    return Prices(
        machine="made up",
        version=version,
        cpus=cpus,
        fast=tuple(8 * NS + 100 * i for i in range(136)),
        heaps=[
            HeapPrices(
                procs=1,
                nbytes=256 << 20,
                zero=tuple(1 * NS + 30 * i for i in range(136)),
                hit=tuple(Price(8_500 + 115 * i) for i in range(136)),
                hit_some=tuple(Price(8_300 + 110 * i) for i in range(136)),
                hit_few=tuple(Price(8_100 + 105 * i) for i in range(136)),
                marking_next=tuple(Price(9_200 + 130 * i) for i in range(136)),
                marking=tuple(Price(9_500 + 140 * i) for i in range(136)),
                refill_partial=tuple(Price(60 * NS + 900 * i) for i in range(136)),
            )
        ],
        refill_fresh=tuple(_varying(120 * NS + 1000 * i) for i in range(136)),
        large_fresh=(1_100, 1_000),
        large_zero=(48_000, 47_000),
        sweep_kept=tuple(40 * NS + 100 * i for i in range(136)),
        sweep_freed=tuple(190 * NS + 100 * i for i in range(136)),
        mark={
            "tree": [MarkPrices(procs=1, nbytes=256 << 20, scan_object=12 * NS, noscan_object=8 * NS, small_byte=16_000, large_byte=410_000, middle_object=12 * NS, middle_byte=410_000)],
            "array-shuffled": [MarkPrices(procs=1, nbytes=256 << 20, scan_object=22 * NS, noscan_object=8 * NS, small_byte=16_000, large_byte=410_000, middle_object=22 * NS, middle_byte=410_000)],
        },
        stack_copy=(35_000, 39_000, 47_000),
        steps=steps,
        lock=LockPrices(
            acquire=8 * NS,
            release=6 * NS,
            procyield=500 * NS,
            osyield=400 * NS,
            futex_sleep=900 * NS,
            futex_wake=1200 * NS,
            wake_latency=5000 * NS,
            handoff=100 * NS,
            signal_latency=2000 * NS,
            signal_1ms=15000 * NS,
            futex_wake_20us=1200 * NS,
            wake_latency_20us=5000 * NS,
            futex_wake_1ms=1200 * NS,
            wake_latency_1ms=5000 * NS,
            futex_wake_10ms=1200 * NS,
            wake_latency_10ms=5000 * NS,
        ),
    )


def with_wakes(lock, call):
    """These prices, but that waking a thread takes so many picoseconds, however long it slept."""
    return replace(lock, futex_wake=call, futex_wake_20us=call, futex_wake_1ms=call, futex_wake_10ms=call)
