"""Compiled rooms: the decorators, the on-disk cache, and views of flat tables.

Rooms are plain functions over flat tables. numba compiles them; with ``NUMBA_DISABLE_JIT=1`` the very same code
runs as Python (slow: for debugging, coverage and small tests).

State is one *header*: an array of one record that holds scalars and, for every table, its address and length.
A compiled function takes the header alone and sees a table through the view made by :func:`table`.
Measured (2 cores, numba 0.68): a call with such a header costs 0.8 us from Python against 4.9 us for a named
tuple of fifteen arrays, compiles in half the time, and an access inside costs the same (2.8 ns for a whole
take-a-slot); the arrays can grow, since the address is read at each use. Nothing here counts references: the
:class:`Tables` object that made the arrays must outlive every use of its header.

The cache is keyed by a hash of all sources that use this module: numba itself notices an edit only in the
file of the compiled entry, not in a callee's file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numba
import numpy as np
from numba.core import cgutils, types
from numba.core.types.misc import unliteral
from numba.extending import intrinsic

PLAIN: bool = bool(numba.config.DISABLE_JIT)
_KEPT_CACHES = 3


def source_hash(root: Path | None = None) -> str:
    """Hash of every source below ``root`` (default: this distribution) that takes part in compiled code."""
    base = root or Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in ("sim", "workloads", "experiments"):
        for path in sorted((base / folder).rglob("*.py")):
            text = path.read_bytes()
            if b"sim.jit" in text or path.name == "jit.py":
                digest.update(path.relative_to(base).as_posix().encode() + b"\0" + text)
    return digest.hexdigest()[:16]


def _cache_dir() -> Path:
    """Where compiled code is kept: a directory of this source's own, or a temporary one if home is read-only."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = Path(os.environ.get("NUMBA_CACHE_DIR") or os.path.join(home, "allocsim"))
    chosen = root / source_hash()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        if not os.access(chosen, os.W_OK):
            raise PermissionError
    except OSError:
        return Path(tempfile.mkdtemp(prefix="allocsim-"))
    caches = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in [p for p in caches if p != chosen][_KEPT_CACHES:]:
        shutil.rmtree(old, ignore_errors=True)
    return chosen


CACHE_DIR = _cache_dir()
numba.config.CACHE_DIR = str(CACHE_DIR)


def cache_is_cold(*modules: str) -> bool:
    """True when one of these modules with entries (``pump`` for sim/go/pump.py) was never compiled as it is now."""
    return not PLAIN and not all(any(CACHE_DIR.rglob(f"{module}.*.nbc")) for module in modules)


def _compiler(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a function once for the types of its arguments.

    numba would compile it again for each constant it is called with, so that the constant's value may decide types; no
    function here needs that (cold compile of a run: 32 s of CPU with it, 28 without).
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function)
        if not PLAIN:
            by_value = dispatcher.get_call_template

            def by_type(args: Any, kws: Any) -> Any:
                return by_value([unliteral(x) for x in args], {k: unliteral(x) for k, x in kws.items()})

            dispatcher.get_call_template = by_type
        return dispatcher

    return decorate


jit: Callable[..., Any] = _compiler()
"""Decorator of a compiled function that only compiled functions call: it has no wrapper for Python (a seventh of the
compile time), so a call from Python crashes the process. Tests declare entries of their own."""


inlined: Callable[..., Any] = _compiler(forceinline=True)
"""The same, inlined wherever it is called: for the path of every operation. A call that is not costs 4 ns, most of it
the counting of references to the header (to none, if the entry took it through :func:`bare`)."""


def entry(*signature: Any) -> Callable[..., Any]:
    """Decorator of a compiled function that Python calls: cached on disk, with its signature declared."""
    return numba.njit(*signature, cache=True, error_model="numpy")


def header_type(dtype: np.dtype[Any]) -> Any:
    """The numba type of a header array, for signatures."""
    return numba.from_dtype(dtype)[::1]


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer (compiled code only)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


