"""What a measurement depends on: digests of the claim, of the components that it ran, and of the trunk.

Source is read, never imported, so that freshness of all evidence is known in seconds and without torch. A digest is
that of a definition's syntax tree without docstrings, comments, layout and the modules that names are imported from; it
is kept under the definition's own name. Moving a definition, or writing about it, therefore changes nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Footprint", "Freshness", "Library", "compare_footprints", "library"]

PACKAGE = "repertoire"

#: What every run goes through. Evidence of an older trunk is aged; it is not stale.
TRUNK = frozenset({"data", "errors", "files", "ops", "recipe", "registry", "rules", "statistics", "tasks", "train"})

#: Where beds have a definition each, called as the bed is: `omniglot-all` is OMNIGLOT_ALL.
_BEDS = "repertoire.claims.beds._named"

#: Arguments of a claim that are for its readers: they neither measure nor decide.
_WORDS = frozenset({"guard"})

#: Modules of the claims that decide and store, and measure nothing.
_HARNESS = frozenset(
    {"_again", "_arms", "_claim", "_evidence", "_footprint", "_harness", "_pilot", "_table", "__init__", "__main__"}
)


@dataclass(frozen=True)
class Footprint:
    """Digests of what a claim's evidence depends on.

    Attributes:
        claim: of the claim's function and everything that it calls in `repertoire.claims`, by name.
        components: of the components that ran, and of what they are made of outside the trunk, by name.
        trunk: one for all of the trunk.
    """

    claim: Mapping[str, str]
    components: Mapping[str, str]
    trunk: str


@dataclass(frozen=True)
class Freshness:
    """State of evidence beside the code that is there.

    Attributes:
        state: "fresh"; "aged" where only the trunk has changed; "stale" where the claim or a component has.
        changed: what did it, as `file: name`, sorted.
    """

    state: Literal["fresh", "aged", "stale"]
    changed: tuple[str, ...] = ()


@dataclass
class _Module:
    """A parsed file: what is defined at its top level, and where the names that it imports come from."""

    name: str
    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


Place = tuple[str, str]
"""A module and a name that is defined in it."""


class Library:
    """The source of the package.

    Args:
        root: folder of the package `repertoire`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, _Module | None] = {}
        self._own: set[str] = set()
        self._digests: dict[Place, str] = {}
        self._uses: dict[Place, frozenset[Place]] = {}

    def module(self, name: str) -> _Module | None:
        """The module of that dotted name; None where there is no such file."""
        if name not in self._modules:
            parts = name.split(".")
            if parts[0] == PACKAGE:
                base = self.root.joinpath(*parts[1:])
                path = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)
            else:
                file = getattr(sys.modules.get(name), "__file__", None) if name in self._own else None
                path = Path(file) if file else None
            self._modules[name] = None if path is None else _parse(name, path)
        return self._modules[name]

    def find(self, module: str, name: str) -> Place | None:
        """Place of the definition of a name that a module has: there, or where the module has it from."""
        for _ in range(12):  # a chain of re-exports; none is longer
            known = self.module(module)
            if known is None:
                return None
            if name in known.definitions:
                return module, name
            if name not in known.imports:
                return None
            module, name = known.imports[name]
        return None

    def dotted(self, name: str) -> Place | None:
        """Place of the definition of a public dotted name: `repertoire.losses.SupCon`."""
        module, _, attribute = name.rpartition(".")
        return self.find(module, attribute)

    def closure(self, roots: Iterable[Place], inside: Callable[[str], bool]) -> set[Place]:
        """The roots and every definition of a module inside that they use, directly or not."""
        reached: set[Place] = set()
        waiting = list(roots)
        while waiting:
            place = waiting.pop()
            if place in reached:
                continue
            reached.add(place)
            waiting += [used for used in self.uses(place) if inside(used[0])]
        return reached

    def uses(self, place: Place) -> frozenset[Place]:
        """The definitions of the package that a definition names."""
        if place not in self._uses:
            module = self.module(place[0])
            assert module is not None
            self._uses[place] = frozenset(
                found for node in module.definitions[place[1]] for found in self._named(module, node)
            )
        return self._uses[place]

    def _named(self, module: _Module, node: ast.stmt) -> Iterator[Place]:
        """What a statement may mean by the names in it; a local name that is also a global one counts as both.

        In a claim, or what it calls, a string that is the name of a bed means the bed: a table of beds by name would
        make every claim depend on all of them.
        """
        yield from self._beds_called(module, node)
        local = dict(module.imports)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                local |= _imported(inner, module)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                if inner.id in module.definitions:
                    yield module.name, inner.id
                elif inner.id in local:
                    found = self.find(*local[inner.id])
                    if found is not None:
                        yield found
            elif isinstance(inner, ast.Attribute):
                owner = _owner(inner.value, local)
                found = self.find(owner, inner.attr) if owner else None
                if found is not None:
                    yield found

    def _beds_called(self, module: _Module, node: ast.stmt) -> Iterator[Place]:
        beds = self.module(_BEDS)
        own = module.name in self._own or module.name.startswith(f"{PACKAGE}.claims.")
        if beds is None or not own or module.name == _BEDS:
            return
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                name = inner.value.upper().replace("-", "_")
                if inner.value == inner.value.lower() and name in beds.definitions:
                    yield _BEDS, name

    def digest(self, place: Place) -> str:
        """Digest of a definition's syntax tree, without what says nothing of what it does."""
        if place not in self._digests:
            module = self.module(place[0])
            assert module is not None
            rooms = {name for name, (_, attribute) in module.imports.items() if not attribute}
            rooms |= {name for name, (owner, attribute) in module.imports.items() if self._is_module(owner, attribute)}
            text = "".join(piece for node in module.definitions[place[1]] for piece in _dump(node, rooms))
            self._digests[place] = hashlib.sha256(text.encode()).hexdigest()[:10]
        return self._digests[place]

    def _is_module(self, owner: str, attribute: str) -> bool:
        return owner.split(".")[0] == PACKAGE and self.module(f"{owner}.{attribute}") is not None

    def digests(self, places: Iterable[Place]) -> dict[str, str]:
        """Digests by name; of definitions with the same name one digest together."""
        grouped: dict[str, list[str]] = {}
        for place in places:
            grouped.setdefault(place[1], []).append(self.digest(place))
        return {name: found[0] if len(found) == 1 else _joined(found) for name, found in sorted(grouped.items())}

    @functools.cached_property
    def trunk(self) -> str:
        """One digest of every definition in the trunk."""
        found = []
        for room in sorted(TRUNK):
            base = self.root / room
            for path in sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]:
                parts = path.relative_to(self.root).with_suffix("").parts
                module = self.module(".".join((PACKAGE, *parts))) if path.is_file() else None
                if module is not None:
                    found += [name + self.digest((module.name, name)) for name in module.definitions]
        return _joined(found)

    def claim_places(self, module: str, function: str) -> set[Place]:
        """A claim's function and what it calls in the room of the claims."""
        if module.split(".")[0] != PACKAGE and module not in self._own:  # a claim of the user's own
            self._own.add(module)
            self._modules.pop(module, None)
        if self.find(module, function) is None:
            return set()
        return self.closure([(module, function)], lambda other: other == module or _of_claims(other))

    def component_places(self, claim: Iterable[Place], dotted: Iterable[str]) -> set[Place]:
        """Places that the claim names outside its room, with components by dotted name and what those are made of."""
        roots = {used for place in claim for used in self.uses(place) if _component(used[0])}
        given = {place for place in (self.dotted(name) for name in dotted) if place is not None}
        # A component of a room of the trunk, a rule for example, is what the claim is about if its card says so.
        own = {module for module, _ in given}
        return self.closure(roots | given, lambda module: module in own or _component(module))

    def footprint(self, module: str, function: str, dotted: Iterable[str]) -> Footprint:
        """Digests of what the evidence of a claim depends on.

        Args:
            module, function: where the claim's function is defined.
            dotted: public names of the components that its card lists, and of those that it had built.
        """
        claim = self.claim_places(module, function)
        components = self.component_places(claim, dotted)
        return Footprint(self.digests(claim), self.digests(components), self.trunk)

    def files(self, places: Iterable[Place]) -> dict[str, str]:
        """The file of each name, within the package."""
        found = {}
        for module, name in sorted(places):
            known = self.module(module)
            if known is not None:
                inside = known.path.is_relative_to(self.root)
                found[name] = known.path.relative_to(self.root).as_posix() if inside else str(known.path)
        return found


