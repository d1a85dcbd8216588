"""The shape of the package: rooms in one order, imports downwards only, and nothing private across rooms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import repertoire

ROOT = Path(repertoire.__file__).parent
REPOSITORY = Path(__file__).parent.parent
DESIGN = REPOSITORY / "docs" / "design.md"


def order() -> list[str]:
    """The rooms as the table of docs/design.md lists them, the highest first."""
    table = DESIGN.read_text(encoding="utf-8").split("## Rooms", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def rooms() -> set[str]:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    return folders | {path.stem for path in ROOT.glob("*.py") if not path.stem.startswith("__")}


def imports(file: Path, *, names: bool = False) -> Iterator[tuple[str, int]]:
    """Every module of the package that a file imports, lazily too, with the line; with `names`, each name of it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "repertoire":
            if node.module == "repertoire":
                yield from ((f"repertoire.{alias.name}", node.lineno) for alias in node.names)
            else:
                found = [f"{node.module}.{alias.name}" for alias in node.names] if names else [node.module]
                yield from ((module, node.lineno) for module in found)
        elif isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names if a.name.startswith("repertoire."))


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else file.stem


FILES = sorted(file for file in ROOT.rglob("*.py") if file.name != "__main__.py")


def test_every_room_has_its_place_in_the_design():
    assert sorted(order()) == sorted(rooms())


def test_rooms_import_downwards_only():
    """A room imports from those below it, never from one above: so there is no circle of rooms either."""
    level = {room: place for place, room in enumerate(reversed(order()))}
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in FILES
        if (room := room_of(file)) != "__init__"
        for module, line in imports(file)
        if (other := module.split(".")[1]) != room and other in level and level[other] > level[room]
    ]
    assert wrong == []


def room_tested(file: Path) -> str:
    """The room that a file of tests is about: that of its folder, or of its name where it is about a command."""
    parts = file.relative_to(REPOSITORY / "tests").parts
    return parts[0] if len(parts) > 1 else file.stem.removeprefix("test_")


@pytest.mark.parametrize("where", ["src", "benchmarks", "tools", "tests"])
def test_nothing_private_is_imported_across_rooms(where: str):
    """What another room may use is in its `__all__`; what is private may change on any day. Tests look into the room
    that they are about, and may take away, by its name, what another room does: to see what happens then."""
    wrong = []
    for file in sorted((REPOSITORY / where).rglob("*.py")):
        room = room_of(file) if where == "src" else room_tested(file) if where == "tests" else ""
        for module, line in imports(file, names=True):
            parts = module.split(".")[1:]
            private = any(part.startswith("_") and not part.endswith("__") for part in parts[1:])
            if private and parts[0] != room:
                wrong.append(f"{file.relative_to(REPOSITORY)}:{line} imports {module}")
    assert wrong == []


def test_no_module_imports_one_that_imports_it():
    """No circle of modules when they are imported, lazy imports aside."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if parts[-1] == "__init__":
            continue  # a package names what its modules hold
        graph[name] = {
            node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("repertoire.")
        }
    circles = [
        f"{name} <-> {other}"
        for name, found in graph.items()
        for other in found
        if name < other and name in graph.get(other, set())
    ]
    assert circles == []
