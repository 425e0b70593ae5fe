"""What a scenario file may say: its keys, their defaults and limits, and what a person reads when one is wrong.

    purpose = "one line"                     # required

    [runtime]
    version = "go1.27"                       # "go1.19", "go1.14"
    gomaxprocs = 8                           # required; kind "trace": by default as recorded
    gogc = 100                               # GOGC: percent that the heap grows by between cycles, or "off"
    memory_limit = "off"                     # GOMEMLIMIT, as in "512MiB"
    heap_shape = "array-shuffled"            # which heap marking costs as much as: "array", "list", "list-shuffled", "tree"
    in_order = 0.0                           # "array-shuffled": share of it that is found as it was allocated
    assists = true                           # allocation marks to pay for itself; Go has no switch for it
    globals = "128KiB"                       # of the program, as far as they hold pointers
    layout = "sparse"                        # "linear": one reservation, as before Go 1.11
    mcentral_mutex = false                   # default: as the version has it
    memprofilerate = "off"                   # mean bytes between heap-profile samples, "512KiB" as Go has it by default

    [[runtime.change]]                       # debug.SetGCPercent, debug.SetMemoryLimit while the program runs
    at = "200ms"                             # required
    gogc = 50                                # this, memory_limit, or both
    memory_limit = "1GiB"

    [machine]
    prices = "epyc-2core"                    # a shipped machine file, or a path, from this file's folder
    cpus = 8                                 # default: gomaxprocs

    [run]
    seed = 1
    duration = "1s"                          # simulated; this, mallocs, or both: what comes first ends the run
                                             # (a trace ends by itself; mallocs: its first so many)
    mallocs = 1_000_000
    max_run_ahead = "1us"
    samples = 200                            # points of each time series that are kept

    [workload]
    kind = "workers"                         # a closed loop
    goroutines = 8                           # required
    think = "0s"                             # compute before each malloc
    think_dist = "fixed"                     # "exponential"
    round_mallocs = 1000                     # mallocs after which objects of lifetime "request" die
    stack = "288B"                           # bytes of stack that each goroutine's frames reach

    [workload]
    kind = "service"                         # an open loop: each request is a goroutine
    arrivals = "poisson"                     # "constant"
    rate = 20_000                            # requests a second; required
    phases = [{ compute = "20us", compute_dist = "fixed", mallocs = 50 }]
    stack = "288B"                           # bytes of stack that each request's frames reach

    [workload]
    kind = "trace"                           # what a real program did: goroutines of a recorded execution trace
    trace = "file.trace.xz"                  # raw, .xz or imported; a path, from this file's folder; required

    [[workload.objects]]                     # of workers and services: what is allocated
    weight = 1                               # against the other objects; shares do as well
    size = "64B"                             # required; or ["16B", "24B"] in equal parts, { low = "1KiB", high = "4KiB" },
                                             # or a list of { size = "64B", weight = 2 } and of such ranges
    pointers = 0.0                           # share of the objects that hold pointers
    pointer_bytes = 1.0                      # of their bytes, those up to the last pointer
    lifetime = "request"                     # "immortal", { ops = 1000, dist = "exponential" }, { bytes = "1MiB" },
                                             # { cache = 1000 }: see workloads/spec.py
    zeroed = true                            # must read as zeros
    touched = true                           # the program writes it right away

In place of objects, ``sizes_table = "file.csv"`` (a path, from this file's folder) takes them from a table of size,
rate and live objects. Unless think or rate say otherwise, the goroutines then aim at the table's total rate of
mallocs a second, and its lifetimes, which count the mallocs of the program, are shared out among the workers.

Defaults stand here, or in workloads/spec.py for what it has one, and nowhere else. Types are strict: 1 is no text and
"1" no number. Errors of pydantic are said again in our words; the first one that helps is the one shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from sim.go.params import VERSIONS
from sim.units import SEC
from workloads import spec
from workloads.scenario_record import NO_LIMIT, Change, Scenario, exact_size, fault, interval_of
from workloads.scenario_values import (
    MAX_COUNT,
    MAX_MEAN,
    MAX_OPS,
    MAX_PLACES,
    MAX_RANGE,
    MAX_RATE,
    MAX_TEXT,
    MAX_TIME,
    MIN_RATE,
    Count,
    Dist,
    GlobalsSize,
    Gogc,
    Limit,
    Line,
    MeanTime,
    Name,
    Share,
    Size,
    SizeOrOff,
    Stack,
    Weight,
    normal_sizes,
    normal_weights,
    real,
    shown,
    time,
    whole,
)


def _default(record: type, name: str) -> Any:
    """The default that workloads/spec.py has for a field."""
    return next(field.default for field in fields(record) if field.name == name)


# The tables of a file


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ChangeTable(_Table):
    """``[[runtime.change]]``: settings of the collector from a time on."""

    at: Annotated[int, time(0, MAX_TIME, "200ms")]
    gogc: Gogc | None = None
    memory_limit: Limit | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.gogc is None and self.memory_limit is None:
            raise ValueError("changes nothing; add gogc = 50, or memory_limit = \"1GiB\"")
        return self

    def record(self) -> Change:
        """The record."""
        return Change(self.at, self.gogc, self.memory_limit)


class Runtime(_Table):
    """``[runtime]``: the version and its settings."""

    version: Literal["go1.27", "go1.19", "go1.14"] = "go1.27"
    gomaxprocs: Annotated[int, whole(1, 1024)] | None = None
    gogc: Gogc = 100
    memory_limit: Limit = NO_LIMIT
    heap_shape: Literal["array-shuffled", "array", "list-shuffled", "list", "tree"] = "array-shuffled"
    in_order: Share = 0.0
    assists: bool = True
    globals: GlobalsSize = 128 << 10
    change: list[ChangeTable] = []
    layout: Literal["sparse", "linear"] = "sparse"
    mcentral_mutex: bool | None = None
    memprofilerate: SizeOrOff = 0

    @model_validator(mode="after")
    def _of_shuffled(self) -> Self:
        if self.in_order and self.heap_shape != "array-shuffled":
            raise ValueError('in_order is of heap_shape "array-shuffled"; leave it out')
        return self


class Machine(_Table):
    """``[machine]``: where prices come from."""

    prices: Name = "epyc-2core"
    cpus: Annotated[int, whole(1, 1024)] | None = None


class Run(_Table):
    """``[run]``: how long, how exactly, which seed."""

    seed: Annotated[int, whole(0, (1 << 64) - 1)] = 1
    duration: Annotated[int, time(1, MAX_TIME, "1s")] | None = None
    mallocs: Annotated[int, whole(1, 10**15)] | None = None
    max_run_ahead: Annotated[int, time(1000, SEC, "1us")] = 1_000_000
    samples: Annotated[int, whole(1, 1_000_000)] = 200


class Sizes(_Table):
    """One size, or a range of equally likely ones."""

    size: Size | None = None
    low: Size | None = None
    high: Size | None = None
    weight: Weight = Fraction(1)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.size is None) == (self.low is None) or (self.low is None) != (self.high is None):
            raise ValueError('is neither a size nor a range; write size = "64B", or both low and high')
        if self.low is not None and self.high is not None:
            if self.low > self.high:
                raise ValueError(f"low is {exact_size(self.low)}, high only {exact_size(self.high)}; swap them")
            if self.high - self.low >= MAX_RANGE:
                raise ValueError(f"the range is wider than {exact_size(MAX_RANGE)}; write it as several narrower ones")
        return self

    def limits(self) -> tuple[int, int]:
        """Smallest and largest size in bytes."""
        if self.size is not None:
            return self.size, self.size
        assert self.low is not None and self.high is not None
        return self.low, self.high


_SIZES = '"64B", a list of sizes, or { low = "1KiB", high = "4KiB" }'


def _size_parts(value: Any) -> Any:
    """All forms of sizes as a list of tables."""
    if isinstance(value, str):
        return [{"size": value}]
    if isinstance(value, dict):
        return [value]
    if type(value) is not list:
        raise ValueError(f"{shown(value)} is no size; write {_SIZES}")
    if not value:
        raise ValueError("the list is empty; write at least one size")
    return [part if isinstance(part, dict) else {"size": part} for part in value]


class LifetimeTable(_Table):
    """A lifetime that has a number."""

    ops: Annotated[int, whole(1, MAX_OPS)] | None = None
    bytes: Size | None = None
    cache: Annotated[int, whole(1, MAX_PLACES)] | None = None
    dist: Dist = _default(spec.Lifetime, "dist")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.ops is not None) + (self.bytes is not None) + (self.cache is not None) != 1:
            raise ValueError(f"has not exactly one of ops, bytes and cache; write {_LIFETIMES}")
        if self.cache is not None and "dist" in self.model_fields_set:
            raise ValueError("a cache has no dist; leave it out")
        return self

    def lifetime(self) -> spec.Lifetime:
        """The record."""
        if self.cache is not None:
            return spec.Lifetime("cache", self.cache)
        if self.bytes is not None:
            return spec.Lifetime("bytes", self.bytes, self.dist)
        assert self.ops is not None
        return spec.Lifetime("ops", self.ops, self.dist)


_LIFETIMES = '"immortal", "request", { ops = 1000 }, { bytes = "1MiB" } or { cache = 1000 }'


def _word(value: Any) -> str:
    if value not in ("immortal", "request"):
        raise ValueError(f"{shown(value)} is no lifetime; write {_LIFETIMES}")
    return str(value)


def _form(value: Any) -> str:
    return "table" if isinstance(value, dict) else "word"


_Word = Annotated[Literal["immortal", "request"], BeforeValidator(_word)]
AnyLifetime = Annotated[Annotated[LifetimeTable, Tag("table")] | Annotated[_Word, Tag("word")], Discriminator(_form)]


class Objects(_Table):
    """``[[workload.objects]]``: one kind of object."""

    weight: Weight = Fraction(1)
    size: Annotated[list[Sizes], BeforeValidator(_size_parts)]
    pointers: Share = 0.0
    pointer_bytes: Share = 1.0
    lifetime: AnyLifetime = "request"
    zeroed: bool = _default(spec.Objects, "zeroed")
    touched: bool = _default(spec.Objects, "touched")

    @model_validator(mode="after")
    def _some_size(self) -> Self:
        if not any(part.weight for part in self.size):
            raise ValueError("the weights of its sizes sum to 0; write at least one above 0")
        return self

    def record(self, weight: int) -> spec.Objects:
        """The record, at an integer weight."""
        lifetime = self.lifetime
        return spec.Objects(
            weight=weight,
            sizes=normal_sizes([(*part.limits(), part.weight) for part in self.size]),
            pointers_ppm=round(self.pointers * spec.PPM),
            pointer_bytes_ppm=round(self.pointer_bytes * spec.PPM),
            lifetime=lifetime.lifetime() if isinstance(lifetime, LifetimeTable) else spec.Lifetime(lifetime),
            zeroed=self.zeroed,
            touched=self.touched,
        )


class _Workload(_Table):
    objects: list[Objects] | None = None
    sizes_table: Name | None = None

    @model_validator(mode="after")
    def _one_mix(self) -> Self:
        if self.objects is not None and self.sizes_table is not None:
            raise ValueError("has both objects and sizes_table; leave one of them out")
        if self.sizes_table is None and not self.objects:
            raise ValueError("allocates nothing; write at least one [[workload.objects]], or sizes_table")
        if self.objects and not any(kind.weight for kind in self.objects):
            raise ValueError("the weights of its objects sum to 0; write at least one above 0")
        return self

    def check_places(self, goroutines: int) -> None:
        """ValueError if the places of all caches would not fit into memory."""
        lifetimes = [kind.lifetime for kind in self.objects or () if isinstance(kind.lifetime, LifetimeTable)]
        places = goroutines * sum(lifetime.cache or 0 for lifetime in lifetimes)
        if places > MAX_PLACES:
            raise ValueError(f"caches of {places} places in all, one of each per goroutine; write {MAX_PLACES} at most")

    def mix(self) -> tuple[spec.Mix, Fraction]:
        """What is allocated, without think time; and mallocs a second if a table says how many, else 0."""
        if self.sizes_table is not None:
            from workloads.sizetable import read_size_table  # type: ignore[import-not-found, unused-ignore]

            table = read_size_table(self.sizes_table)
            mix = table.mix
            kinds = [replace(kind, sizes=normal_sizes(kind.sizes)) for kind in mix.objects]
            weights = normal_weights([Fraction(kind.weight) for kind in kinds])
            kinds = [replace(kind, weight=w) for kind, w in zip(kinds, weights, strict=True) if w]
            return replace(mix, objects=tuple(kinds)), Fraction(table.rate)
        assert self.objects is not None
        weights = normal_weights([kind.weight for kind in self.objects])
        pairs = zip(self.objects, weights, strict=True)
        return spec.Mix(tuple(kind.record(weight) for kind, weight in pairs if weight)), Fraction(0)


class Workers(_Workload):
    """``[workload]`` of kind ``workers``."""

    kind: Literal["workers"]
    goroutines: Annotated[int, whole(1, 1_000_000)]
    think: MeanTime = _default(spec.Mix, "think")
    think_dist: Dist = _default(spec.Mix, "think_dist")
    round_mallocs: Count = _default(spec.Workers, "round_mallocs")
    stack: Stack = _default(spec.Workers, "stack")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.check_places(self.goroutines)
        return self

    def record(self) -> spec.Workers:
        """The record."""
        mix, rate = self.mix()
        think = self.think
        if rate and "think" not in self.model_fields_set:
            think = min(round(self.goroutines * SEC / rate), MAX_MEAN)
        kinds = mix.objects
        if self.sizes_table is not None:
            kinds = tuple(replace(kind, lifetime=self._own(kind.lifetime)) for kind in kinds)
        mix = replace(mix, objects=kinds, think=think, think_dist=self.think_dist)
        return spec.Workers(self.goroutines, mix, self.round_mallocs, self.stack)

    def _own(self, lifetime: spec.Lifetime) -> spec.Lifetime:
        """A lifetime in mallocs or bytes of the whole program in those of one goroutine."""
        if lifetime.kind not in ("ops", "bytes"):
            return lifetime
        return replace(lifetime, mean=max(1, (lifetime.mean + self.goroutines // 2) // self.goroutines))


class Phase(_Table):
    """One of a service's phases."""

    compute: MeanTime
    compute_dist: Dist = _default(spec.Phase, "compute_dist")
    mallocs: Annotated[int, whole(0, MAX_COUNT)]


