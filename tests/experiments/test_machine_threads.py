"""Machine files of threads' allocators: the shipped one, and what is wrong with others."""

from importlib import resources

import pytest

from experiments.errors import InputError
from experiments.machine_threads import MODELS, load_thread_machine

SHIPPED = (resources.files("experiments") / "thread_machines" / "epyc-2core.toml").read_text()


def test_the_shipped_file_prices_every_step_and_names_what_is_assumed():
    for model, steps in MODELS.items():
        prices = load_thread_machine("epyc-2core", model)
        assert tuple(prices.steps) == steps and prices.machine == "epyc-2core"
        assert {"handoff", "slice", "switch", "wake"} < set(prices.assumed)
    assert load_thread_machine("epyc-2core", "tcmalloc").steps["pop"] == 3500
    assert "visit" in prices.assumed and "first_touch" not in prices.assumed


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("schema = 1", "schema = 2", "schema: 2 is not 1"),
        ("pop = {", "pops = {", "tcmalloc.pops: unknown key; known are pop push"),
        ("\npush = { ns = 3.7", "\npush = { ns = -1", "tcmalloc.push.ns: -1 is below 0"),
        ("slice = { ns = 3_000_000", "slice = { ns = 0", "threads.slice.ns: 0 is no time slice"),
        ('"the same" }\nvisit', '"" }\nvisit', "textbook.free.reason: '' is not a text"),
        ("[textbook]", "[textbook", "not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, old, new, fault):
    assert SHIPPED.count(old) == 1
    path = tmp_path / "mine.toml"
    path.write_text(SHIPPED.replace(old, new))
    with pytest.raises(InputError) as error:
        load_thread_machine(path, "tcmalloc")
    assert str(error.value).startswith(f"{path}: {fault}") and "\n" not in str(error.value)


def test_a_name_that_is_none_of_ours():
    with pytest.raises(InputError, match=r"nosuch: no such machine; give a path to a .toml file or one of epyc-2core"):
        load_thread_machine("nosuch", "tcmalloc")
