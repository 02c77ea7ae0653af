"""What may import what, from the code's own imports: rooms, floors and circles.

    python -m tests.repository.layers

A room is a folder of a package, or a file beside the folders. ``A > B`` in ``ORDER``: A may import B and what stands
right of it; rooms between two commas do not import each other. Imports inside functions and for type checkers count.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("drloss", "detector", "harness", "support", "benchmarks", "tests")
Graph = Mapping[str, set[str]]

# By package, the floors from the top; a package's own face (``__init__``) is "face".
ORDER: dict[str, tuple[tuple[str, ...], ...]] = {
    "drloss": (
        ("face",),
        ("registry",),
        ("modules",),
        ("functional",),
        ("fused", "pairs"),
        ("kernels", "initial_value"),
        ("inputs", "surrogates", "plugins"),
        ("labels", "checks", "config", "numba_cache"),
    ),
    "detector": (
        ("face",),
        ("worker",),
        ("evaluation", "training"),
        ("build", "sanity"),
        ("weights",),
        ("device",),
        ("data", "model"),
        ("geometry", "kernels"),
        ("runs",),
        ("storage",),
        ("errors",),
    ),
    "harness": (
        ("face",),
        ("cli", "api"),
        ("doctor",),
        ("report", "launch", "bundles"),
        ("audit", "status"),
        ("figures",),
        ("planning",),
        ("verdicts", "slurm", "weights", "scaffold"),
        ("registry", "console", "code"),
        ("store", "failures", "folders", "machine", "units"),
    ),
}


@cache
def modules(package: str) -> dict[str, Path]:
    """Every module of a package, by its dotted name."""
    found = {}
    for path in sorted((PROJECT / package).rglob("*.py")):
        parts = path.relative_to(PROJECT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def known() -> frozenset[str]:
    """The dotted names of all our modules."""
    return frozenset(name for package in PACKAGES for name in modules(package))


@cache
def imports(path: Path, *, only_at_import: bool = False) -> frozenset[str]:
    """Modules that a file imports, others' too.

    only_at_import: without those inside functions and for type checkers.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if only_at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if only_at_import and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known() else node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return frozenset(found)


def room(module: str) -> str:
    """The room of a module: ``detector.data.coco.index`` stands in ``data``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "face"


def file_graph(package: str, *, only_at_import: bool = False) -> Graph:
    """For each module of a package, what it imports of the same package."""
    own = modules(package)
    return {name: (imports(path, only_at_import=only_at_import) & own.keys()) - {name} for name, path in own.items()}


def room_graph(package: str) -> Graph:
    """For each room of a package, the other rooms that it imports."""
    graph: dict[str, set[str]] = {}
    for name, imported in file_graph(package).items():
        graph.setdefault(room(name), set()).update(room(other) for other in imported)
    return {name: others - {name} for name, others in graph.items()}


def forbidden(package: str) -> Iterator[str]:
    """Imports that ``ORDER`` does not allow, in words."""
    floor = {name: height for height, rooms in enumerate(ORDER[package]) for name in rooms}
    for name, imported in file_graph(package).items():
        if room(name) not in floor:
            yield f"{name}: the room {room(name)} has no floor in ORDER"
            continue
        for other in sorted(imported):
            if room(other) != room(name) and floor.get(room(other), -1) <= floor[room(name)]:
                yield f"{name} imports {other}"


def circle(graph: Graph) -> list[str]:
    """A circle of imports, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(graph: Graph) -> int:
    """How many storeys the rooms need: the longest chain of imports between them."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[other] for other in graph.get(name, ())), default=0)
    return max(height.values())


def full_folders(package: str, limit: int) -> Iterator[tuple[Path, int]]:
    """Folders with more than ``limit`` files of Python."""
    folders: dict[Path, int] = {}
    for path in modules(package).values():
        folders[path.parent] = folders.get(path.parent, 0) + 1
    yield from ((folder, count) for folder, count in folders.items() if count > limit)


def _lines(package: str) -> Iterable[str]:
    rooms = room_graph(package)
    inside = {name for name in rooms if name != "face"}
    between = circle(rooms)
    circles = circle(file_graph(package)) or between
    height = (
        "?" if between else str(floors({name: others - {"face"} for name, others in rooms.items() if name != "face"}))
    )
    said = f"circle: {' > '.join(circles)}" if circles else "no circle"
    yield f"{package}: {len(inside)} rooms, {height} floors, {said}"
    for level in ORDER[package][1:]:
        built = [name for name in level if name in inside]
        if built:
            yield "    " + ", ".join(built)
    yield from (f"  FORBIDDEN {text}" for text in forbidden(package))
    yield from (f"  FULL {folder.relative_to(PROJECT)}: {count} files" for folder, count in full_folders(package, 14))


def main() -> int:
    """Print every package's rooms, from the top floor down. Returns 1 where something is not as it must be."""
    lines = [line for package in ORDER for line in _lines(package)]
    print(*lines, sep="\n")
    return int(any(word in line for line in lines for word in ("FORBIDDEN", "FULL", "circle: ")))


if __name__ == "__main__":
    sys.exit(main())
