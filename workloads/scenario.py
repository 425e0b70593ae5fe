"""Scenario files: found, read, changed from the command line, checked.

A scenario is a TOML file (its keys: scenario_schema.py) or the name of a shipped one, from workloads/scenarios/.
Values given on the command line replace the file's before anything is checked, so that they are checked alike.
Whatever is wrong is a `ScenarioError` of one line, ``<file>: <key>: what is wrong; what would be right``.

`list_scenarios` reads the purpose lines alone: nothing heavy is imported until `load` checks a file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workloads.scenario_record import Scenario, ScenarioError, fault

__all__ = ["Scenario", "ScenarioError", "list_scenarios", "load"]

_SHIPPED = Path(__file__).parent / "scenarios"
_MAX_FILE = 16 << 20  # bytes; a scenario is a page of text
_WHERE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|(end of document))\)$")
_REPLACES = {"objects": "sizes_table", "sizes_table": "objects"}


def list_scenarios() -> list[tuple[str, str]]:
    """Name and purpose of each shipped scenario, by name."""
    paths = sorted(_SHIPPED.glob("*.toml"), key=lambda path: path.stem)
    return [(path.stem, str(tomllib.loads(path.read_text("utf-8"))["purpose"])) for path in paths]


def load(path_or_name: str | Path, sets: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """The scenario of a file, or a shipped one by its name.

    ``sets`` are texts ``key=value``, later ones over earlier ones: a dotted key (``runtime.gomaxprocs``,
    ``workload.objects.0.size``), or its last part where one section alone has that; the value is TOML, or a bare word
    (``512MiB``, ``off``). ``seed`` goes over both. Relative paths in a file start at its folder, those in ``sets`` at
    the current one. ScenarioError if anything is wrong.
    """
    file = str(path_or_name)
    path = _find(file)
    raw = parse(read_text(path, file), file)
    make_absolute(raw, path.parent)
    from workloads.scenario_schema import resolve

    apply_sets(raw, sets, file)
    if seed is not None:
        _assign(raw, ["run", "seed"], seed, file)
    make_absolute(raw, Path())
    return resolve(raw, file, path.stem)


def apply_sets(raw: dict[str, Any], sets: Sequence[str], file: str) -> None:
    """Change tables by texts ``key=value``, as `load` takes them; ScenarioError names ``file``."""
    from workloads.scenario_schema import SECTIONS

    for one in sets:
        _set(raw, one, SECTIONS, file)


def _find(name: str) -> Path:
    """The path of a scenario: a shipped name, or else a file."""
    shipped = sorted(path.stem for path in _SHIPPED.glob("*.toml"))
    if name in shipped:
        return _SHIPPED / f"{name}.toml"
    path = Path(name)
    if "\0" not in name and (path.is_file() or path.suffix == ".toml" or path.name != name):
        return path
    close = difflib.get_close_matches(name[:40], shipped, n=1)
    hint = f"did you mean {close[0]}?" if close else f"name a .toml file, or one of {', '.join(shipped)}"
    raise fault(name or "''", "", f"no such scenario; {hint}")


def read_text(path: Path, file: str) -> str:
    """What a TOML file holds; ScenarioError calls it ``file``."""
    try:
        with path.open("rb") as stream:
            found = stream.read(_MAX_FILE + 1)
    except FileNotFoundError:
        raise fault(file, "", "no such file; name one that exists") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise fault(file, "", f"cannot be read ({why}); name a file that can") from None
    if len(found) > _MAX_FILE:
        raise fault(file, "", "is larger than 16 MiB; name a scenario, which is a page of TOML")
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError as error:
        line = found.count(b"\n", 0, error.start) + 1
        raise fault(file, f"line {line}", "is not UTF-8 text; save it as UTF-8") from None


def parse(text: str, file: str) -> dict[str, Any]:
    """The tables of a TOML text; ScenarioError names the line."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise fault(file, "", "is nested too deeply; write tables as the schema has them") from None
    except ValueError as error:  # a number of too many digits is a plain ValueError
        raise _not_toml(str(error), text, file) from None


