"""The import graph, held as text: who may import whom, and who may know SimPy, clocks, chance and files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each line may import itself and the lines above it; rooms parted by | never import each other.
LAYERS = """
    sim sim.units
    sim.jit sim.words sim.ops sim.costs sim.engine sim.metrics
    sim.threads
    sim.go | sim.tcmalloc | sim.textbook
    workloads
    experiments
    tests
"""
# where processes are written
SIMPY = """
    sim.engine sim.go.heaplock sim.go.mgc sim.go.mgcworker sim.go.newstack sim.go.bgscavenge sim.go.goroutine sim.go.proc sim.go.sched sim.go.stw sim.go.timers sim.go.world
    workloads.drive workloads.drive_trace experiments.run experiments.bench
    experiments.published_guide experiments.published_locks tests
"""
OUTSIDE = "io os pathlib random secrets tempfile time"  # what a room of an allocator never asks for
TOPS = {"sim", "workloads", "experiments", "tests"}


def places():
    """The folder or module of each room: (layer number, name of the group within the layer)."""
    found = {}
    for layer, line in enumerate(LAYERS.strip().splitlines()):
        for group in line.split("|"):
            for name in group.split():
                found[name] = (layer, group.split()[0])
    return found


def within(module, names):
    return any(module == name or module.startswith(name + ".") for name in names.split())


def place(module):
    """The longest named room that holds the module; ``sim`` names its own __init__ alone."""
    rooms = places()
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in rooms and (name != "sim" or module == "sim"):
            return rooms[name]
    return None


def imports(source, modules, types_too=True):
    """The modules a source imports anywhere in its text, or only those it imports when it runs."""
    found = set()
    tree = ast.parse(source)
    if not types_too:
        tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules else node.module)
    return found


def violations(sources):
    """Every import among ``sources`` (module name to text) that the text above does not allow."""
    wrong = []
    for module, source in sorted(sources.items()):
        here = place(module)
        if here is None:
            wrong.append(f"{module} stands in no layer")
            continue
        for name in sorted(imports(source, sources)):
            top = name.split(".")[0]
            if top == "simpy" and not within(module, SIMPY):
                wrong.append(f"{module} may not know simpy")
            if within(module, "sim.go sim.tcmalloc sim.textbook sim.threads") and within(name, OUTSIDE):
                wrong.append(f"{module} may not know {name}")
            if top in TOPS:
                there = place(name)
                if there is None or there[0] > here[0] or (there[0] == here[0] and there[1] != here[1]):
                    wrong.append(f"{module} may not import {name}")
    return wrong


def cycle(sources):
    """A chain of modules that import each other in a circle when they run, or none."""
    graph = {module: sorted((imports(text, sources, False) - {module}) & set(sources)) for module, text in sources.items()}
    done = set()

    def visit(module, chain):
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module not in done:
            for name in graph[module]:
                found = visit(name, [*chain, module])
                if found:
                    return found
            done.add(module)
        return None

    return next((found for module in sorted(graph) if (found := visit(module, []))), None)


@pytest.fixture(scope="module")
def tree():
    sources = {}
    for top in sorted(TOPS):
        for path in (ROOT / top).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            sources[module] = path.read_text()
    assert len(sources) > 20
    return sources


def test_imports_go_one_way(tree):
    assert violations(tree) == []


def test_no_module_imports_itself_in_a_circle(tree):
    assert cycle(tree) is None


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("sim.units", "from sim.jit import jit", "sim.units may not import sim.jit"),
        ("sim.jit", "from sim.go import mspan", "sim.jit may not import sim.go"),
        ("sim.go.mspan", "import sim.tcmalloc.span", "sim.go.mspan may not import sim.tcmalloc.span"),
        ("sim.textbook.blocks", "from sim.go import mspan", "sim.textbook.blocks may not import sim.go"),
        ("sim.textbook.heap", "import sim.tcmalloc.heap", "sim.textbook.heap may not import sim.tcmalloc.heap"),
        ("sim.threads.clock", "from sim.tcmalloc import span", "sim.threads.clock may not import sim.tcmalloc"),
        ("sim.textbook.malloc", "import simpy", "sim.textbook.malloc may not know simpy"),
        ("sim.go.mspan", "import simpy", "sim.go.mspan may not know simpy"),
        ("sim.go.mspan", "def f():\n    import random", "sim.go.mspan may not know random"),
        ("sim.metrics.series", "from pathlib import Path\nimport simpy", "sim.metrics.series may not know simpy"),
        ("workloads.gotrace", "from experiments.errors import InputError", "workloads.gotrace may not import"),
        ("experiments.run", "from tests.go import measured", "experiments.run may not import tests.go"),
        ("sim.attic.old", "", "sim.attic.old stands in no layer"),
    ],
)
def test_a_wrong_import_is_found(module, line, fault):
    (found,) = violations({module: line})
    assert found.startswith(fault)


def test_right_imports_are_let_through():
    allowed = {
        "sim.go.proc": "import simpy\nfrom sim.engine.clock import Clock\nfrom sim.go import mspan",
        "experiments.replay": "import os\nfrom workloads import gotrace\nfrom sim import __version__",
    }
    assert violations(allowed) == []


def test_a_circle_is_found():
    types_only = {"sim.words": "if TYPE_CHECKING:\n    import sim.ops", "sim.ops": "import sim.words"}
    assert cycle(types_only) is None
    circle = {"sim.words": "from sim import ops", "sim.ops": "import sim.costs", "sim.costs": "import sim.words"}
    assert cycle(circle) == ["sim.costs", "sim.words", "sim.ops", "sim.costs"]


def test_the_command_line_starts_light():
    heavy = "{'numba', 'numpy', 'scipy', 'simpy'}"
    code = f"import sys, experiments.cli; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
