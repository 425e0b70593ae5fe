"""Runs on a Dask cluster (extra ``[cluster]``): `Client.get_executor` is an executor of concurrent.futures.

Each worker makes one run at a time, whatever its number of threads: `dask worker ADDRESS --nthreads 1 --nworkers N`
uses N CPUs. Workers need the same allocsim, and files that scenarios name (machines, traces) at the same paths. Workers
that die are replaced as the scheduler sees fit; it gives a batch up when a few have died of it, and then its runs are
made one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from experiments.errors import InputError
from experiments.sweeps.pool import Crew, Given

_PATIENCE = 5.0  # seconds for a scheduler to answer, and to have a worker
_EVERY = 2.0  # seconds between countings of workers


@contextmanager
def connected(address: str) -> Iterator[Crew]:
    """The workers of a scheduler; InputError, within seconds, if it cannot be reached or has none."""
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError:
        raise InputError("--scheduler: distributed is not installed; pip install 'allocsim[cluster]'") from None
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is said here, in a line
    try:
        get_address_host_port(address)
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        what = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"{address or repr(address)}: no scheduler answers ({what}); name one that runs, as tcp://host:8786"
        ) from None
    try:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise InputError(f"{address}: has no workers; start one: dask worker {address} --nthreads 1") from None
        yield Given(client.get_executor(), _Counted(client))
    finally:
        client.close(timeout=_PATIENCE)


class _Counted:
    """How many workers a cluster has, which may change while it works."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._due, self._count = 0.0, 1

    def __call__(self) -> int:
        if time.monotonic() >= self._due:
            self._count = len(self._client.nthreads())
            self._due = time.monotonic() + _EVERY
        return self._count
