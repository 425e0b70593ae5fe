"""Slots per span, header and tiny rules against the table measured on the two real runtimes."""

import numpy as np
import pytest
from numba import int64

from sim.go.malloc import span_class_of
from sim.go.params import VERSIONS, set_facts
from sim.go.sizeclasses import class_to_size, size_class, span_nelems
from sim.go.state import heap_type, new_tables
from sim.jit import entry
from tests.go.measured_classes import TABLE


@entry(int64(heap_type, int64))
def nelems(h, spanclass):
    return span_nelems(h, spanclass)


@entry(int64(heap_type, int64, int64))
def spanclass_of(h, size, noscan):
    return span_class_of(h, size, noscan)


@entry(int64(int64))
def class_of(size):
    return size_class(size)


def heap(version):
    tables = new_tables()
    set_facts(tables.fields, VERSIONS[version])
    return tables


@pytest.mark.parametrize("version", ["go1.14", "go1.19"])
def test_slots_per_span_before_inline_marks(version):
    h = heap(version).header
    for sizeclass, _, _, n19, _, _ in TABLE:
        assert (nelems(h, 2 * sizeclass), nelems(h, 2 * sizeclass + 1)) == (n19, n19), sizeclass


def test_slots_per_span_go127():
    h = heap("go1.27").header
    for sizeclass, _, _, _, noscan, scan in TABLE:
        assert (nelems(h, 2 * sizeclass + 1), nelems(h, 2 * sizeclass)) == (noscan, scan), sizeclass


def test_every_request_takes_the_smallest_class_that_holds_it():
    sizes = [size for _, size, *_ in TABLE]
    for request in range(1, 32769):
        wanted = next(size for size in sizes if size >= request) if request <= 8 or request % 61 == 0 else None
        got = class_to_size[class_of(request)]
        assert got >= request and class_to_size[class_of(request) - 1] < request
        assert wanted is None or got == wanted


@pytest.mark.parametrize(
    ("version", "size", "noscan", "spanclass"),
    [
        ("go1.27", 15, 1, 5),  # tiny block
        ("go1.27", 16, 1, 5),
        ("go1.27", 8, 0, 2),  # a pointer is never tiny
        ("go1.27", 512, 0, 26 * 2),  # no header up to 512
        ("go1.27", 1024, 0, 33 * 2),  # header: 1032 bytes take class 1152
        ("go1.27", 1016, 0, 32 * 2),
        ("go1.27", 1024, 1, 32 * 2 + 1),
        ("go1.27", 32760, 0, 67 * 2),
        ("go1.27", 32761, 1, 1),  # large in 1.27 ...
        ("go1.19", 32761, 1, 67 * 2 + 1),  # ... small before
        ("go1.19", 1024, 0, 32 * 2),
        ("go1.19", 32769, 0, 0),
    ],
)
def test_header_tiny_and_large_rules(version, size, noscan, spanclass):
    assert spanclass_of(heap(version).header, size, noscan) == spanclass


def test_sizes_and_pages_equal_the_measured_table():
    from sim.go.sizeclasses import class_to_allocnpages

    assert [(int(c), int(class_to_size[c]), int(class_to_allocnpages[c])) for c in range(1, 68)] == [
        row[:3] for row in TABLE
    ]
    assert np.all(np.diff(class_to_size) > 0)
