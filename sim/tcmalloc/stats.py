"""What the library tells about itself: numeric properties, the page map, and GetStats' text (tcmalloc.cc:ExtractStats).

All of it is bytes of spans; what the library's own metadata takes is left out, and so are the properties and lines that
count it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.sizeclasses import (
    NUM_CLASSES,
    PAGE_SHIFT,
    PAGE_SIZE,
    class_to_size,
    num_objects_to_move,
    tail_bytes,
)
from sim.tcmalloc.state import CACHED, IN_USE, MAX_PAGES, NORMAL, NUM_HEADS, RETURNED

_MIB = 1048576.0
RESERVED_SPANS = 2  # records taken at the start for no span, against cache conflicts (static_vars.cc)


def thread_list_lengths(heap: TCMalloc) -> Any:
    """Objects in caches of threads, by class."""
    lists = heap.arrays["free_lists"].length.reshape(-1, NUM_CLASSES)
    return lists[heap.arrays["threads"].state == CACHED].sum(axis=0, dtype=np.int64)


def numeric_properties(heap: TCMalloc) -> dict[str, int]:
    """MallocExtension::GetNumericProperty by name: bytes, or counts where the name says so."""
    c, threads, fields = heap.arrays["central"], heap.arrays["threads"], heap.fields
    heap_size = int(fields.heap_pages) << PAGE_SHIFT
    free, unmapped = int(fields.free_bytes), int(fields.unmapped_bytes)
    central = int((c.counter * class_to_size + c.num_spans * tail_bytes).sum())
    transfer = int((c.used_slots * num_objects_to_move * class_to_size).sum())
    thread = int(threads.cached[threads.state == CACHED].sum())
    return {
        "generic.current_allocated_bytes": heap_size - thread - central - transfer - free - unmapped,
        "generic.heap_size": heap_size,
        "tcmalloc.pageheap_free_bytes": free,
        "tcmalloc.pageheap_unmapped_bytes": unmapped,
        "tcmalloc.pageheap_committed_bytes": int(fields.committed_bytes),
        "tcmalloc.central_cache_free_bytes": central,
        "tcmalloc.transfer_cache_free_bytes": transfer,
        "tcmalloc.thread_cache_free_bytes": thread,
        "tcmalloc.current_total_thread_cache_bytes": thread,
        "tcmalloc.pageheap_scavenge_count": int(fields.scavenge_count),
        "tcmalloc.pageheap_commit_count": int(fields.commit_count),
        "tcmalloc.pageheap_total_commit_bytes": int(fields.total_commit_bytes),
        "tcmalloc.pageheap_decommit_count": int(fields.decommit_count),
        "tcmalloc.pageheap_total_decommit_bytes": int(fields.total_decommit_bytes),
        "tcmalloc.pageheap_reserve_count": int(fields.reserve_count),
        "tcmalloc.pageheap_total_reserve_bytes": heap_size,
    }


def page_map(heap: TCMalloc) -> list[list[int]]:
    """All spans by address: [first page, pages, kind, ppm].

    kind: 0 in use, 1 free, 2 free and returned. ppm: of a span for objects of a class the share of its bytes, in
    millionths, that objects outside it take; of a large object 1000000; of a free span 0.
    """
    spans, pagemap = heap.arrays["spans"], heap.arrays["pagemap"]
    found = []
    page, end = 0, int(heap.fields.heap_pages)
    while page < end:
        start, length, *_, refcount, cl, location = spans[pagemap[page + 1]].item()
        ppm = 0
        if location == IN_USE:
            nbytes = length << PAGE_SHIFT
            ppm = 1_000_000 if cl == 0 else (2_000_000 * int(class_to_size[cl]) * refcount + nbytes) // (2 * nbytes)
        found.append([start, length, location, ppm])
        page = start + length
    return found


def _class_lines(heap: TCMalloc) -> list[str]:
    """Free objects of each class that has any, in central lists, slots and caches of threads."""
    c = heap.arrays["central"]
    counts = c.counter + c.used_slots * num_objects_to_move + thread_list_lengths(heap)
    overheads = c.num_spans * tail_bytes
    lines = []
    bytes_so_far = overhead_so_far = 0
    for cl in range(NUM_CLASSES):
        if counts[cl] <= 0:
            continue
        size, count, overhead = int(class_to_size[cl]), int(counts[cl]), int(overheads[cl])
        bytes_so_far += count * size
        overhead_so_far += overhead
        lines.append(
            f"class {cl:3d} [ {size:8d} bytes ] : {count:8d} objs; {count * size / _MIB:5.1f} MiB;"
            f" {bytes_so_far / _MIB:5.1f} cum MiB; {overhead / _MIB:8.3f} overhead MiB;"
            f" {overhead_so_far / _MIB:8.3f} cum overhead MiB"
        )
    return lines


def _list_length(heap: TCMalloc, head: int) -> int:
    following = heap.arrays["spans"].next
    length, s = 0, int(following[head])
    while s != head:
        length, s = length + 1, int(following[s])
    return length


def _page_lines(heap: TCMalloc) -> list[str]:
    """Free spans by length, and how many bytes of them are unmapped."""
    lengths = range(1, MAX_PAGES + 1)
    rows = [(k, _list_length(heap, NORMAL + k), _list_length(heap, RETURNED + k)) for k in lengths]
    rows = [row for row in rows if row[1] + row[2]]
    fields, spans = heap.fields, heap.arrays["spans"]
    free, unmapped = int(fields.free_bytes) / _MIB, int(fields.unmapped_bytes) / _MIB
    lines = [f"PageHeap: {len(rows)} sizes; {free:6.1f} MiB free; {unmapped:6.1f} MiB unmapped", _RULE]
    total = returned = 0
    for k, normal, back in rows:
        total += k * (normal + back)
        returned += k * back
        lines.append(_page_line(f"{k:6d} pages * {normal + back:6d}", k * (normal + back), total, k * back, returned))
    n, m = int(fields.nlarge_normal), int(fields.nlarge_returned)
    large = [int(spans.length[heap.arrays["large_normal"][:n]].sum()), 0]
    large[1] = int(spans.length[heap.arrays["large_returned"][:m]].sum())
    total, returned = total + sum(large), returned + large[1]
    lines.append(_page_line(f">{MAX_PAGES:<5d} large * {n + m:6d}", sum(large), total, large[1], returned))
    return lines


_RULE = "-" * 48


def _page_line(what: str, pages: int, total: int, unmapped: int, unmapped_total: int) -> str:
    mib = [n * PAGE_SIZE / _MIB for n in (pages, total, unmapped, unmapped_total)]
    return f"{what} spans ~ {mib[0]:6.1f} MiB; {mib[1]:6.1f} MiB cum; unmapped: {mib[2]:6.1f} MiB; {mib[3]:6.1f} MiB cum"


def stats_lines(heap: TCMalloc) -> list[str]:
    """The lines of GetStats at its most verbose that tell of memory, without those that count metadata."""
    p = numeric_properties(heap)
    fields = heap.fields
    rows = [
        ("", p["generic.current_allocated_bytes"], "Bytes in use by application"),
        ("+", p["tcmalloc.pageheap_free_bytes"], "Bytes in page heap freelist"),
        ("+", p["tcmalloc.central_cache_free_bytes"], "Bytes in central cache freelist"),
        ("+", p["tcmalloc.transfer_cache_free_bytes"], "Bytes in transfer cache freelist"),
        ("+", p["tcmalloc.thread_cache_free_bytes"], "Bytes in thread cache freelists"),
        ("+", p["tcmalloc.pageheap_unmapped_bytes"], "Bytes released to OS (aka unmapped)"),
    ]
    lines = [f"MALLOC: {sign:1} {n:12d} ({n / _MIB:7.1f} MiB) {what}" for sign, n, what in rows]
    spans_in_use = int(fields.nspans - fields.nspare) - NUM_HEADS + RESERVED_SPANS
    counts = (
        (spans_in_use, "Spans in use"),
        (int(fields.thread_heap_count), "Thread heaps in use"),
        (PAGE_SIZE, "Tcmalloc page size"),
    )
    lines += [f"MALLOC:   {n:12d}              {what}" for n, what in counts]
    return lines + _class_lines(heap) + _page_lines(heap)
