"""Reading traces: recorded event counts, tables, hand-made traces of every format version, the compact file."""

import lzma

import numpy as np
import pytest

from tests.traces import trace_path
from workloads import gotrace
from workloads.gotrace import TraceError

NAMES = (
    "span",
    "span_alloc",
    "span_free",
    "object",
    "object_alloc",
    "object_free",
    "stack",
    "stack_alloc",
    "stack_free",
)
# events of each name, lowest span id, heap base, cycles: as recorded beside the traces
RECORDED = {
    "compile-go_scanner-P1-gogc_off": ((88, 1512, 2, 1491, 167374, 0, 7, 19, 15), 229, 0xF17C7000000, 0),
    "gofmt-nethttp_server-P1-gogc_off": ((48, 233, 1, 192, 39380, 0, 6, 11, 7), 164, 0x83F44800000, 0),
    "test-fmt-tests-P1-gogc_off": ((56, 131, 103, 350, 24214, 16854, 6, 189, 185), 454, 0x167C3F800000, 1),
    "xbench-json-P2-gogc_default": ((274, 349, 236, 25106, 29003, 26504, 9, 22, 17), 485, 0x12CEED400000, 3),
}
SMALL = trace_path("test-fmt-tests-P1-gogc_off")
TWO_PS = trace_path("xbench-json-P2-gogc_default")
COLUMNS = (
    "time_ns",
    "kind",
    "p",
    "m",
    "g",
    "a",
    "b",
    "c",
    "stack",
    "frame_pc",
    "stack_start",
    "type_size",
    "type_name",
)


@pytest.fixture(scope="module")
def small():
    return gotrace.read_trace(SMALL)


@pytest.mark.parametrize("name", RECORDED)
def test_counts_and_heap_are_as_recorded(name):
    events, lowest, base, cycles = RECORDED[name]
    trace = gotrace.read_trace(trace_path(name))
    counts = trace.counts()
    assert tuple(counts.get(x, 0) for x in NAMES) == events
    assert trace.a[(trace.kind == gotrace.SPAN) | (trace.kind == gotrace.SPAN_ALLOC)].min() == lowest
    assert (trace.min_heap, trace.page_size) == (base, 8192)
    assert counts.get("gc_begin", 0) == counts.get("gc_end", 0) == cycles
    assert trace.gomaxprocs == int(name.split("-P")[1][0])
    assert trace.go_version == "1.26"
    assert trace.has_allocations
    assert trace.unknown == {}
    assert np.all(np.diff(trace.time_ns) > 0)


def test_generations_and_skipped_samples():
    trace = gotrace.read_trace(TWO_PS)
    assert trace.generation.tolist() == [1, 2, 3, 4, 5]
    assert trace.generation_start[0] == 0
    assert np.all(np.diff(trace.generation_start) > 0)
    assert trace.skipped == {"cpu_sample": 4}


def frames(trace, stack):
    rows = slice(trace.stack_start[stack], trace.stack_start[stack + 1])
    return [trace.strings[i] for i in trace.frame_func[rows]]


def test_stacks_strings_and_types_are_resolved(small):
    stops = np.flatnonzero(small.kind == gotrace.STW_BEGIN)
    reasons = ["start trace", "GC sweep termination", "GC mark termination", *["read mem stats"] * 3]
    assert [small.strings[i] for i in small.a[stops]] == reasons
    first = frames(small, small.stack[stops[0]])
    assert (first[0], first[-1]) == ("runtime.StartTrace", "main.main")
    forced = frames(small, small.stack[stops[1]])
    assert "runtime.GC" in forced
    line = small.frame_line[small.stack_start[small.stack[stops[0]]]]
    assert line == 429
    assert frames(small, 0) == []
    names = [small.strings[i] for i in small.type_name]
    assert names[0] == ""
    sizes = {names[i]: (small.type_size[i], small.type_ptr_bytes[i]) for i in range(len(names))}
    assert sizes["string"] == (16, 8)
    assert sizes["runtime.g"][1] > 0
    used = small.b[(small.kind == gotrace.OBJECT) | (small.kind == gotrace.OBJECT_ALLOC)]
    assert set(range(1, len(names))) == set(used[used > 0].tolist())