if PLAIN:

    def bare(array: Any) -> Any:
        """The array itself."""
        return array

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def bare(typingctx: Any, array: Any) -> Any:
        """The same array without its owner: an entry that calls many functions takes its arguments through this.

        numba counts references to an argument around each call it does not inline, by atomic additions of 5 ns each;
        an array without an owner has nothing to count. The caller from Python holds the owner until the entry returns.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            view = context.make_array(array)(context, builder, value=args[0])
            view.meminfo = cgutils.get_null_value(view.meminfo.type)
            view.parent = cgutils.get_null_value(view.parent.type)
            return view._getvalue()

        return array(array), codegen


_live: WeakValueDictionary[int, Any] = WeakValueDictionary()  # plain mode: the array at an address


def table(field: str, dtype: Any) -> Callable[[Any], Any]:
    """A view function ``view(h)``: the table whose address stands in ``h[0].field``, its length in ``field_len``."""
    length = field + "_len"
    if PLAIN:

        def view(h: Any) -> Any:
            return _live[int(h[0][field])]

        return view
    numba_dtype = np.dtype(dtype)

    @jit
    def compiled_view(h: Any) -> Any:
        return numba.carray(_pointer(h[0][field]), (h[0][length],), numba_dtype)

    return compiled_view


def view_at(dtype: Any) -> Callable[[Any, Any], Any]:
    """A view function ``view(address, n)``: n records of ``dtype`` at an address that `address_of` gave."""
    if PLAIN:

        def view(address: Any, n: Any) -> Any:
            return _live[int(address)]

        return view
    numba_dtype = np.dtype(dtype)

    @jit
    def compiled_view(address: Any, n: Any) -> Any:
        return numba.carray(_pointer(address), (n,), numba_dtype)

    return compiled_view


def address_of(array: np.ndarray[Any, Any]) -> int:
    """The address of an array's data, for a header field; the caller keeps the array alive."""
    address = int(array.ctypes.data)
    if PLAIN:
        _live[address] = array
    return address


class Tables:
    """Owns the arrays behind one header.

    Attributes: ``header``, the array of one record that rooms take; ``fields``, the same record for Python code
    (``tables.fields.sweepgen``); ``arrays``, by table name. The header is no recarray when compiled: numba would
    need 4.8 us instead of 0.5 to recognise it at each call.
    """

    def __init__(self, header_dtype: np.dtype[Any], tables: dict[str, Any]) -> None:
        header = np.zeros(1, header_dtype)
        self.fields: Any = header.view(np.recarray)[0]
        self.header: Any = header.view(np.recarray) if PLAIN else header
        self.dtypes = {name: np.dtype(dtype) for name, dtype in tables.items()}
        self.arrays: dict[str, Any] = {}

    def scalar(self, name: str) -> int:
        """An integer scalar of the header: 0.1 us, where ``fields.name`` takes 1.5."""
        return int(self.header[name].item())

    def allocate(self, name: str, length: int) -> Any:
        """Make (or grow, keeping the contents of) a table; zeroed memory the system backs only when touched."""
        old = self.arrays.get(name)
        array: Any = np.zeros(max(length, 1), self.dtypes[name])
        if array.dtype.names:
            array = array.view(np.recarray)
        if old is not None:
            array[: len(old)] = old
        self.arrays[name] = array
        self.header[name] = address_of(array)
        self.header[name + "_len"] = len(array)
        return array

    def at_least(self, name: str, length: int) -> None:
        """Grow a table that has fewer rows than ``length``, to twice as many as it has at least."""
        if length > len(self.arrays[name]):
            self.allocate(name, max(length, 2 * len(self.arrays[name])))

    def copy(self, shared: Sequence[str] = ()) -> Tables:
        """The same scalars and tables once more; those named in ``shared`` are not copied."""
        other = object.__new__(Tables)
        other.header = self.header.copy()
        other.fields = other.header.view(np.recarray)[0]
        other.dtypes = self.dtypes
        other.arrays = dict(self.arrays)
        for name, array in self.arrays.items():
            if name not in shared:
                other.arrays[name] = array.copy()
                other.header[name] = address_of(other.arrays[name])
        return other


def header_dtype(scalars: list[tuple[str, str]], tables: dict[str, Any]) -> np.dtype[Any]:
    """The header's record: its scalars, then an address and a length for each table."""
    fields: list[tuple[str, str]] = list(scalars)
    for name in tables:
        fields += [(name, "i8"), (name + "_len", "i8")]
    return np.dtype(fields, align=True)