class Service(_Workload):
    """``[workload]`` of kind ``service``."""

    kind: Literal["service"]
    arrivals: Literal["poisson", "constant"] = "poisson"
    rate: Annotated[float, real(MIN_RATE, MAX_RATE)] | None = None
    phases: list[Phase]
    stack: Stack = _default(spec.Service, "stack")

    @model_validator(mode="after")
    def _arrives_allocates_fits(self) -> Self:
        if self.rate is None and self.sizes_table is None:
            raise ValueError("has no rate; add the number of requests a second, as in rate = 1000")
        if not any(phase.mallocs for phase in self.phases):
            raise ValueError("no phase allocates; write mallocs above 0 in one of them")
        self.check_places(1)
        return self

    def record(self) -> spec.Service:
        """The record."""
        mix, mallocs_a_second = self.mix()
        rate = self.rate
        if rate is None:
            rate = float(mallocs_a_second / sum(phase.mallocs for phase in self.phases))
            rate = min(max(rate, MIN_RATE), MAX_RATE)
        phases = tuple(spec.Phase(phase.compute, phase.mallocs, phase.compute_dist) for phase in self.phases)
        return spec.Service(self.arrivals, interval_of(rate), phases, mix, self.stack)


class Trace(_Table):
    """``[workload]`` of kind ``trace``."""

    kind: Literal["trace"]
    trace: Name

    def record(self) -> spec.Recorded:
        """The record."""
        return spec.Recorded(self.trace)


