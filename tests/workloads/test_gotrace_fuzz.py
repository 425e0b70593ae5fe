"""Hostile bytes: whatever a file holds, a trace or one TraceError comes out, soon."""

import lzma
import time
from pathlib import Path

import numpy as np
import pytest

from workloads import gotrace
from workloads.gotrace import TraceError

DATA = Path(__file__).parent.parent / "data"
SMALL = DATA / "test-fmt-tests-P1-gogc_off.trace.xz"
SECONDS = 1.0
pytestmark = pytest.mark.slow  # in plain mode


def outcome(data, path):
    """A trace, or the text of the refusal; anything else is an error of this test."""
    path.write_bytes(data)
    began = time.perf_counter()
    try:
        found = gotrace.read_trace(path)
    except TraceError as error:
        (found,) = error.args
        assert "\n" not in found
        assert found.startswith(f"{path}: ")
    assert time.perf_counter() - began < SECONDS
    return found


def mutated(data, random):
    """A copy with some bytes flipped, cut, doubled or overwritten; most hits near the start of a random batch."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(0, len(out)))
        what = random.integers(0, 6)
        if what == 0:
            out[at] ^= 1 << int(random.integers(0, 8))
        elif what == 1:
            out[at] = int(random.integers(0, 256))
        elif what == 2:
            del out[at : at + int(random.integers(1, 2000))]
        elif what == 3:
            out[at:at] = out[at : at + int(random.integers(1, 70000))]
        elif what == 4:
            out[at : at + 12] = b"\xff" * int(random.integers(1, 12))
        else:
            del out[at:]
        if not out:
            break
    return bytes(out)


@pytest.fixture(scope="module")
def raw():
    gotrace.read_trace(SMALL)  # compiled before anything is timed
    return lzma.decompress(SMALL.read_bytes())


@pytest.mark.parametrize("seed", range(8))
def test_damaged_traces(seed, raw, tmp_path):
    random = np.random.default_rng(seed)
    refused = 0
    for _ in range(40):
        refused += isinstance(outcome(mutated(raw, random), tmp_path / "mutated"), str)
    assert refused > 10  # most damage shows


def test_flipped_bits_in_small_numbers_of_events(raw, tmp_path):
    """One bit at a time over the whole file: structure, tables and events."""
    for at in range(20, len(raw), len(raw) // 150):
        data = bytearray(raw)
        data[at] ^= 0x81
        outcome(bytes(data), tmp_path / "flipped")


def test_damaged_packing(tmp_path):
    random = np.random.default_rng(9)
    packed = SMALL.read_bytes()
    for _ in range(60):
        damaged = mutated(packed, random)
        assert damaged == packed or isinstance(outcome(damaged, tmp_path / "packed"), str)


def test_damaged_saved_files(raw, tmp_path):
    random = np.random.default_rng(10)
    gotrace.save(gotrace.read_trace(SMALL), tmp_path / "saved")
    saved = (tmp_path / "saved").read_bytes()
    for _ in range(100):
        outcome(mutated(saved, random), tmp_path / "damaged")


def test_random_bytes_behind_good_headers(raw, tmp_path):
    random = np.random.default_rng(11)
    for _ in range(100):
        body = random.integers(0, 256, int(random.integers(0, 3000)), np.uint8).tobytes()
        head = raw[: int(random.choice([16, 17, 30]))]
        assert isinstance(outcome(head + body, tmp_path / "random"), str)


def test_a_large_file_that_unpacks_to_nothing_is_refused_early(tmp_path):
    """300 MB of zeros behind a header pack into 50 kB; they must not be unpacked before the refusal."""
    packer = lzma.LZMACompressor(preset=0)
    packed = packer.compress(b"go 1.26 trace\0\0\0") + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300))
    assert "at byte 16: no batch starts here" in outcome(packed + packer.flush(), tmp_path / "bomb")
