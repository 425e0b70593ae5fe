"""A timeline as a Perfetto trace: TrackEvent packets in protobuf's wire format, for ui.perfetto.dev and trace_processor.

Mirrors protos/perfetto/trace/*.proto: Trace, TracePacket, TrackEvent, TrackDescriptor, InternedData, DebugAnnotation.
Written by hand: nine messages of varints, strings and doubles need no library. Names, categories and argument names
are interned, so that a slice takes some 40 bytes.

Perfetto's time is nanoseconds: picoseconds are cut to them, which keeps slices nested. Packets are in the order of
time, those of one track as they nest. The same timeline gives the same bytes.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from itertools import chain

from sim.metrics.timeline import Args, Timeline
from sim.units import NS

_SEQUENCE = 1  # trusted_packet_sequence_id: all packets are of one writer
_PROCESS = 1  # uuid of the process's track; those of a timeline's tracks follow
_SLICE_BEGIN, _SLICE_END, _COUNTER = 1, 2, 4  # TrackEvent.Type
_EXPLICIT = 3  # TrackDescriptor.ChildTracksOrdering: by sibling_order_rank
_STATE_CLEARED, _NEEDS_STATE = 1, 2  # TracePacket.SequenceFlags
_COUNT, _SIZE_BYTES = 2, 3  # CounterDescriptor.Unit
_EVENT_CATEGORIES, _EVENT_NAMES, _ARG_NAMES = 1, 2, 3  # fields of InternedData


def _varint(value: int) -> bytes:
    """An integer as base-128 digits, lowest first; a negative one as its two's complement of 64 bits."""
    value &= (1 << 64) - 1
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    """A string or a message."""
    content = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _packet(*parts: bytes) -> bytes:
    """A packet of a trace: its field of Trace, and what every packet has."""
    return _bytes(1, b"".join(parts) + _integer(10, _SEQUENCE))


class _Interned:
    """Texts that stand once in a trace: ids from 1 on, by kind; ``new`` is what the next packet has to explain."""

    def __init__(self) -> None:
        self.ids: dict[tuple[int, str], int] = {}
        self.new = b""

    def id(self, kind: int, text: str) -> int:
        found = self.ids.get((kind, text))
        if found is None:
            found = self.ids[kind, text] = len(self.ids) + 1
            self.new += _bytes(kind, _integer(1, found) + _bytes(2, text))
        return found

    def explain(self) -> bytes:
        """The interned_data of a packet, if there is any."""
        new, self.new = self.new, b""
        return _bytes(12, new) if new else b""


def _annotation(interned: _Interned, name: str, value: float | str | bool) -> bytes:
    """A debug annotation: an argument of a slice."""
    if isinstance(value, bool):
        content = _integer(2, value)
    elif isinstance(value, int):
        content = _integer(4, value)
    elif isinstance(value, float):
        content = _double(5, value)
    else:
        content = _bytes(6, value)
    return _bytes(4, _integer(1, interned.id(_ARG_NAMES, name)) + content)


def _event(time: int, kind: int, track: int, interned: _Interned, content: bytes) -> bytes:
    """A packet with an event, and with the texts that it is the first to use."""
    event = _integer(9, kind) + _integer(11, _PROCESS + 1 + track) + content
    explained = interned.explain()
    return _packet(_integer(8, time // NS), _integer(13, _NEEDS_STATE), explained, _bytes(11, event))


Event = tuple[int, int, int, int]
"""Time, kind, track; row of the slice, or value of the counter."""


def _slice_events(timeline: Timeline, track: int, rows: list[int]) -> Iterator[Event]:
    """Begins and ends of a track's slices as they nest."""
    around: list[int] = []
    for row, depth in timeline.nested(track, rows):
        while len(around) > depth:
            yield timeline.ends[around[-1]], _SLICE_END, track, around.pop()
        yield timeline.begins[row], _SLICE_BEGIN, track, row
        around.append(row)
    while around:
        yield timeline.ends[around[-1]], _SLICE_END, track, around.pop()


def _events(timeline: Timeline) -> Iterator[Event]:
    """All events in the order of time; at one instant by track, and within a track in its order."""
    slices = (_slice_events(timeline, track, rows) for track, rows in timeline.by_track())
    columns = zip(timeline.sample_times, timeline.sample_tracks, timeline.sample_values, strict=True)
    samples = sorted(((time, _COUNTER, track, value) for time, track, value in columns), key=lambda event: event[0])
    yield from heapq.merge(*slices, samples, key=lambda event: event[0])


def _descriptors(timeline: Timeline, name: str) -> Iterator[bytes]:
    """The process and its tracks, in their order."""
    process = _integer(1, _PROCESS) + _bytes(3, _integer(1, 1) + _bytes(6, name)) + _integer(11, _EXPLICIT)
    yield _packet(_integer(13, _STATE_CLEARED), _bytes(60, process))
    for i, track in enumerate(timeline.tracks):
        parent = _PROCESS if track.parent is None else _PROCESS + 1 + track.parent
        descriptor = _integer(1, _PROCESS + 1 + i) + _bytes(2, track.name) + _integer(5, parent)
        descriptor += _integer(11, _EXPLICIT) + _integer(12, i)
        if track.unit is not None:
            unit = _integer(3, _SIZE_BYTES) if track.unit == "bytes" else _integer(3, _COUNT) + _bytes(6, track.unit)
            descriptor += _bytes(8, unit)
        yield _packet(_bytes(60, descriptor))


def packets(timeline: Timeline, name: str) -> Iterable[bytes]:
    """The trace of a program called ``name``, packet by packet; joined they are the file.

    Throws where slices of a track overlap or have not ended.
    """
    return chain(_descriptors(timeline, name), _event_packets(timeline))


def _event_packets(timeline: Timeline) -> Iterator[bytes]:
    interned = _Interned()
    none: Args = {}
    for time, kind, track, what in _events(timeline):
        content = b""
        if kind == _COUNTER:
            content = _integer(30, what)
        elif kind == _SLICE_BEGIN:
            category = timeline.names[timeline.categories[what]]
            if category:
                content = _integer(3, interned.id(_EVENT_CATEGORIES, category))
            content += _integer(10, interned.id(_EVENT_NAMES, timeline.names[timeline.slice_names[what]]))
            args = timeline.args.get(what, none)
            content += b"".join(_annotation(interned, key, value) for key, value in args.items())
        yield _event(time, kind, track, interned, content)