class File(_Table):
    """A whole file."""

    purpose: Line
    runtime: Runtime | None = None
    machine: Machine = Machine()
    run: Run | None = None
    workload: Annotated[Workers | Service | Trace, Field(discriminator="kind")]


# Errors

TABLES: dict[str, tuple[type[_Table], ...]] = {  # by the name of the key that holds them
    "": (File,),
    "runtime": (Runtime,),
    "change": (ChangeTable,),
    "machine": (Machine,),
    "run": (Run,),
    "workload": (Workers, Service, Trace),
    "objects": (Objects,),
    "phases": (Phase,),
    "size": (Sizes,),
    "lifetime": (LifetimeTable,),
}
SECTIONS: dict[str, list[str]] = {
    section: [key for model in TABLES[section] for key in model.model_fields]
    for section in ("runtime", "machine", "run", "workload")
}
EXAMPLES = {  # of every key that may be missing
    "purpose": 'purpose = "what the scenario is for"',
    "runtime": "a section [runtime] with gomaxprocs = 8",
    "gomaxprocs": "gomaxprocs = 8",
    "run": "a section [run] with mallocs = 1000000",
    "at": 'at = "200ms"',
    "workload": 'a section [workload] with kind = "workers", kind = "service" or kind = "trace"',
    "kind": 'kind = "workers", kind = "service" or kind = "trace"',
    "goroutines": "goroutines = 8",
    "phases": 'phases = [{ compute = "20us", mallocs = 50 }]',
    "compute": 'compute = "20us"',
    "mallocs": "mallocs = 50",
    "size": 'size = "64B"',
    "trace": 'trace = "file.trace.xz"',
}


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that a misspelt one was probably meant to be."""
    found = difflib.get_close_matches(word[:MAX_TEXT], list(words), n=1)
    return found[0] if found else None


def unknown_key(path: Sequence[str | int], kind: Any) -> str:
    """What is wrong with a key that no table of this place has; ``kind`` is the workload's, where it has one."""
    names = [part for part in path if isinstance(part, str)]
    key, parent = names[-1], names[-2] if len(names) > 1 else ""
    models = TABLES.get(parent, ())
    ours = [model for model in models if parent != "workload" or model.__name__.lower() == kind] or list(models)
    keys = list(dict.fromkeys(key for model in ours for key in model.model_fields))
    homes = [section for section, known in SECTIONS.items() if key in known and section != parent]
    if parent == "workload" and key in SECTIONS["workload"]:
        return f"is no key of kind {shown(kind)}; leave it out, or change the kind"
    close = nearest(key, keys)
    if close is not None:
        return f"unknown key; did you mean {close}?"
    if homes:
        return f"unknown key here; it belongs to [{homes[0]}]"
    return f"unknown key; known here: {', '.join(keys)}"


