"""Recording programs: shell scripts that speak like the Go runtime, a small HTTP server, and real Go where it is."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import InputError
from experiments.record_plan import build_version, godebug, plan
from experiments.record_streams import Fetcher, Splitter, base_of
from experiments.toolchain import NoGo, find_go

ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "experiments" / "truth" / "record"
LINES = (ROOT / "tests" / "data" / "recorded" / "json-go1.27.3-P1.log").read_text().splitlines(keepends=True)
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


def allocsim(*arguments, cwd, env=ENV):
    command = [sys.executable, "-m", "experiments.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@given(st.lists(st.integers(1, 60), max_size=60), st.booleans())
def test_lines_are_parted_however_they_arrive(cuts, end):
    """Whatever the pieces, kept are the gctrace lines and passed on is everything else, byte for byte."""
    text = f"starting\ngcc: x\n{LINES[0]}GC forced\nprompt> {LINES[1]}go on\xff\n{LINES[2]}last".encode("latin-1")
    data = text + (b"\n" if end else b"")
    kept, passed = io.BytesIO(), io.BytesIO()
    splitter = Splitter(kept, passed)
    for cut in cuts:
        splitter.feed(data[:cut])
        data = data[cut:]
    splitter.feed(data)
    splitter.end()
    assert kept.getvalue().decode() == f"{LINES[0]}GC forced\n{LINES[1]}{LINES[2]}"
    assert passed.getvalue() == b"starting\ngcc: x\nprompt> go on\xff\nlast" + (b"\n" if end else b"")
    assert splitter.cycles == 3


def test_a_prompt_is_not_held_back():
    passed = io.BytesIO()
    splitter = Splitter(io.BytesIO(), passed)
    splitter.feed(b"name: ")
    assert passed.getvalue() == b"name: "
    splitter.feed(b"\ngc 1 @0.0")
    assert passed.getvalue() == b"name: \n"


@pytest.mark.parametrize(
    ("users", "ours"),
    [
        ("", "gctrace=1,traceallocfree=1"),
        ("madvdontneed=1,gctrace=2", "madvdontneed=1,gctrace=2,traceallocfree=1"),
        ("gctrace=0,http2client=0", "gctrace=1,http2client=0,traceallocfree=1"),
    ],
)
def test_the_user_s_godebug_stays(users, ours):
    assert godebug(users, {"gctrace": "1", "traceallocfree": "1"}) == ours


@pytest.fixture
def fake_go(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(version):
        script(folder / "go", f"echo go version {version} linux/amd64")
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    make("go1.27.3")
    return make


def planned(command, folder, trace=True):
    return plan(command.split(), folder, {"GODEBUG": "x=1"}, trace=trace)


def test_go_test_gets_its_flags_and_runs_the_test_through_a_script(fake_go, tmp_path):
    made = planned("go test -run One ./pkg", tmp_path)
    assert made.argv[1:3] == ["test", "-exec"] and made.argv[-3:] == ["-run", "One", "./pkg"]
    assert f"-trace={tmp_path}/trace" in made.argv and f"-memprofile={tmp_path}/heap.pb.gz" in made.argv
    assert "-memprofilerate=65536" in made.argv and made.environment["GODEBUG"] == "x=1"  # go itself prints nothing
    text = (tmp_path / "exec.sh").read_text()
    assert "GODEBUG=x=1,gctrace=1,traceallocfree=1" in text and text.endswith(f'exec "$@" 2>{tmp_path}/stderr\n')


def test_the_user_s_own_flags_stay(fake_go, tmp_path):
    made = planned("go test -C sub -trace my.out -memprofile=m.prof -exec qemu -o x . -args -trace=no", tmp_path)
    assert made.argv[1:5] == ["test", "-C", "sub", "-exec"]
    assert not any(one.startswith((f"-trace={tmp_path}", "-memprofile=/", "-memprofilerate")) for one in made.argv)
    assert (
        made.argv.count("-o") == 1
        and "qemu" not in made.argv
        and 'exec qemu "$@"' in (tmp_path / "exec.sh").read_text()
    )
    assert {name: str(path) for name, path in made.outputs.items()} == {"trace": "my.out", "heap.pb.gz": "m.prof"}


def test_an_old_go_makes_no_trace(fake_go, tmp_path):
    fake_go("go1.19.8")
    made = planned("go test .", tmp_path)
    assert not any("-trace" in one for one in made.argv) and "go1.19.8 has no allocation events" in made.notes[0]
    assert not planned("go test .", tmp_path, trace=False).notes


def test_the_binary_of_a_test_gets_test_flags(tmp_path):
    script(tmp_path / "x.test", "")
    made = planned(f"{tmp_path}/x.test -test.run One", tmp_path)
    assert (
        made.kind == "test" and f"-test.trace={tmp_path}/trace" in made.argv and made.argv[-2:] == ["-test.run", "One"]
    )
    assert made.environment["GODEBUG"] == "x=1,gctrace=1,traceallocfree=1"


def test_the_version_in_a_binary(tmp_path):
    program = tmp_path / "program"
    head = b"\xff Go buildinf:" + b"\x08\x02" + b"\0" * 16
    program.write_bytes(b"\x7fELF" + b"\0" * 60 + head + b"\x08go1.27.3" + b"more")
    assert build_version(program) == "go1.27.3"
    program.write_bytes(head[:20])
    assert build_version(program) is None


def test_a_program_is_recorded_whatever_its_exit_status(tmp_path):
    program = script(
        tmp_path / "program",
        f"echo out; echo $GODEBUG $1 >&2; printf '%s' '{LINES[0]}' >&2; echo more >&2\n"
        f"printf '%s' '{LINES[1]}' >&2; exit 3",
    )
    run = allocsim(
        "record", "-o", "dir", "--", program, "-v", cwd=tmp_path, env={**ENV, "GODEBUG": "y=2", "GOGC": "50"}
    )
    assert (run.returncode, run.stdout) == (3, "out\n")
    assert run.stderr.startswith("y=2,gctrace=1,traceallocfree=1 -v\nmore\nallocsim: record: ")
    assert run.stderr.splitlines()[-1].startswith(
        "allocsim: record: 2 collections; the command ended with exit status 3; kept in dir"
    )
    told = json.loads((tmp_path / "dir" / "record.json").read_text())
    assert (told["status"], told["GOGC"], told["command"][1:], told["files"]) == (3, "50", ["-v"], ["gctrace.txt"])
    assert (tmp_path / "dir" / "gctrace.txt").read_text() == LINES[0] + LINES[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "program"]
    again = allocsim("record", "-o", "dir", "--", program, cwd=tmp_path)
    assert again.returncode == 2 and "dir: exists and is not empty" in again.stderr


def test_an_interrupt_goes_to_the_command_and_what_was_gathered_is_kept(tmp_path):
    program = script(
        tmp_path / "program",
        f"trap 'echo bye; exit 0' INT; printf '%s' '{LINES[0]}' >&2; echo up; while :; do sleep 0.05; done",
    )
    command = [sys.executable, "-m", "experiments.cli", "record", "-o", "dir", "--", str(program)]
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (0, "bye\n") and "1 collections; kept in dir" in err
    assert (tmp_path / "dir" / "gctrace.txt").read_text() == LINES[0]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nowhere"], "nowhere: no such command; name a program"),
        (["./plain"], "./plain: is not executable; make it so with chmod +x"),
        (
            ["--pprof", "ftp://x", "--", "true"],
            "--pprof ftp://x: is no address; write one such as http://localhost:6060",
        ),
        (["--seconds", "0", "--", "true"], "see allocsim record --help"),
        (["--seconds", "1", "--", "true"], "--seconds goes with --pprof alone"),
        ([], "see allocsim record --help"),
    ],
)
def test_what_cannot_be_recorded(tmp_path, arguments, fault):
    (tmp_path / "plain").write_text("")
    run = allocsim("record", *arguments, cwd=tmp_path)
    assert run.returncode == 2 and run.stdout == ""
    assert fault in run.stderr and len(run.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_without_go_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"go: no such command; install it from https://go.dev/dl .*allocsim\[go\]"):
        plan(["go", "test", "."], tmp_path, {}, trace=True)


class Handler(BaseHTTPRequestHandler):
    """net/http/pprof, as far as it is asked for; a trace is cut short if the server is told so."""

    cut = False

    def do_GET(self):
        self.send_response(200)
        cut = self.cut and "trace" in self.path
        body = self.path.encode()
        self.send_header("Content-Length", str(len(body) + 10 * cut))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("cut", [False, True])
def test_a_server_is_asked_for_its_profiles(tmp_path, cut):
    server = HTTPServer(("127.0.0.1", 0), type("Other", (Handler,), {"cut": cut}))
    url = f"http://127.0.0.1:{server.server_port}"
    fetcher = Fetcher(f"{url}/debug/pprof/", 0.2, tmp_path, trace=True)
    fetcher.start()  # before the server answers
    threading.Thread(target=server.serve_forever, daemon=True).start()
    limit = time.monotonic() + 20
    while not (fetcher.done.is_set() or fetcher.notes) and time.monotonic() < limit:
        time.sleep(0.01)
    with pytest.raises(InputError, match="answers already"):
        fetcher.check_free()
    fetcher.finish()
    server.shutdown()
    server.server_close()
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    if cut:
        assert files == {"heap.pb.gz": "/debug/pprof/heap"} and "trace?seconds=0.2: cut off" in fetcher.notes[0]
    else:
        assert not fetcher.notes and files == {
            "heap.pb.gz": "/debug/pprof/heap",
            "allocs.pb.gz": "/debug/pprof/allocs",
            "trace": "/debug/pprof/trace?seconds=0.2",
        }


def test_a_server_that_never_answers_is_named(tmp_path):
    fetcher = Fetcher("localhost:9", 1, tmp_path, trace=True)
    fetcher.check_free()
    fetcher.start()
    fetcher.finish()
    assert fetcher.notes[0].startswith("http://localhost:9/debug/pprof/ has not answered; serve net/http/pprof there")


def test_addresses():
    assert base_of("localhost:6060") == base_of("http://localhost:6060/debug/pprof/heap") == "http://localhost:6060"


def test_real_go(tmp_path):
    """A test of a real package: all files come, its own output too, and the trace replays as any other does."""
    try:
        go = find_go()
    except NoGo as why:
        pytest.skip(str(why))
    env = {
        **ENV,
        "PATH": f"{go.parent}:{os.environ['PATH']}",
        "GOMAXPROCS": "1",
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
    }
    env |= {
        "GOCACHE": str(tmp_path / "cache"),
        "GOPATH": str(tmp_path / "path"),
        "GOFLAGS": "-mod=mod",
        "GOWORK": "off",
    }
    if (standing := os.path.expanduser("~/.cache/go-build")) and os.path.isdir(standing):
        env["GOCACHE"] = standing
    package = tmp_path / "package"
    package.mkdir()
    for name in ("go.mod", "main.go", "record_test.go"):
        (package / name).write_bytes((PROGRAM / name).read_bytes())
    run = allocsim(
        "record", "-o", tmp_path / "dir", "--", "go", "test", "-v", "-run", "TestDocuments", ".", cwd=package, env=env
    )
    assert run.returncode == 0, run.stderr
    assert "--- PASS: TestDocuments" in run.stdout and "gc 1 @" not in run.stdout + run.stderr
    told = json.loads((tmp_path / "dir" / "record.json").read_text())
    assert told["files"] == ["gctrace.txt", "heap.pb.gz", "trace"] and told["go"].startswith("go1.")
    assert sorted(path.name for path in package.iterdir()) == ["go.mod", "main.go", "record_test.go"]
    again = allocsim("replay", "--json", tmp_path / "dir", cwd=tmp_path, env=env)
    slots = json.loads(again.stdout)["replay"]["slots"]
    assert slots["matched"] >= 0.99 * slots["total"] > 10_000