@functools.cache
def library() -> Library:
    """The source of this installation."""
    return Library(Path(__file__).resolve().parents[1])


def compare_footprints(then: Footprint | None, now: Footprint, files: Mapping[str, str]) -> Freshness:
    """Compares the footprint of evidence with that of the code.

    Args:
        then: of the evidence; None where it has none.
        now: of the code.
        files: where each name is defined now.
    """
    if then is None:
        return Freshness("stale", ("measured before evidence was bound to code",))
    changed = []
    for old, new in ((then.claim, now.claim), (then.components, now.components)):
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name):
                place = files.get(name, "no longer there")
                changed.append(f"{place}: {name}" + (" (new)" if name not in old else ""))
    if changed:
        return Freshness("stale", tuple(sorted(changed)))
    return Freshness("fresh" if then.trunk == now.trunk else "aged")


def _of_claims(module: str) -> bool:
    parts = module.split(".")
    return parts[1:2] == ["claims"] and len(parts) > 2 and parts[2] not in _HARNESS


def _component(module: str) -> bool:
    """Whether a module holds components, rather than trunk, the base of a contract, or what stands above components."""
    parts = module.split(".")
    if len(parts) < 2 or parts[1] in TRUNK or parts[-1] in ("_base", "_aliases"):
        return False
    return parts[1] not in ("claims", "papers", "compare", "plan", "report", "cli")