def test_raw_and_packed_are_the_same_trace(small, tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(lzma.decompress(SMALL.read_bytes()))
    assert_same(gotrace.read_trace(raw), small)
    parts = tmp_path / "two.xz"
    data = raw.read_bytes()
    parts.write_bytes(lzma.compress(data[:70001]) + b"\0" * 8 + lzma.compress(data[70001:]))
    assert_same(gotrace.read_trace(parts), small)


def assert_same(one, other):
    for name in COLUMNS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("strings", "go_version", "min_heap", "page_size", "gomaxprocs", "unknown", "skipped"):
        assert getattr(one, name) == getattr(other, name), name


# hand-made traces


def number(x):
    out = bytearray()
    while x > 127:
        out.append(x & 127 | 128)
        x >>= 7
    return bytes(out) + bytes([x])


def numbers(*values):
    return b"".join(map(number, values))


def batch(gen, m, time, events, experiment=0):
    head = bytes([49, experiment]) if experiment else b"\x01"
    return head + numbers(gen, m, time, len(events)) + events


NO_THREAD = (1 << 64) - 1
P_RUNS, P_IDLE, G_RUNNABLE, G_RUNS, G_WAITS = 1, 2, 1, 2, 4


def sync(gen, version, hertz=1_000_000_000):
    frequency = b"\x08" + number(hertz)
    if version < 25:
        return batch(gen, NO_THREAD, 0, frequency)
    return batch(gen, NO_THREAD, 0, b"\x32" + frequency + b"\x33" + numbers(0, 1, 2, 3))


def file(version, *generations):
    """A trace of generations: each (number, batches)."""
    out = b"go 1.%d trace\0\0\0" % version
    for gen, batches in generations:
        out += b"".join(batches) + sync(gen, version) + (b"\x34" if version >= 26 else b"")
    return out


def read(tmp_path, data):
    path = tmp_path / "made.trace"
    path.write_bytes(data)
    return gotrace.read_trace(path)


def event(code, *values):
    return bytes([code]) + numbers(*values)


STATUS = event(13, 1, 0, P_RUNS) + event(25, 1, 7, 50, G_RUNS)  # P 0 and G 7 run on this M
INFO = batch(1, NO_THREAD, 0, b"\x01" + numbers(0xC000000000, 8192, 8, 2048), experiment=1)


@pytest.mark.parametrize("version", [22, 23, 25, 26])
def test_every_version_of_the_format(version, tmp_path):
    one = batch(1, 50, 1000, STATUS + event(37, 5, 4096))
    two = batch(2, 50, 2000, event(13, 1, 0, P_RUNS) + event(25, 1, 7, 50, G_RUNS) + event(37, 5, 8192))
    trace = read(tmp_path, file(version, (1, [one]), (2, [two])))
    assert trace.go_version == f"1.{version}"
    assert trace.a[trace.kind == gotrace.HEAP_ALLOC].tolist() == [4096, 8192]
    assert trace.time_ns.tolist() == [1001, 1002, 1007, 2001, 2002, 2007]
    assert trace.p.tolist() == [-1, 0, 0, 0, 0, 0]
    assert trace.g.tolist() == [-1, -1, 7, 7, 7, 7]
    assert not trace.has_allocations
    assert trace.min_heap == 0


def test_clock_frequency_turns_ticks_into_nanoseconds(tmp_path):
    data = b"go 1.26 trace\0\0\0" + batch(1, 50, 1000, STATUS) + sync(1, 26, 250_000_000) + b"\x34"
    assert read(tmp_path, data).time_ns.tolist() == [4004, 4008]


def test_sequence_numbers_overrule_wrong_times(tmp_path):
    """G 9, created on M 50 at 2000, starts on M 51 at 1500 by its clock: its start comes after its creation."""
    maker = batch(1, 50, 1000, STATUS + event(14, 998, 9, 0, 0))
    other = event(13, 1, 1, P_IDLE) + event(10, 1, 1, 1) + event(16, 498, 9, 1) + event(37, 1, 77)
    trace = read(tmp_path, file(26, (1, [maker, batch(1, 51, 1000, other)])))
    order = trace.kind.tolist()
    assert order.index(gotrace.GO_CREATE) < order.index(gotrace.GO_START) < order.index(gotrace.HEAP_ALLOC)
    last = trace.kind == gotrace.HEAP_ALLOC
    assert (trace.p[last][0], trace.m[last][0], trace.g[last][0]) == (1, 51, 9)
    assert trace.time_ns.tolist()[-3:] == [2000, 2001, 2002]


def test_equal_times_keep_the_order_of_the_first_batches(tmp_path):
    left = batch(1, 61, 1000, event(129, 5, 1, 1, 1) + event(130, 0, 1))
    right = batch(1, 60, 1000, event(129, 5, 2, 1, 1) + event(130, 0, 2))
    trace = read(tmp_path, file(26, (1, [INFO, left, right])))
    assert trace.m.tolist() == [61, 61, 60, 60]


def test_ids_below_the_heap_base_are_negative(tmp_path):
    events = event(129, 1, (1 << 51) - 3, 2, 1) + event(132, 1, (1 << 61) - 5, 0) + event(135, 1, (1 << 53) - 7, 12)
    trace = read(tmp_path, file(26, (1, [INFO, batch(1, 50, 10, events)])))
    assert trace.a.tolist() == [-3, -5, -7]
    assert trace.min_heap == 0xC000000000


def test_ids_of_each_generation_turn_into_numbers_of_the_file(tmp_path):
    def types(gen, *rows):
        return batch(gen, NO_THREAD, 0, b"\0" + b"".join(numbers(*r, 3) + b"int" for r in rows), experiment=1)

    one = [
        INFO,
        types(1, (1, 0x10, 8, 0), (2, 0x20, 16, 8)),
        batch(1, 50, 10, event(132, 1, 4, 1) + event(132, 1, 8, 2)),
    ]
    two = [types(2, (1, 0x20, 16, 8)), batch(2, 50, 20, event(132, 1, 12, 1) + event(132, 1, 16, 5))]
    trace = read(tmp_path, file(26, (1, one), (2, two)))
    assert trace.type_address[trace.b].tolist() == [0x10, 0x20, 0x20, 0]
    assert trace.unknown == {"type_id": 1}


def test_what_has_no_column_is_counted(tmp_path):
    task = event(40, 1, 5, 0, 0, 0)
    trace = read(tmp_path, file(26, (1, [batch(1, 50, 10, STATUS + task), batch(1, 9, 1, b"??", experiment=9)])))
    assert trace.skipped == {"user_task_begin": 1}
    assert trace.unknown == {"batch_of_experiment_9": 1}
    assert len(trace.kind) == 2


MADE = file(26, (1, [INFO, batch(1, 50, 10, STATUS + event(132, 1, 4, 0))]))
START = 16 + len(INFO)  # of the batch of events


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"go 1.2", "at byte 6: the trace is cut off inside its header"),
        (b"not a trace at all", "at byte 0: no Go execution trace"),
        (b"go 1.19 trace\0\0\0", "a trace of Go before 1.22"),
        (b"go 1.99 trace\0\0\0", "trace format 1.99 is not known"),
        (MADE[:16], "at byte 16: the trace is cut off"),
        (MADE[:-1], f"at byte {len(MADE) - 1}: the trace is cut off: its last generation has no end"),
        (MADE[: START + 3], f"at byte {START}: the trace is cut off inside a batch"),
        (MADE[:16] + b"\x09" + MADE[17:], "at byte 16: no batch starts here"),
        (MADE[:16] + b"\x01" + numbers(1, 2, 3, 65537), "at byte 16: a batch of more than 65536 bytes"),
        (MADE[:16] + b"\x01" + b"\xff" * 12, "at byte 16: a number longer than 64 bits"),
        (file(26, (1, [batch(2, 1, 1, b"")])), "a batch of another generation"),
        (file(26, (2, []), (1, [])), "a batch of another generation"),
        (file(26, (1, [batch(1, 5, 1, event(200, 1))])), "at byte 21: no timed event"),
        (file(26, (1, [batch(1, 5, 1, event(132, 1))])), "at byte 21: an event runs past the end"),
        (file(26, (1, [batch(1, 5, 1, event(132, 1, 2, 0))])), "no batch that tells where the heap begins"),
        (file(26, (1, [batch(1, 5, 1, event(16, 1, 9, 1))])), "at byte 21: no event of any thread can come next"),
        (file(26, (1, [batch(1, 5, 1, event(37, 1, 9))])), "at byte 21: an event on a thread without a P"),
        (file(26, (1, [batch(1, 5, 1 << 62, event(13, 1, 0, 1))])), "time out of range"),
        (b"go 1.26 trace\0\0\0" + batch(1, 5, 1, STATUS) + b"\x34", "without the frequency of its clock"),
        (b"go 1.26 trace\0\0\0" + sync(1, 26, 0) + b"\x34", "a clock frequency out of range"),
        (lzma.compress(MADE)[:-9], "the .xz file is cut off"),
        (lzma.compress(MADE)[:20] + b"\0" * 40, "damaged .xz"),
        (lzma.compress(b"no trace here, but well packed"), "at byte 0: no Go execution trace"),
    ],
    ids=range(24),
)
def test_a_bad_file_is_refused_in_one_line(data, told, tmp_path):
    with pytest.raises(TraceError) as error:
        read(tmp_path, data)
    (line,) = error.value.args
    assert told in line
    assert line.startswith(str(tmp_path / "made.trace") + ": ")
    assert "\n" not in line