def dotted(path: Iterable[str | int]) -> str:
    """A key's path for people, cut short."""
    return ".".join(str(part)[:MAX_TEXT] for part in path)


def _written(where: Sequence[str | int], raw: Any) -> list[str | int]:
    """The path that the file has of a place pydantic names: without its marks of unions and of forms made alike."""
    path: list[str | int] = []
    node: Any = raw
    for i, part in enumerate(where):
        keys: Any = node if isinstance(node, Mapping) else range(len(node)) if isinstance(node, list) else ()
        if part in keys:
            node = node[part]
            path.append(part)
        elif i == len(where) - 1 and isinstance(part, str) and isinstance(node, Mapping) and part in EXAMPLES:
            path.append(part)  # missing
    return path


def _translated(error: Any, raw: Mapping[str, Any]) -> tuple[list[str | int], str]:
    """Where one of pydantic's errors is and what it is, in our words."""
    path, value, context = _written(error["loc"], raw), error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return path, f"missing; add {EXAMPLES[str(path[-1])]}"
        case "extra_forbidden":
            workload = raw.get("workload")
            return path, unknown_key(path, workload.get("kind") if isinstance(workload, Mapping) else None)
        case "value_error":
            return path, str(context["error"])
        case "literal_error":
            return path, f"{shown(value)} is not known; write {context['expected']}"
        case "union_tag_invalid":
            return [*path, "kind"], f"{shown(value.get('kind'))} is not known; write {context['expected_tags']}"
        case "union_tag_not_found":
            return [*path, "kind"], f"missing; add {EXAMPLES['kind']}"
        case "bool_type":
            return path, f"{shown(value)} is not allowed; write true or false, without quotes"
        case "list_type":
            return path, f"{shown(value)} is no list; write tables in [ ], or under [[{dotted(path)}]]"
        case "model_type" | "model_attributes_type" | "dict_type":
            where = "" if isinstance(path[-1], int) else f", or such lines under [{dotted(path)}]"
            return path, f"{shown(value)} is no table; write {{ key = value }}{where}"
        case other:
            return path, f"{shown(value)} is not allowed ({other}); see workloads/scenario_schema.py for what is"


