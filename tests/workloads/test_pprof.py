"""The reader of heap profiles against Google's own protocol buffers, on profiles of real programs."""

import gzip
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from workloads.pprof import parse_profile, read_profile

DATA = Path(__file__).parent.parent / "data" / "recorded"
PROFILES = sorted(DATA.glob("*.pb.gz"))
# of github.com/google/pprof, proto/profile.proto: number, name, type, repeated
MESSAGES = {
    "ValueType": [(1, "type", "int64", 0), (2, "unit", "int64", 0)],
    "Label": [(1, "key", "int64", 0), (2, "str", "int64", 0), (3, "num", "int64", 0)],
    "Line": [(1, "function_id", "uint64", 0), (2, "line", "int64", 0)],
    "Function": [(1, "id", "uint64", 0), (2, "name", "int64", 0)],
    "Location": [(1, "id", "uint64", 0), (4, "line", "Line", 1)],
    "Sample": [(1, "location_id", "uint64", 1), (2, "value", "int64", 1), (3, "label", "Label", 1)],
    "Profile": [
        (1, "sample_type", "ValueType", 1),
        (2, "sample", "Sample", 1),
        (4, "location", "Location", 1),
        (5, "function", "Function", 1),
        (6, "string_table", "string", 1),
        (9, "time_nanos", "int64", 0),
        (10, "duration_nanos", "int64", 0),
        (12, "period", "int64", 0),
    ],
}
TYPES = {"int64": 3, "uint64": 4, "string": 9}


def profile_class():
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="test", syntax="proto3")
    for name, entries in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, repeated in entries:
            one = message.field.add(name=field, number=number, label=3 if repeated else 1, type=TYPES.get(kind, 11))
            if kind not in TYPES:
                one.type_name = f".test.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Profile"))


PROFILE = profile_class()


def expected(message):
    """The samples as they should be read, in the order of the file."""
    text = message.string_table
    names = {one.id: text[one.name] for one in message.function}
    stacks = {one.id: [names[line.function_id] for line in one.line] for one in message.location}
    for sample in message.sample:
        sizes = [label.num for label in sample.label if text[label.key] == "bytes"]
        if sample.value[0] > 0:
            yield tuple(name for i in sample.location_id for name in stacks[i]), sizes[0], *sample.value


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_samples_are_those_that_protobuf_reads(path):
    message = PROFILE.FromString(gzip.decompress(path.read_bytes()))
    found = read_profile(path)
    told = [(s.stack, s.size, s.alloc_objects, s.alloc_space, s.inuse_objects, s.inuse_space) for s in found.samples]
    assert told == list(expected(message)) and len(told) > 3
    assert (found.period, found.time_ns, found.duration_ns) == (
        message.period,
        message.time_nanos,
        message.duration_nanos,
    )


def test_packed_and_single_numbers_are_the_same():
    message = PROFILE(string_table=["", "alloc_objects", "alloc_space", "inuse_objects", "inuse_space"])
    for i in (4, 3, 2, 1):  # another order than runtime/pprof's
        message.sample_type.add(type=i)
    message.sample.add(value=[10, 1, 320, 10])
    (sample,) = parse_profile(message.SerializeToString()).samples
    assert (sample.alloc_objects, sample.alloc_space, sample.inuse_objects, sample.inuse_space) == (10, 320, 1, 10)
    assert sample.size == 32  # without a label: bytes over objects


def test_a_profile_cut_anywhere_is_refused_or_shorter(tmp_path):
    data = gzip.decompress(PROFILES[0].read_bytes())
    whole = len(parse_profile(data).samples)
    path = tmp_path / "cut.pb.gz"
    for cut in range(0, len(data), 41):
        path.write_bytes(gzip.compress(data[:cut], 1))
        try:
            assert len(read_profile(path).samples) <= whole
        except ValueError as error:
            assert str(error).startswith(f"{path}: is no heap profile") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "its samples are of nothing"),
        (PROFILES[0].read_bytes()[:300], "cut short"),
        (b"heap profile: 1: 2 [3: 4] @ heap/1048576\n", "as text; fetch it without debug=1"),
        (b"\x1f\x8bnothing", "is no heap profile"),
    ],
)
def test_files_that_are_no_heap_profile(tmp_path, content, fault):
    path = tmp_path / "heap"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="heap: ") as caught:
        read_profile(path)
    assert fault in str(caught.value)


def test_another_kind_of_profile_is_named():
    message = PROFILE(string_table=["", "samples", "cpu"])
    message.sample_type.add(type=1)
    message.sample_type.add(type=2)
    with pytest.raises(ValueError, match="its samples are of samples, cpu"):
        parse_profile(message.SerializeToString())
