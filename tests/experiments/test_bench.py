"""The benchmark: what it measures is counted, its answer has its shape; nothing here depends on the clock."""

import json
from pathlib import Path

import pytest

from experiments import bench, cli
from experiments.toolchain import NoGo, command, program
from sim.jit import PLAIN
from sim.ops import ALLOC, DEAD
from workloads.mixes import TEN_SIZES, ten_sizes
from workloads.streams import WorkerStream, operations

EVENTS_PER_MILLION = 7_400  # at 8 Ps; 4,940 when this was written: 2,280 in SimPy's queue, 2,660 turns of the pump
SCALE = 2e-5 if PLAIN else 1e-3


def steps(env, run):
    """Run; how many steps the environment took."""
    count, step = 0, env.step

    def counted():
        nonlocal count
        step()
        count += 1

    env.step = counted
    run()
    return count


@pytest.mark.parametrize("nprocs", [1, 8, 64])
def test_the_simpy_model_makes_one_timeout_a_malloc(nprocs):
    n = 10_000
    env = bench.simpy_model(nprocs, n)
    shares = [n // nprocs + (p < n % nprocs) for p in range(nprocs)]
    refills = sum(-(-share // bench.mallocs_per_refill()) for share in shares)
    # a process has an event at its start and its end, a refill one for its request and one for its release
    assert steps(env, env.run) == n + 2 * nprocs + 2 * refills


def test_refills_of_the_mix_are_those_of_the_simulated_heap():
    n = 2_000 if PLAIN else 500_000
    world, load = bench.our_world(1, n)
    world.run(until=load.done)
    spans = int(world.heap.fields.nspans) - int(world.heap.arrays["mcaches"]["mspancache_len"].sum())
    assert n / spans == pytest.approx(bench.mallocs_per_refill(), rel=0.2 if PLAIN else 0.03)


@pytest.mark.skipif(PLAIN, reason="a million mallocs")
def test_events_of_a_million_mallocs_stay_within_budget():
    """Handovers to Python are what a run costs beyond its mallocs; a change that makes more of them shows here."""
    world, load = bench.our_world(8, 1_000_000)
    assert steps(world.env, lambda: world.run(until=load.done)) <= EVENTS_PER_MILLION


@pytest.mark.parametrize("nprocs", [1, 8, 64])
def test_gc_is_off_unless_asked_for(nprocs):
    world, load = bench.our_world(nprocs, 64 if PLAIN else 1_000_000)
    world.run(until=load.done)
    assert not world.gc.log.cycles and int(world.heap.fields.gc_percent) == -1


@pytest.mark.skipif(PLAIN, reason="a million mallocs")
@pytest.mark.parametrize("nprocs", [1, 8, 64])
def test_with_gc_fifty_mib_are_live_at_any_number_of_ps(nprocs):
    world, _ = bench.our_world(nprocs, 2_000_000, collect=True)
    procs = world.heap.arrays["procs"]
    while int(procs["mallocs"].sum()) < 1_200_000:
        world.run(until=world.now + 100_000_000)
    assert int(world.heap.fields.live_bytes) == pytest.approx(50 << 20, rel=0.03)
    assert len(world.gc.log.cycles) >= 4


def test_the_mix_is_that_of_the_go_program():
    """Ten sizes, half of the objects with pointers, dead after as many mallocs as the Go program's ring has places."""
    source = (Path(bench.__file__).parent / "truth" / "bench" / "main.go").read_text()
    for size in TEN_SIZES:
        words = size // 8
        assert f"filled[[{words}]uintptr]({words})" in source
        assert f"linked[[{words}]unsafe.Pointer]({words})" in source
    stream = WorkerStream(ten_sizes(50), 1000, 1, "worker/0")
    ops = operations(400)
    stream.fill(ops)
    born, deaths = {}, 0
    for i, op in enumerate(ops[ops["kind"] == ALLOC]):
        if int(op["obj"]) in born:
            assert i - born[int(op["obj"])] == 50
            deaths += 1
        born[int(op["obj"])] = i
    assert deaths == 350
    assert not (ops["kind"] == DEAD).any()


def test_answer_and_table(monkeypatch):
    monkeypatch.setattr(bench, "toolchain", no_go)
    told = []
    answer = bench.run_bench(repeat=2, ps=(1, 8), scale=SCALE, watch=told.append)
    assert list(answer["bench"]) == ["P1", "P8"]
    for found in answer["bench"].values():
        assert list(found) == ["mallocs_per_s", "vs_simpy", "vs_go"]
        assert found["mallocs_per_s"] > 0
        assert found["vs_simpy"] > 0
        assert found["vs_go"] is None
    assert answer["details"]["no_go"] == "nowhere"
    assert json.loads(json.dumps(answer)) == answer
    rows = bench.table(answer)
    assert [len(row) for row in rows] == [7, 7, 7]
    assert [row[0] for row in rows] == ["Ps", "1", "8"]
    assert told[-1] == "timing 8 Ps ..."


def test_best_of_the_repetitions_on_every_side():
    found = bench.Rates([30.0, 40.0], [5.0, 8.0], [20.0, 10.0]).to_dict()
    assert found == {"mallocs_per_s": 40.0, "vs_simpy": 5.0, "vs_go": 2.0}
    assert bench.Rates([30.0], [5.0], None).to_dict()["vs_go"] is None


def no_go():
    raise NoGo("nowhere")


def test_command(monkeypatch, capsys):
    answer = {
        "bench": {"P8": {"mallocs_per_s": 12e6, "vs_simpy": 9.96, "vs_go": None}},
        "details": {
            "repeat": 2,
            "cpus": 2,
            "gc": False,
            "go": None,
            "no_go": "there is no go",
            "P8": {"median_mallocs_per_s": 11e6, "simpy_mallocs_per_s": 1.2e6, "go_mallocs_per_s": None},
        },
    }
    monkeypatch.setattr(bench, "run_bench", lambda repeat, watch, collect: answer | {"repeat": repeat})
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", "--repeat", "2"])
    assert exit.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["8", "12.00", "11.00", "1.20", "10.0", "-", "-"]
    assert lines[-1] == "The real runtime was not timed: there is no go"
    with pytest.raises(SystemExit):
        cli.main(["bench", "--json"])
    assert json.loads(capsys.readouterr().out)["bench"] == answer["bench"]


@pytest.mark.parametrize("repeat", ["0", "-1", "many", "101"])
def test_repetitions_refused(repeat, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", "--repeat", repeat])
    assert exit.value.code == 2
    assert "repeat" in capsys.readouterr().err


# the real runtime


def test_output_of_the_go_program():
    assert bench.read_go('{"mallocs": 3000, "ns": 1500000, "go": "go1.27.3"}\n') == (2e6, "go1.27.3")


@pytest.mark.parametrize(
    "text", ["", "fatal error: out of memory", "[]", '{"mallocs": 1}', '{"mallocs": 1, "ns": 0, "go": ""}']
)
def test_other_output_is_refused(text):
    with pytest.raises(NoGo, match="the Go program printed"):
        bench.read_go(text)


@pytest.mark.slow
def test_real_program(go):
    """Where a go is found, the program builds, and says what it did."""
    with program(go, "bench") as built:
        text = command([built, "-procs=8", "-mallocs=100003"])
        assert json.loads(text)["mallocs"] == 100_003
        assert bench.read_go(text)[0] > 0
        text = command([built, "-procs=2", "-mallocs=100000", "-gogc=100"])
        assert bench.read_go(text)[0] > 0
        with pytest.raises(NoGo, match="every number must be at least 1"):
            command([built, "-procs=0"])