def test_a_missing_file_is_a_trace_error(tmp_path):
    with pytest.raises(TraceError, match="cannot be read"):
        gotrace.read_trace(tmp_path / "none")
    with pytest.raises(TraceError, match="cannot be read"):
        gotrace.load(tmp_path / "none")


# the compact file


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "small.alloctrace"
    gotrace.save(small, path)
    return path


def test_saved_and_loaded_is_the_same_trace(small, saved, tmp_path):
    assert_same(gotrace.load(saved), small)
    assert_same(gotrace.read_trace(saved), small)
    again = tmp_path / "again"
    gotrace.save(gotrace.load(saved), again)
    assert again.read_bytes() == saved.read_bytes()


def test_a_trace_without_rows_is_kept(tmp_path):
    trace = read(tmp_path, file(26, (1, [])))
    assert len(trace.kind) == 0
    gotrace.save(trace, tmp_path / "empty.alloctrace")
    assert_same(gotrace.load(tmp_path / "empty.alloctrace"), trace)


def resaved(saved, path, **changes):
    """A copy of a saved trace with some members replaced."""
    with np.load(saved, allow_pickle=False) as found:
        arrays = dict(found)
    np.savez_compressed(path, **{**arrays, **changes})
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": np.zeros(3, np.uint8)}, "differ in length"),
        ({"kind": np.zeros(43189, np.int64)}, "a column of uint8 is due"),
        ({"kind": np.full(43189, 99, np.uint8)}, "kind.npy: an index outside"),
        ({"stack": np.full(43189, 1 << 30, np.int32)}, "stack.npy: an index outside"),
        ({"time_ns": np.zeros(43189, np.int64)}, "times that do not rise"),
        ({"stack_start": np.array([0, 9], np.int64)}, "stack_start.npy: does not cut"),
        ({"scalars": np.frombuffer(b'{"schema": 2}', np.uint8)}, "another schema"),
        ({"scalars": np.frombuffer(b'{"schema": 1}', np.uint8)}, "go_version is missing"),
        ({"scalars": np.frombuffer(b"[" * 100_000, np.uint8)}, "no trace that `allocsim import` wrote"),
        ({"a": np.array([object()])}, "no trace that `allocsim import` wrote|a.npy"),
    ],
)
def test_a_wrong_saved_file_is_refused(changes, told, saved, tmp_path):
    path = resaved(saved, tmp_path / "wrong.npz", **changes)
    with pytest.raises(TraceError, match=told) as error:
        gotrace.load(path)
    assert "\n" not in error.value.args[0]


def test_a_cut_saved_file_is_refused(saved, tmp_path):
    data = saved.read_bytes()
    for length in (4, 100, len(data) // 2, len(data) - 1):
        path = tmp_path / "cut.alloctrace"
        path.write_bytes(data[:length])
        with pytest.raises(TraceError):
            gotrace.read_trace(path)
