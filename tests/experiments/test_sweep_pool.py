"""Batches and deaths of workers, with a crew that a test moves by hand."""

from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from experiments.errors import InputError
from experiments.sweeps import pool
from experiments.sweeps.pool import Given, Work
from experiments.sweeps.record import decode
from experiments.sweeps.work import Done, Task


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(pool, "_LOOK", 0.001)


class Fake:
    """A crew whose batches are carried out when the sweep looks at them, the oldest first.

    A batch with a run in ``deadly`` breaks the pool, and everything in flight with it. Every run takes ``seconds``.
    """

    def __init__(self, workers=2, seconds=0.1, deadly=(), error=None):
        self.count, self.seconds, self.deadly, self.error = workers, seconds, set(deadly), error
        self.flying, self.batches, self.most, self.broken, self.replaced = [], [], 0, False, 0

    def workers(self):
        return self.count

    def submit(self, code, tasks):
        future = Future()
        self.flying.append((future, [task.key for task in tasks]))
        self.batches.append([task.key for task in tasks])
        self.most = max(self.most, len(self.flying))
        if len(self.flying) == 2 * self.count:
            self.work()
        return future

    def work(self):
        """Carry out the oldest batch."""
        if not self.flying:
            return
        future, keys = self.flying.pop(0)
        if self.deadly & set(keys):
            for one in (future, *(other for other, _ in self.flying)):
                one.set_exception(BrokenProcessPool("died"))
            self.flying.clear()
        elif self.error is not None and self.error(keys) is not None:
            future.set_exception(self.error(keys))
        else:
            future.set_result([Done(key, b"", False, self.seconds) for key in keys])

    def replace(self):
        self.replaced += 1


def made(crew, count=40, stop=lambda: False, first_alone=False):
    """What each run came to: "" if it was made, else its error; whether all were."""
    found = {}

    def keep(done):
        assert done.key not in found
        found[done.key] = decode(done.record).error if done.failed else ""

    work = Work("code", [Task(str(number), None) for number in range(count)], crew, keep, first_alone)
    whole = work.run(stop, crew.work)
    return found, whole


def test_batches_grow_until_they_last_half_a_second():
    crew = Fake(seconds=0.125)
    found, whole = made(crew)
    assert whole
    assert found == {str(number): "" for number in range(40)}
    sizes = [len(batch) for batch in crew.batches]
    assert sizes[:4] == [1, 1, 1, 1]  # nothing is known yet
    assert max(sizes) == 4
    assert sizes.count(4) >= 6
    assert crew.most == 4  # two for each worker


def test_long_runs_go_one_by_one_and_few_ones_are_shared_out():
    crew = Fake(seconds=3)
    made(crew)
    assert {len(batch) for batch in crew.batches} == {1}
    crew = Fake(seconds=0.001)
    made(crew, 30)
    assert max(map(len, crew.batches)) <= 15


def test_one_worker_compiles_for_all():
    crew = Fake()
    flying = []
    work = crew.work

    def look():
        flying.append(len(crew.flying))
        work()

    crew.work = look
    assert made(crew, first_alone=True)[1]
    assert flying[0] == 1
    assert max(flying) > 1


def test_runs_that_were_with_a_dying_worker_are_made_again():
    crew = Fake()
    count = 0

    def error(keys):
        nonlocal count
        count += 1
        if count == 7:
            crew.deadly = {keys[0]}

    crew.error = error
    work = crew.work

    def once():
        work()
        crew.deadly = set()

    crew.work = once
    found, whole = made(crew)
    assert whole
    assert set(found.values()) == {""}
    assert len(found) == 40


def test_a_run_that_kills_every_worker_fails_and_no_other_does():
    crew = Fake(deadly={"11"})
    found, whole = made(crew)
    assert whole
    assert len(found) == 40
    assert {key for key, error in found.items() if error} == {"11"}
    assert found["11"].startswith("3 workers died of it")
    assert [batch for batch in crew.batches if "11" in batch][-1] == ["11"]  # alone at last
    assert crew.replaced == 3


def test_a_batch_that_an_executor_refuses_is_taken_apart():
    crew = Fake(error=lambda keys: RuntimeError("lost it") if "30" in keys else None)
    found, _ = made(crew)
    assert {key: error for key, error in found.items() if error} == {"30": "RuntimeError: lost it"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CancelledError(), "the executor went away"),
        (ImportError("no experiments"), "a worker cannot import allocsim"),
        (InputError("a worker has allocsim 2"), "a worker has allocsim 2"),
    ],
)
def test_what_ends_a_sweep_is_one_line(error, said):
    with pytest.raises(InputError, match=said):
        made(Fake(error=lambda keys: error))


def test_an_executor_of_the_users_is_not_replaced():
    class Broken:
        def submit(self, *arguments):
            raise BrokenProcessPool("died")

    with pytest.raises(InputError, match="the executor broke"):
        Work("code", [Task("1", None)], Given(Broken(), lambda: 1), print).run(lambda: False, lambda: None)


def test_stopped_what_was_made_is_kept_and_nothing_more_is_begun():
    crew = Fake()
    asked = iter([False] * 6 + [True])
    found, whole = made(crew, stop=lambda: next(asked))
    assert not whole
    assert 5 <= len(found) < 40
    begun = sum(map(len, crew.batches))
    assert begun < 40
