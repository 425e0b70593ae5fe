"""Merged order, times, Ps, Ms, Gs and ids against what Go's own reader prints (``go tool trace -d=parsed``).

Both sides turn into the same lines. The digests of Go's lines are recorded here (go1.27.3), so the comparison needs no
Go; with a Go 1.27 on PATH the two are compared line by line once more.
"""

import hashlib
import lzma
import os
import re
import shutil
import subprocess

import pytest

from tests.traces import trace_path
from workloads import gotrace as t

GO_LINES = {
    "test-fmt-tests-P1-gogc_off": (43189, "a2659c16530fb18b"),
    "gofmt-nethttp_server-P1-gogc_off": (40252, "03f3767c6a50d6e5"),
    "xbench-json-P2-gogc_default": (85555, "1c8476c387677380"),
}
ALLOC_FREE = {
    t.SPAN: ("Span", 3),
    t.SPAN_ALLOC: ("SpanAlloc", 3),
    t.SPAN_FREE: ("SpanFree", 1),
    t.OBJECT: ("HeapObject", 1),
    t.OBJECT_ALLOC: ("HeapObjectAlloc", 1),
    t.OBJECT_FREE: ("HeapObjectFree", 1),
    t.STACK: ("GoroutineStack", 2),
    t.STACK_ALLOC: ("GoroutineStackAlloc", 2),
    t.STACK_FREE: ("GoroutineStackFree", 1),
}
METRICS = {
    t.HEAP_ALLOC: "/memory/classes/heap/objects:bytes",
    t.HEAP_GOAL: "/gc/heap/goal:bytes",
    t.GOMAXPROCS: "/sched/gomaxprocs:threads",
}
RANGES = {
    t.GC_BEGIN: "Begin GC concurrent mark phase",
    t.GC_END: "End GC concurrent mark phase",
    t.ASSIST_BEGIN: "Begin GC mark assist",
    t.ASSIST_END: "End GC mark assist",
    t.SWEEP_BEGIN: "Begin GC incremental sweep",
    t.SWEEP_END: "End GC incremental sweep",
}
NAMES_ITS_RESOURCE = {
    t.PROC_START: "ProcID={a} ->Running",
    t.PROC_STEAL: "ProcID={a} ->Idle",
    t.GO_CREATE: "GoID={a} ->Runnable",
    t.GO_START: "GoID={a} ->Running",
    t.GO_UNBLOCK: "GoID={a} ->Runnable",
    t.PROC_STOP: "ProcID={p} ->Idle",
    t.GO_STOP: "GoID={g} ->Runnable {reason}",
    t.GO_BLOCK: "GoID={g} ->Waiting {reason}",
    t.GO_DESTROY: "GoID={g} ->NotExist",
    t.GO_SYSCALL_BEGIN: "GoID={g} ->Syscall",
    t.GO_SYSCALL_END: "GoID={g} ->Running",
    t.GO_SYSCALL_END_BLOCKED: "GoID={g} ->Runnable",
}
PROC_STATES = ("", "Running", "Idle", "Running", "Idle")
GO_STATES = ("", "Runnable", "Running", "Syscall", "Waiting")


def what(trace, kind, p, g, a, b, c):
    """What happened in one of our rows, in words that Go's text can be brought to."""
    if kind in ALLOC_FREE:
        name, n = ALLOC_FREE[kind]
        return f"{name} {(a, b, c)[:n]}"
    if kind in METRICS:
        return f"{METRICS[kind]} {a}"
    if kind in RANGES:
        return RANGES[kind]
    if kind in (t.STW_BEGIN, t.STW_END):
        return f"{'Begin' if kind == t.STW_BEGIN else 'End'} stop-the-world ({trace.strings[a]})"
    if kind == t.GO_LABEL:
        return trace.strings[a]
    if kind == t.PROC_STATUS:
        return f"ProcID={a} ->{PROC_STATES[b]}"
    if kind == t.GO_STATUS:
        return f"GoID={a} ->{GO_STATES[c]}"
    reason = trace.strings[a] if kind in (t.GO_STOP, t.GO_BLOCK) else ""
    return NAMES_ITS_RESOURCE[kind].format(a=a, p=p, g=g, reason=reason).strip()


def our_lines(trace):
    columns = (trace.time_ns, trace.kind, trace.p, trace.m, trace.g, trace.a, trace.b, trace.c)
    for time, kind, p, m, g, a, b, c in zip(*(x.tolist() for x in columns), strict=True):
        yield f"{time} M={m} P={p} G={g} {what(trace, kind, p, g, a, b, c)}"


def go_lines(text):
    """The events in Go's text; syncs and CPU samples have no row with us, type numbers are another's."""
    for line in text:
        match = re.match(r"M=(-?\d+) P=(-?\d+) G=(-?\d+) (\w+) Time=(\d+) (.*)", line)
        if not match or match[4] in ("Sync", "StackSample"):
            continue
        m, p, g, kind, time, rest = match.groups()
        if kind == "Experimental":
            numbers = tuple(int(x) for x in re.findall(r"Uint64\((\d+)\)", rest))
            name = re.match(r"Name=(\w+)", rest)[1]
            told = f"{name} {numbers[:1] if name.startswith('HeapObject') else numbers}"
        elif kind == "Metric":
            told = "{} {}".format(*re.match(r'Name="(.*?)" Value=Value\{Uint64\((\d+)\)', rest).groups())
        elif kind.startswith("Range"):
            told = f"{kind.removeprefix('Range')} " + re.match(r'Name="(.*?)"', rest)[1]
        elif kind == "Label":
            told = re.match(r'Label="(.*?)"', rest)[1]
        else:
            where, to, reason = re.match(r'(\w+=\d+) \w+(->\w+)(?: Reason="(.*)")?', rest).groups()
            told = f"{where} {to} {reason or ''}".strip()
        yield f"{time} M={m} P={p} G={g} {told}"


def digest(lines):
    made = hashlib.sha256()
    count = 0
    for line in lines:
        made.update(line.encode() + b"\n")
        count += 1
    return count, made.hexdigest()[:16]


@pytest.mark.parametrize("name", GO_LINES)
def test_order_is_that_of_go_as_recorded(name):
    assert digest(our_lines(t.read_trace(trace_path(name)))) == GO_LINES[name]


def _go():
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go on PATH")
    if "go1.27" not in subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("the go on PATH is not 1.27")
    return go


@pytest.mark.slow
@pytest.mark.parametrize("name", GO_LINES)
def test_order_is_that_of_go(name, tmp_path, tmp_path_factory):
    go = _go()
    packed = trace_path(name)
    raw = tmp_path / "raw.trace"
    raw.write_bytes(lzma.decompress(packed.read_bytes()))
    cache = tmp_path_factory.getbasetemp() / "go-cache"
    env = {**os.environ, "HOME": str(tmp_path), "GOCACHE": str(cache), "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [go, "tool", "trace", "-d=parsed", str(raw)], capture_output=True, text=True, env=env, timeout=300, check=True
    )
    theirs = list(go_lines(done.stdout.splitlines()))
    ours = list(our_lines(t.read_trace(packed)))
    for i, (mine, go_line) in enumerate(zip(ours, theirs, strict=False)):
        assert mine == go_line, f"row {i}"
    assert len(ours) == len(theirs)
    assert digest(theirs) == GO_LINES[name]