def _check_not_a_trace(model: File, file: str) -> None:
    """ScenarioError unless the file says what a trace would: how many Ps, and when the run ends."""
    for key, missing in (
        ("runtime", model.runtime is None),
        ("runtime.gomaxprocs", model.runtime is None or model.runtime.gomaxprocs is None),
        ("run", model.run is None),
    ):
        if missing:
            raise fault(file, key, f"missing; add {EXAMPLES[key.split('.')[-1]]}")
    if model.run is not None and model.run.duration is None and model.run.mallocs is None:
        raise fault(file, "run", 'has neither duration nor mallocs; write one or both, as in duration = "1s"')


def _recorded_procs(path: str, file: str) -> int:
    """Ps of a recorded program; ScenarioError if its trace cannot be used."""
    from workloads.gotrace_model import TraceError
    from workloads.tracestream import gomaxprocs, read

    try:
        return gomaxprocs(read(path))
    except TraceError as error:
        what = str(error)
        hint = "" if ";" in what else "; name a whole execution trace of Go 1.22 or later"
        raise fault(file, "workload.trace", what + hint) from error


def resolve(raw: Mapping[str, Any], file: str, name: str) -> Scenario:
    """A file's tables as a scenario; ScenarioError names ``file`` and the key."""
    try:
        model = File.model_validate(raw)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        first = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
        path, what = _translated(first, raw)
        raise fault(file, dotted(path), what) from None
    if isinstance(model.workload, Trace):
        recorded = _recorded_procs(model.workload.trace, file)
    else:
        recorded = None
        _check_not_a_trace(model, file)
    try:
        workload = model.workload.record()
    except ValueError as error:  # of the table
        table, what = str(raw["workload"]["sizes_table"]), str(error)
        what = what if what.startswith(table) else f"{table}: {what}"
        raise fault(file, "workload.sizes_table", what) from error
    runtime, run, machine = model.runtime or Runtime(), model.run or Run(), model.machine
    mutex = runtime.mcentral_mutex
    gomaxprocs = runtime.gomaxprocs or recorded
    assert gomaxprocs is not None
    return Scenario(
        name=name,
        purpose=model.purpose,
        version=runtime.version,
        gomaxprocs=gomaxprocs,
        gogc=runtime.gogc,
        memory_limit=runtime.memory_limit,
        heap_shape=runtime.heap_shape,
        in_order_ppm=round(runtime.in_order * spec.PPM),
        assists=runtime.assists,
        globals_bytes=runtime.globals,
        changes=tuple(sorted((change.record() for change in runtime.change), key=lambda change: change.at_ps)),
        layout=runtime.layout,
        mcentral_mutex=VERSIONS[runtime.version].mcentral_mutex if mutex is None else mutex,
        memprofilerate=runtime.memprofilerate,
        machine=machine.prices,
        cpus=gomaxprocs if machine.cpus is None else machine.cpus,
        seed=run.seed,
        duration_ps=run.duration,
        mallocs=run.mallocs,
        max_run_ahead_ps=run.max_run_ahead,
        samples=run.samples,
        workload=workload,
    )
