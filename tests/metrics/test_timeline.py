"""Timelines: what nests and what may not, room that ends; and the Perfetto trace, read by Perfetto's own messages."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from sim.metrics.perfetto import packets
from sim.metrics.timeline import Timeline, add_cycle, go_tracks
from sim.units import MIB, MS, NS, Throw
from tests.metrics.cycle_records import cycles

BEGIN, END, COUNTER = pb.TrackEvent.TYPE_SLICE_BEGIN, pb.TrackEvent.TYPE_SLICE_END, pb.TrackEvent.TYPE_COUNTER


class Reader:
    """A Perfetto trace as a viewer sees it: tracks by uuid, slices as (track, begin ns, end ns, name, category, args)."""

    def __init__(self, data):
        trace = pb.Trace()
        assert trace.ParseFromString(data) == len(data)
        size = trace.ByteSize()
        trace.DiscardUnknownFields()
        assert trace.ByteSize() == size
        self.tracks, self.slices, self.samples, self.times = {}, [], [], []
        self.names, self.categories, self.args = {}, {}, {}
        self.open = {}
        for packet in trace.packet:
            assert packet.trusted_packet_sequence_id == 1
            self.intern(packet.interned_data)
            if packet.HasField("track_descriptor"):
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            if packet.HasField("track_event"):
                assert packet.sequence_flags & pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
                self.event(packet.timestamp, packet.track_event)
        assert trace.packet[0].sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        assert not any(self.open.values())

    def intern(self, data):
        for ids, entries in (
            (self.names, data.event_names),
            (self.categories, data.event_categories),
            (self.args, data.debug_annotation_names),
        ):
            for entry in entries:
                assert entry.iid not in ids
                ids[entry.iid] = entry.name

    def event(self, time, event):
        self.times.append(time)
        track = self.tracks[event.track_uuid].name
        stack = self.open.setdefault(track, [])
        if event.type == BEGIN:
            args = {self.args[arg.name_iid]: getattr(arg, arg.WhichOneof("value")) for arg in event.debug_annotations}
            category = "".join(self.categories[iid] for iid in event.category_iids)
            stack.append((time, self.names[event.name_iid], category, args))
        elif event.type == END:
            begin, name, category, args = stack.pop()
            self.slices.append((track, begin, time, name, category, args))
        else:
            assert event.type == COUNTER
            self.samples.append((track, time, event.counter_value))


def read(timeline):
    return Reader(b"".join(packets(timeline, "program")))


def test_slices_counters_and_tracks_arrive():
    timeline = Timeline()
    tracks = go_tracks(timeline, 2)
    lock = timeline.track("mheap.lock", tracks.locks)
    timeline.begin(tracks.procs[1], 5 * NS, "worker", "go")
    timeline.slice(tracks.procs[1], 7 * NS + 999, 9 * NS + 1, "refill", "malloc", {"bytes": 8192, "fresh": True})
    timeline.end(tracks.procs[1], 20 * NS)
    args = {"n": -3, "x": 0.5, "who": "g7 µ", "big": (1 << 63) - 1, "least": -(1 << 63)}
    timeline.slice(lock, 0, 3 * MS, "held", args=args)
    timeline.sample(tracks.heap_goal, 6 * NS, (1 << 63) - 1)
    timeline.sample(tracks.heap_live, 2 * NS, 5 * MIB)
    found = read(timeline)
    assert sorted(found.slices, key=str) == sorted(
        [
            ("P1", 5, 20, "worker", "go", {}),
            ("P1", 7, 9, "refill", "malloc", {"bytes": 8192, "fresh": True}),
            ("mheap.lock", 0, 3_000_000, "held", "", args),
        ],
        key=str,
    )
    assert found.samples == [("heap live", 2, 5 * MIB), ("heap goal", 6, (1 << 63) - 1)]
    assert found.times == sorted(found.times)
    parents = {track.name: found.tracks[track.parent_uuid].name for track in found.tracks.values() if track.parent_uuid}
    assert parents == {
        **dict.fromkeys(("GC", "heap live", "heap goal", "heap trigger", "P0", "P1", "scavenger", "locks"), ""),
        "mheap.lock": "locks",
    }
    (process,) = (track for track in found.tracks.values() if track.HasField("process"))
    assert (process.process.process_name, process.child_ordering) == ("program", pb.TrackDescriptor.EXPLICIT)
    ranks = [track.sibling_order_rank for track in found.tracks.values() if track.parent_uuid]
    assert ranks == sorted(set(ranks))
    units = {track.name: track.counter.unit for track in found.tracks.values() if track.HasField("counter")}
    assert units == dict.fromkeys(("heap live", "heap goal", "heap trigger"), pb.CounterDescriptor.UNIT_SIZE_BYTES)


def test_a_counter_of_another_unit():
    timeline = Timeline()
    timeline.sample(timeline.counter("queue", "goroutines"), 1 * NS, 3)
    (counter,) = (track.counter for track in read(timeline).tracks.values() if track.HasField("counter"))
    assert (counter.unit, counter.unit_name) == (pb.CounterDescriptor.UNIT_COUNT, "goroutines")


def nested_slices(draw, begin, end, depth):
    """Random slices within [begin, end], the outer ones first."""
    at = begin
    while depth and at < end and draw.random() < 0.8:
        first = draw.randrange(at, end + 1)
        last = draw.randrange(first, end + 1)
        yield first, last
        yield from nested_slices(draw, first, last, depth - 1)
        at = last


@pytest.mark.parametrize("seed", range(20))
def test_random_nests_survive_to_the_nanosecond(seed):
    """Whole slices in any order, empty ones among them, on some tracks at once."""
    draw = random.Random(seed)
    timeline = Timeline()
    tracks = [timeline.track(f"t{i}") for i in range(3)]
    rows = []
    for track in tracks:
        slices = list(nested_slices(draw, 0, draw.choice((50, 50_000, 50 * MS)), 4))
        if draw.random() < 0.7:
            draw.shuffle(slices)
        rows += [(track, begin, end, f"s{i}") for i, (begin, end) in enumerate(slices)]
    for row in rows:
        timeline.slice(*row)
    found = read(timeline)
    assert Counter(one[:4] for one in found.slices) == Counter(
        (f"t{track}", begin // NS, end // NS, name) for track, begin, end, name in rows
    )
    assert found.times == sorted(found.times)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
def test_overlaps_are_found_and_nothing_else(pairs):
    slices = [(min(pair), max(pair)) for pair in pairs]
    timeline = Timeline()
    track = timeline.track("t")
    for i, (begin, end) in enumerate(slices):
        timeline.slice(track, begin, end, str(i))
    overlap = any(a[0] < b[0] < a[1] < b[1] for a in slices for b in slices)
    if overlap:
        with pytest.raises(Throw, match="slices '.*' and '.*' of track 't' overlap"):
            read(timeline)
    else:
        assert len(read(timeline).slices) == len(slices)


def test_what_cannot_be_recorded():
    timeline = Timeline()
    track, counter = timeline.track("t"), timeline.counter("c", "bytes")
    for wrong, message in (
        (lambda: timeline.end(track, 5), "an end at 5 on track 't', where nothing has begun"),
        (lambda: timeline.slice(track, 5, 4, "s"), "slice 's' of track 't' ends at 4, before its begin at 5"),
        (lambda: timeline.slice(track, -1, 4, "s"), "slice 's' begins at -1"),
        (lambda: timeline.slice(counter, 1, 4, "s"), "a slice on counter 'c'"),
        (lambda: timeline.sample(track, 1, 4), "a sample of track 't', which is no counter"),
        (lambda: timeline.sample(counter, -1, 4), "a sample of 'c' at -1"),
        (lambda: timeline.track("u", 7), "track 'u' belongs to track 7 of 2"),
    ):
        with pytest.raises(Throw, match=message):
            wrong()
    timeline.begin(track, 10, "s")
    with pytest.raises(Throw, match="slice 's' of track 't' never ends"):
        read(timeline)
    with pytest.raises(Throw, match="slice 's' ends at 9, before its begin at 10"):
        timeline.end(track, 9)


def test_a_run_that_is_over_ends_what_is_going_on():
    timeline = Timeline()
    track = timeline.track("t")
    for time in (1, 2, 3):
        timeline.begin(track, time * NS, f"s{time}")
    timeline.finish(9 * NS)
    assert {one[1:4] for one in read(timeline).slices} == {(1, 9, "s1"), (2, 9, "s2"), (3, 9, "s3")}


def test_a_full_timeline_counts_what_it_leaves_out_and_still_nests():
    timeline = Timeline(room=3)
    track, counter = timeline.track("t"), timeline.counter("c", "bytes")
    timeline.begin(track, 0, "outer")
    timeline.sample(counter, 1, 1)
    timeline.slice(track, 1 * NS, 2 * NS, "inner")
    timeline.begin(track, 3 * NS, "lost")
    timeline.slice(track, 3 * NS, 3 * NS, "lost too")
    timeline.sample(counter, 3 * NS, 2)
    for time in (4, 6):
        timeline.end(track, time * NS)
    assert timeline.dropped == 3
    found = read(timeline)
    assert {one[1:4] for one in found.slices} == {(0, 6, "outer"), (1, 2, "inner")}
    assert len(found.samples) == 1


def test_cycles_as_they_are_seen():
    timeline = Timeline()
    tracks = go_tracks(timeline, 1)
    run = cycles(3)
    for cycle in run:
        add_cycle(timeline, tracks, cycle)
    found = read(timeline)
    for cycle in run:
        times = [t // NS for t in (cycle.t_sweep_term, cycle.t_mark, cycle.t_mark_term, cycle.t_end)]
        phases = {name: (begin, end) for _, begin, end, name, _, _ in found.slices if times[0] <= begin <= times[3]}
        assert phases.pop("sweep", None) == ((times[3], cycle.swept.t_done // NS) if cycle.swept else None)
        assert phases == {
            f"gc {cycle.number}": (times[0], times[3]),
            "sweep termination": (times[0], times[1]),
            "mark": (times[1], times[2]),
            "mark termination": (times[2], times[3]),
        }
        live = {time: value for track, time, value in found.samples if track == "heap live"}
        assert [live[time] for time in (times[0], *times[2:])] == [cycle.heap0, cycle.heap1, cycle.heap2]
    assert {one[4] for one in found.slices} == {"gc"} and {one[0] for one in found.slices} == {"GC"}


def test_the_same_timeline_gives_the_same_bytes():
    def trace():
        timeline = Timeline()
        tracks = go_tracks(timeline, 1)
        for cycle in cycles(5):
            add_cycle(timeline, tracks, cycle)
        return b"".join(packets(timeline, "x"))

    assert trace() == trace()


def test_an_empty_timeline_is_a_trace_too():
    found = read(Timeline())
    assert not found.slices and len(found.tracks) == 1
