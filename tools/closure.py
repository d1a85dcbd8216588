"""The tests that a change reaches: those of the files that import what changed, directly or through others.

    python tools/closure.py [--base REVISION] [FILE ...]

Prints arguments for pytest. Without files, those that differ from the revision (HEAD by default) are taken, new ones
among them. A name that a package only passes on (`from repertoire.losses import SupCon`) leads to the module that
defines it, not to the whole package; a component that is named in a text (`"local:auxiliary=conv"`) leads to the
module that registers it. Suites over all components of a kind are cut down to those that are reached (`--components`).
What a test reaches in ways that cannot be read off its text is not found: `make test` runs everything.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

#: A change of these may change anything.
EVERYTHING = ("pyproject.toml", "constraints.txt", "tests/conftest.py", "tests/warm.py", "src/repertoire/registry.py")
#: Tests that look at files rather than import them.
LOOKS_AT = {
    "tests/test_architecture.py": ("src", "benchmarks", "tools", "docs/design.md"),
    "tests/docs": ("docs", "mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tools/docs"),
    "tests/papers": ("src/repertoire/papers",),
    "tests/claims": ("src/repertoire/papers/evidence",),
}


class Closure:
    """Which file of a repository uses which others.

    Args:
        root: the repository: `src/PACKAGE`, `tests`, and any other Python beside them.
        package: the package's name.
    """

    def __init__(self, root: Path, package: str = "repertoire") -> None:
        self.root, self.package = root, package
        places = (root / "src" / package, root / "tests", root / "benchmarks", root / "tools")
        self.files = sorted(file for place in places if place.exists() for file in place.rglob("*.py"))
        self.trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in self.files}
        self.modules = {self.module(file): file for file in self.files}

    def module(self, file: Path) -> str:
        """The name that a file is imported by. Files of a folder of tests are found by their own."""
        source = self.root / "src"
        parts = list(
            (file.relative_to(source) if file.is_relative_to(source) else Path(file.name)).with_suffix("").parts
        )
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def registered(self) -> dict[Path, set[tuple[str, str]]]:
        """The components, as kind and name, that each file registers."""
        found: dict[Path, set[tuple[str, str]]] = defaultdict(set)
        for file, tree in self.trees.items():
            for node in ast.walk(tree) if file.is_relative_to(self.root / "src") else ():
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register" and len(node.args) == 2:
                    values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                    if len(values) == 2:
                        found[file].add((str(values[0]), str(values[1])))
        return found

    @cached_property
    def homes(self) -> dict[str, set[Path]]:
        """Where the components of each name are registered."""
        found: dict[str, set[Path]] = defaultdict(set)
        for file, components in self.registered.items():
            for _, name in components:
                found[name].add(file)
        return found

    @cached_property
    def passed_on(self) -> dict[str, dict[str, tuple[str, str]]]:
        """For each package, the names that it only passes on, each with the module it is from and its name there."""
        found: dict[str, dict[str, tuple[str, str]]] = {}
        for module, file in self.modules.items():
            if file.name == "__init__.py":
                nodes = [
                    node for node in ast.walk(self.trees[file]) if isinstance(node, ast.ImportFrom) and node.module
                ]
                found[module] = {
                    alias.asname or alias.name: (node.module, alias.name)
                    for node in nodes
                    for alias in node.names
                    if node.module is not None and node.module.startswith(self.package)
                }
        return found

    def resolve(self, module: str, name: str) -> Iterator[Path]:
        """The files that `from module import name` needs."""
        seen = set()
        while (module, name) not in seen:
            seen.add((module, name))
            if f"{module}.{name}" in self.modules:
                yield from self.whole(f"{module}.{name}")
                return
            if name not in self.passed_on.get(module, {}):
                break
            module, name = self.passed_on[module][name]
        if module in self.modules:
            yield self.modules[module]

    def whole(self, module: str) -> Iterator[Path]:
        """The files that a module is made of: itself, and for a package what it passes on."""
        if module in self.modules:
            yield self.modules[module]
        for origin, name in self.passed_on.get(module, {}).values():
            if (origin, name) != (module, name) and origin != module:
                yield from (file for file in self.resolve(origin, name) if file != self.modules.get(module))

    def uses(self, file: Path) -> set[Path]:
        """The files that a file uses directly."""
        tree, found = self.trees[file], set()
        packages: dict[str, str] = {}
        package_of_tests = not file.is_relative_to(self.root / "src")
        if file.name == "__init__.py" and not package_of_tests:
            return set()  # whoever imports a name from it is led on to the module that defines the name
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    if inner in self.passed_on:
                        packages[alias.asname or alias.name] = inner
                    elif node.module in self.modules:
                        found.update(self.resolve(node.module, alias.name))
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in self.passed_on:
                        packages[alias.asname or alias.name] = alias.name
                    elif alias.name in self.modules:
                        found.add(self.modules[alias.name])
        found.update(self._through(tree, packages))
        return found - {file}

    def named(self, file: Path) -> set[Path]:
        """The files that register the components that a text in a file names.

        In the package a text is the whole spec, and leads to rooms below; a name of several kinds leads nowhere.
        """
        found: set[Path] = set()
        inside = file.is_relative_to(self.root / "src")
        for text in self._texts(self.trees[file]):
            for word in [text] if inside else re.split(r"[\s,=()]+", text):
                homes = self.homes.get(word.partition(":")[0], set())
                if not inside:
                    found |= homes
                elif len(homes) == 1:
                    found |= {home for home in homes if self.level(home) <= self.level(file)}
        return found - {file}

    def level(self, file: Path) -> int:
        """How high the room of a file stands in the table of rooms of docs/design.md."""
        room = file.relative_to(self.root / "src" / self.package).parts[0].removesuffix(".py")
        return self.rooms.index(room) if room in self.rooms else 0

    @cached_property
    def rooms(self) -> list[str]:
        """The rooms, the lowest first."""
        design = self.root / "docs" / "design.md"
        text = design.read_text(encoding="utf-8") if design.exists() else ""
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        return [name for row in rows for name in re.findall(r"`(\w+)`", row)][::-1]

    def _through(self, tree: ast.Module, packages: dict[str, str]) -> Iterator[Path]:
        """What is used of packages that are imported as such: their attributes, or all where one is handed on whole."""
        used: dict[str, int] = defaultdict(int)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name, attributes = node.value, [node.attr]
                while isinstance(name, ast.Attribute):
                    attributes.insert(0, name.attr)
                    name = name.value
                dotted = ".".join([name.id, *attributes]) if isinstance(name, ast.Name) else ""
                for alias, module in packages.items():
                    if dotted.startswith(f"{alias}."):
                        used[alias] += 1
                        yield from self._attribute(module, dotted.removeprefix(f"{alias}.").split("."))
        for alias, module in packages.items():
            names = sum(isinstance(node, ast.Name) and node.id == alias for node in ast.walk(tree))
            whole = sum(
                isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == alias
                for node in ast.walk(tree)
            )
            if "." not in alias and names > whole:
                yield from self.whole(module)

    def _attribute(self, module: str, names: list[str]) -> Iterator[Path]:
        while names and f"{module}.{names[0]}" in self.passed_on:
            module, names = f"{module}.{names[0]}", names[1:]
        if names:
            yield from self.resolve(module, names[0])

    @staticmethod
    def _texts(tree: ast.Module) -> Iterator[str]:
        """All texts but docstrings."""
        said = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
                yield node.value

    @cached_property
    def users(self) -> dict[Path, set[Path]]:
        """For each file, the files that use it directly."""
        found: dict[Path, set[Path]] = defaultdict(set)
        for file in self.files:
            for used in self.uses(file):
                found[used].add(file)
        for file in self.files:
            for used in self.named(file):
                found[used].add(file)
        return found

    def reached(self, changed: Iterable[Path]) -> set[Path]:
        """The files that use what changed, directly or through others, and what changed itself."""
        found: set[Path] = set()
        left = [file for file in changed if file in self.trees]
        while left:
            file = left.pop()
            if file not in found:
                found.add(file)
                left.extend(self.users.get(file, ()))
        return found

    def arguments(self, changed: Iterable[Path]) -> list[str]:
        """Arguments for pytest."""
        tests = self.root / "tests"
        changed = list(changed)
        names = [path.relative_to(self.root).as_posix() for path in changed if path.is_relative_to(self.root)]
        if any(name in EVERYTHING for name in names):
            return ["tests"]
        # A file that is no Python is read by its neighbours.
        beside = {f for path in changed if path.suffix != ".py" for f in path.parent.glob("*.py")}
        reached = self.reached([*changed, *beside])
        suites = {
            path.relative_to(self.root).as_posix()
            for path in reached
            if path.is_relative_to(tests) and path.name.startswith("test_")
        }
        for path in reached:
            if path.is_relative_to(tests) and path.name == "conftest.py":
                suites |= {f.relative_to(self.root).as_posix() for f in path.parent.rglob("test_*.py")}
        for suite, looked_at in LOOKS_AT.items():
            if (self.root / suite).exists() and any(n == p or n.startswith(f"{p}/") for n in names for p in looked_at):
                suites.add(suite)
        components = sorted(
            {f"{kind}/{name}" for path in reached for kind, name in self.registered.get(path, ())}
            if (tests / "contracts").exists()
            else ()
        )
        contracts = sorted(suite for suite in suites if suite.startswith("tests/contracts/"))
        found = sorted(suites)
        if components:
            kinds = {each.partition("/")[0] for each in components}
            found += [s for s in self._suites(kinds) if s not in contracts]
            found += [f"--components={','.join(components)}", f"--whole={','.join(contracts)}"]
        return found

    def _suites(self, kinds: set[str]) -> list[str]:
        """The suites over all components of one of these kinds."""
        found = []
        for file in sorted((self.root / "tests" / "contracts").glob("test_*.py")):
            if file.name == "test_contract_registry.py" or kinds & set(self._texts(self.trees[file])):
                found.append(file.relative_to(self.root).as_posix())
        return found


def changed_since(root: Path, base: str) -> list[Path]:
    """The files that differ from a revision, and new ones; without packages that only pass on other names."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    names = git("diff", "--name-only", base, "--").split() + git("ls-files", "--others", "--exclude-standard").split()
    found = []
    for name in names:
        if name.startswith("src/") and name.endswith("/__init__.py") and (root / name).exists():
            old = subprocess.run(["git", "-C", str(root), "show", f"{base}:{name}"], capture_output=True, text=True)
            if old.returncode == 0 and beside_names(old.stdout) == beside_names((root / name).read_text("utf-8")):
                continue
        found.append(root / name)
    return found


def beside_names(source: str) -> list[str]:
    """What a package does beside passing on names."""
    nodes = ast.parse(source).body
    kept = [node for node in nodes if not isinstance(node, ast.ImportFrom | ast.Import)]
    return [
        ast.dump(node)
        for node in kept
        if not (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("__all__", "_HOME"))
        and not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING")
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--base", default="HEAD", help="the revision to compare with")
    given = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    changed = [file.resolve() for file in given.files] or changed_since(root, given.base)
    print("\n".join(Closure(root).arguments(changed)))


if __name__ == "__main__":
    main()