def _parse(name: str, path: Path) -> _Module:
    module = _Module(name, path)
    statements = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while statements:
        node = statements.pop(0)
        if isinstance(node, ast.If | ast.Try):  # TYPE_CHECKING, and what may not be installed
            statements += [
                *node.body,
                *getattr(node, "orelse", ()),
                *(s for h in getattr(node, "handlers", ()) for s in h.body),
            ]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module.imports |= _imported(node, module)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            module.definitions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name) and inner.id != "__all__":
                        module.definitions.setdefault(inner.id, []).append(node)
    return module


def _imported(node: ast.Import | ast.ImportFrom, module: _Module) -> dict[str, tuple[str, str]]:
    """Local name to module and name there; the name is empty where a whole module is imported under its own name."""
    if isinstance(node, ast.Import):
        names = [
            (alias.asname or alias.name.split(".")[0], alias.name if alias.asname else alias.name.split(".")[0])
            for alias in node.names
        ]
        return {local: (origin, "") for local, origin in names}
    origin = node.module or ""
    if node.level:
        parts = module.name.split(".")
        base = parts if module.path.name == "__init__.py" else parts[:-1]
        origin = ".".join([*base[: len(base) - node.level + 1], *([node.module] if node.module else [])])
    return {alias.asname or alias.name: (origin, alias.name) for alias in node.names}


def _owner(node: ast.expr, local: Mapping[str, tuple[str, str]]) -> str:
    """The dotted name of the module that an expression may be; "" where it is none."""
    if isinstance(node, ast.Name) and node.id in local:
        origin, name = local[node.id]
        return f"{origin}.{name}" if name else origin
    if isinstance(node, ast.Attribute):
        outer = _owner(node.value, local)
        return f"{outer}.{node.attr}" if outer else ""
    return ""


def _joined(digests: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()[:10]


def _dump(node: ast.AST, rooms: set[str]) -> Iterator[str]:
    """A syntax tree as text that is the same under every version of Python; `ast.dump` differs between them."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield "import(" + " ".join(sorted(alias.asname or alias.name.split(".")[-1] for alias in node.names)) + ")"
        return
    if isinstance(node, ast.Name):
        # A room under another name is the same room.
        yield "module" if node.id in rooms else f"Name {node.id} "
        return
    if isinstance(node, ast.Constant):
        yield f"{node.value!r} "
        return
    yield f"{type(node).__name__}("
    words = _WORDS if _claims(node) else frozenset()
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "kind", "type_comment", "type_params", "type_ignores") or value is None or value == []:
            continue
        if name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            value = [inner for inner in value if not _text(inner)]
        if name == "keywords":
            value = [inner for inner in value if inner.arg not in words]
        yield f"{name}="
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _dump(item, rooms)
            else:
                yield f"{item!r} "
    yield ")"


def _claims(node: ast.AST) -> bool:
    """Whether a call makes a claim: of `claim`, of a partial of it, by convention `_claim`, or of what makes one."""
    if not isinstance(node, ast.Call):
        return False
    if getattr(node.func, "attr", getattr(node.func, "id", "")) == "partial":
        return bool(node.args) and getattr(node.args[0], "id", "") == "claim"
    return getattr(node.func, "id", "") in ("claim", "_claim")


def _text(node: ast.AST) -> bool:
    """Whether a statement is a string and does nothing: a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