def _not_toml(message: str, text: str, file: str) -> ScenarioError:
    """What tomllib says, with the line first."""
    found = _WHERE.search(message)
    if found is None:
        return fault(file, "", f"is not TOML ({message}); write shorter numbers")
    what = message[: found.start()]
    what = re.sub(r"\('(.*?)',?\)", lambda key: key.group(1).replace("', '", "."), what)  # a key, as a tuple
    what = what[:1].lower() + what[1:]
    line = int(found.group(1)) if found.group(1) else text.count("\n") + (not text.endswith("\n"))
    place = f" at column {found.group(2)}" if found.group(2) else ""
    if any(word in what for word in ("overwrite", "twice", "mutate", "uplicate")):
        hint = "write each key and each section once"
    else:
        hint = 'write key = value with text and units in quotes, as in duration = "1s"'
    return fault(file, f"line {line}", f"is not TOML ({what}{place}); {hint}")


def make_absolute(raw: Mapping[str, Any], folder: Path) -> None:
    """Make the paths of files that a scenario names absolute."""
    for section, key in (("machine", "prices"), ("workload", "sizes_table"), ("workload", "trace")):
        table = raw.get(section)
        value = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict) or not isinstance(value, str) or not value:
            continue  # missing, or refused later
        if key != "prices" or "/" in value or value.endswith(".toml"):
            table[key] = str((folder / value).absolute())


def _set(raw: dict[str, Any], text: str, sections: Mapping[str, Sequence[str]], file: str) -> None:
    """Carry out one ``key=value``."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise fault(file, f"--set {text[:80]}", "is not key=value; write one such as gomaxprocs=8")
    path = full_key(key, sections, file)
    if path[0] == "workload" and len(path) == 2 and path[1] in _REPLACES and isinstance(raw.get("workload"), dict):
        raw["workload"].pop(_REPLACES[path[1]], None)
    _assign(raw, path, value_of(value, key, file), file)


def full_key(key: str, sections: Mapping[str, Sequence[str]], file: str) -> list[str]:
    """The path of a dotted key, or of one that a single section has."""
    if "." in key or key == "purpose" or key in sections:
        return key.split(".")
    owners = [section for section, keys in sections.items() if key in keys]
    if len(owners) == 1:
        return [owners[0], key]
    if owners:
        raise fault(file, key, f"is a key of several sections; write {' or '.join(f'{o}.{key}' for o in owners)}")
    full = {short: f"{section}.{short}" for section, keys in sections.items() for short in keys}
    close = difflib.get_close_matches(key[:40], full, n=1)
    hint = f"did you mean {full[close[0]]}?" if close else f"write it with its section: {', '.join(sections)}"
    raise fault(file, key[:80], f"unknown key; {hint}")


def value_of(text: str, key: str, file: str) -> Any:
    """A value as TOML has it, or a bare word; ScenarioError if it is neither."""
    text = text.strip()
    try:
        found = tomllib.loads(f"value = {text}")
        if list(found) == ["value"]:
            return found["value"]
    except (ValueError, RecursionError):
        pass
    if text[:1] in ("", "[", "{", '"', "'"):
        raise fault(
            file, key[:80], f"{text[:40] or 'nothing'} is not a TOML value; write one, with text inside in quotes"
        )
    return text


def _assign(raw: dict[str, Any], path: Sequence[str], value: Any, file: str) -> None:
    """Put a value at a path, through tables (made where missing) and lists (by index, from 0)."""
    node: Any = raw
    for i, part in enumerate(path):
        last = i == len(path) - 1
        if isinstance(node, list):
            if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(node)):
                raise fault(
                    file, ".".join(path)[:80], f"{part[:40]} is no index of this list; write 0 to {len(node) - 1}"
                )
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
            if not last:
                node.setdefault(part, {})
        else:
            what = f"{'.'.join(path[:i])[:80]} holds no other keys; write {'.'.join(path[:i])[:80]}=value"
            raise fault(file, ".".join(path)[:80], what)
        if last:
            node[index] = value
        else:
            node = node[index]
