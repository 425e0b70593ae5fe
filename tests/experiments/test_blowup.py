"""Hoard's question: blow-up of private heaps is there, grows as theory says, and TCMalloc's central lists end it."""

import pytest

from experiments import blowup as study
from sim.jit import PLAIN
from sim.tcmalloc.check import check
from sim.tcmalloc.stats import numeric_properties
from sim.units import MIB

pytestmark = pytest.mark.skipif(PLAIN, reason="a million mallocs")


@pytest.fixture(scope="module")
def answer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "OBJECTS", 4000)
        patch.setattr(study, "ROUNDS", 96)
        patch.setattr(study, "THREADS", 12)
        yield study.experiment()


def footprints(answer, program, model):
    return [one.footprint for one in answer.rounds if (one.program, one.model) == (program, model)]


def most_live(answer, model):
    """The most that was ever live in a model's blocks or slots, over both programs."""
    return max(one.live for one in answer.rounds if one.model == model)


def test_private_heaps_of_a_pair_need_all_that_was_ever_allocated(answer):
    """In a straight line: nothing that the other thread freed comes back."""
    sizes = footprints(answer, "pair", study.PRIVATE)
    live = most_live(answer, study.PRIVATE)
    for number in (12, 24, 48, 96):
        assert sizes[number - 1] == pytest.approx(
            number * live, rel=0.06, abs=2 * MIB
        )  # a round's mean, the most of any


def test_the_central_list_ends_it(answer):
    for model in ("tcmalloc", "first-fit", "segregated-fit"):
        sizes = footprints(answer, "pair", model)
        assert (
            sizes[-1] - sizes[len(sizes) // 4] <= MIB
        )  # in three quarters of the time, one growth of the heap at most
        assert sizes[-1] < most_live(answer, model) + 2 * MIB


def test_in_turns_every_private_heap_needs_what_is_live(answer):
    """P times, whatever the number of rounds; one list of all serves them with what one needs."""
    live = most_live(answer, study.PRIVATE)
    assert footprints(answer, "turns", study.PRIVATE)[-1] == pytest.approx(12 * live, rel=0.15)
    assert footprints(answer, "turns", "first-fit")[-1] < 2 * live


def test_a_private_heap_gives_no_object_back():
    """What makes the broken variant broken: its central and transfer lists get nothing, TCMalloc's do."""
    came_back = {}
    for model in ("tcmalloc", study.PRIVATE):
        world = study.world_of(model, 2)
        rng = study.np.random.default_rng(3)
        for _ in range(3):
            new, dead = study.batches(rng)
            study.run_alone(world, 0, new)
            study.run_alone(world, 1, dead)
        if model == "tcmalloc":
            check(world.heap)
        fields = world.heap.fields
        came_back[model] = int(fields.fact_too_long) + int(fields.fact_scavenges)
    assert came_back[study.PRIVATE] == 0 < came_back["tcmalloc"]


def test_idle_threads_of_tcmalloc_keep_what_budget_was_stolen_from_them():
    """Caches may hold 32 MiB together, but who is stolen from gives back at its own next free: in turns none comes."""
    world = study.world_of("tcmalloc", 64)
    rng = study.np.random.default_rng(1)
    for number in range(192):
        new, dead = study.batches(rng)
        study.run_alone(world, number // 3, new)
        study.run_alone(world, number // 3, dead)
    threads = world.heap.arrays["threads"]
    assert (threads["cached"] > threads["max_size"]).sum() > 10
    assert numeric_properties(world.heap)["tcmalloc.current_total_thread_cache_bytes"] > 32 * MIB


def test_tables_and_files(answer, tmp_path):
    pytest.importorskip("matplotlib")
    assert len([line for line in study.report(answer) if study.PRIVATE in line]) == len(study.PROGRAMS)
    assert len(list(study.write(answer, tmp_path))) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"blowup_rounds.csv", "blowup.svg", "blowup.png"}
