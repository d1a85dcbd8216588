"""The table of a kind's components, a page for each of them, and how each is tried."""

from __future__ import annotations

import functools
import html
import importlib
import re
from collections.abc import Mapping

from repertoire import papers, registry
from site_build.catalogue import Catalogue

__all__ = [
    "api",
    "component_page",
    "component_table",
    "component_uri",
    "family_link",
    "kinds_table",
    "status_badge",
    "try_it",
    "wanted",
]

PHOTOS, TAGGED, NUMBERED, SCENES, FEATURES = "photos/", "tagged/", "ages/", "scenes/", "features.npz"
"""What commands train on: a directory of images a class; images with several labels, a number, or maps; features."""
RUN = "runs/a"
"""A run that is there already."""
MADE = "shapes"
"""The source of generated images, which have further variables."""

_FOLDERS = {
    PHOTOS: "",
    MADE: "`shapes` is a data set that is generated, whose images have one of several backgrounds.",
    TAGGED: "`tagged/` holds images, and a `labels.csv` with a column for each label.",
    NUMBERED: "`ages/` holds images, and a `labels.csv` with a column of numbers.",
    SCENES: "`scenes/` holds `images/` and `maps/`, a map of the same name for each image.",
    FEATURES: "`features.npz` holds `features` and `labels`.",
}
_BESIDE = {
    "mask": "`photos/` also holds `masks/`, with a picture of the object for each image.",
    "unlabelled": "`photos/` also holds `unlabelled/`, with images that nobody has labelled.",
}
_FORMULA = re.compile(r":math:`([^`]*)`")


def component_uri(entry: registry.Entry) -> str:
    """The page of a component, from the root of the documentation."""
    return f"components/{entry.kind}/{entry.name}.md"


def component_table(room: str) -> str:
    """A Markdown table of what is registered as a kind: name, what it is, paper. Options are on each one's page.

    Raises:
        UnknownName: there is no such kind.
    """
    rows = ["| name | what it is | paper |", "| --- | --- | --- |"]
    for entry in registry.entries(room):
        paper = f"[{papers.get(entry.paper).year}](../papers/{entry.paper}.md)" if entry.paper else ""
        rows.append(f"| [`{entry.name}`]({entry.kind}/{entry.name}.md) | {_in_a_cell(entry.summary)} | {paper} |")
    return "\n".join(rows)


def component_page(entry: registry.Entry, catalogue: Catalogue) -> str:
    """The Markdown of a component's page: what it is, how it is tried, its options, its reference."""
    kind = registry.KINDS[entry.kind].singular
    facts = [kind]
    family = papers.family_of(entry)
    if family is not None:
        facts.append(family_link(family, "../../"))
    if entry.paper is not None:
        card = papers.get(entry.paper)
        by = f"{html.escape(card.authors)}, " if card.authors else ""
        facts.append(f'<a href="../../papers/{card.slug}.html">{by}{card.year}</a> {status_badge(card.status)}')
    python, command = try_it(entry.dotted, entry)
    shell = f"```sh\n{command}\n```\n\n" + "".join(f"{line}\n\n" for line in wanted(entry)) if command else ""
    described = _FORMULA.sub(r"\1", entry.summary).replace("'", "''")
    parts = [
        f"---\ntitle: '{entry.name}'\ndescription: '{described}'\n---",
        f"# {entry.name}",
        f"{' · '.join(facts)}\n{{ .paper-facts }}",
        entry.summary,
        f"{shell}```python\n{python}\n```",
    ]
    options = registry.user_options(entry)
    if options:
        parts.append(_options_table(entry.name, options))
    parts.append("## Reference")
    if _owner(entry) == entry:
        parts += [_reference(name) for name in (entry.dotted, *_beside(entry))]
    else:
        parts.append(f"[`{entry.dotted}`][{entry.dotted}]")
    others = [other for other in registry.entries(entry.kind) if other != entry and papers.family_of(other) == family]
    if others and family is not None:
        links = ", ".join(f"[`{other.name}`]({other.name}.md)" for other in others)
        parts.append(f"## For the same need\n\n{links}")
    return "\n\n".join(parts) + "\n"


def _options_table(name: str, options: list[str]) -> str:
    given = [option.partition("=") for option in options]
    rows = [f"| `{key}` | {f'`{value}`' if equals else 'must be given'} |" for key, equals, value in given]
    table = "\n".join(["| option | default |", "| --- | --- |", *rows])
    return f"## Options\n\nWritten as `{name}:{given[0][0]}=...`; several are separated by commas.\n\n{table}"


_OF_PARTS = frozenset({"repertoire.train"})
"""Modules with classes that are put together of private parts: what they have from these is shown as theirs."""


def api(module: str) -> str:
    """The reference of a module without what has a page of its own.

    Raises:
        KeyError: there is no such module.
    """
    public = _public(module)
    elsewhere = _on_pages()
    members = [name for name in public if f"{module}.{name}" not in elsewhere]
    listed = "".join(f"\n        - {name}" for name in members) or " []"
    inherited = "\n      inherited_members: true" if module in _OF_PARTS else ""
    return f"::: {module}\n    options:{inherited}\n      members:{listed}"


def _public(module: str) -> list[str]:
    """The public names of a module: those that it lists, or else those that it takes from its own files.

    Raises:
        KeyError: there is no such module, or it has none.
    """
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        raise KeyError(f"there is no module {module}") from None
    own = [n for n, v in vars(found).items() if n[0] != "_" and getattr(v, "__module__", "").startswith(f"{module}.")]
    names = list(getattr(found, "__all__", own))
    if not names:
        raise KeyError(f"the module {module} has no public names")
    return names


def kinds_table(pages: Mapping[str, str]) -> str:
    """A Markdown table of the kinds of components: what each is, its contract, how one is chosen.

    Args:
        pages: by kind, the page that lists its components, from this table's own folder.
    """
    rows = ["| kind | contract | how one is chosen |", "| --- | --- | --- |"]
    for kind in registry.KINDS.values():
        chosen = kind.command.format(spec="NAME", data="photos/")
        name = kind.name.replace("-", " ").capitalize()
        title = f"[{name}]({pages[kind.name]})" if kind.name in pages else name
        rows.append(f"| {title} | {_in_a_cell(kind.contract)} | {f'`{chosen}`' if chosen else 'in Python'} |")
    return "\n".join(rows)


@functools.cache
def _on_pages() -> frozenset[str]:
    """The dotted names that stand on the pages of components."""
    found: set[str] = set()
    for room in registry.KINDS:
        for entry in registry.entries(room):
            if _owner(entry) == entry:
                found |= {entry.dotted, *_beside(entry)}
    return frozenset(found)


@functools.cache
def _owners() -> dict[str, registry.Entry]:
    """By dotted name, the component on whose page it stands: the first of those that share it."""
    found: dict[str, registry.Entry] = {}
    for room in registry.KINDS:
        for entry in registry.entries(room):
            found.setdefault(entry.dotted, entry)
    return found


def _owner(entry: registry.Entry) -> registry.Entry:
    return _owners()[entry.dotted]


def _beside(entry: registry.Entry) -> list[str]:
    """Further public names of the component's own file, such as the function of a loss, where it is alone in it."""
    file = entry.factory.__module__
    if sum(other.factory.__module__ == file for other in _owners().values()) > 1:
        return []
    module = entry.dotted.rpartition(".")[0]
    room = importlib.import_module(module)
    names = [name for name in _public(module) if getattr(getattr(room, name), "__module__", "") == file]
    return [f"{module}.{name}" for name in names if name != entry.factory.__name__ and callable(getattr(room, name))]


def _reference(dotted: str) -> str:
    options = "show_root_heading: true, show_root_full_path: false, heading_level: 3"
    return f"::: {dotted}\n    options: {{ {options} }}"


def try_it(dotted: str, entry: registry.Entry | None) -> tuple[str, str]:
    """A line of Python and, where there is one, a command that use a component.

    >>> from repertoire.losses import SupCon
    >>> try_it("repertoire.losses.SupCon", registry.get("losses", "supcon"))
    ('from repertoire.losses import SupCon', 'repertoire train photos/ --loss supcon')
    """
    module, _, name = dotted.rpartition(".")
    line = f"from {module} import {name}"
    if entry is None:
        return line, ""
    needed = [option for option in registry.user_options(entry) if "=" not in option]
    if needed:
        return line, ""
    if _of_predictions(entry):
        return line, f"repertoire train {PHOTOS} --method unlabelled-loss:term={entry.name}"
    spec = f"{entry.name}:factor=background" if _by_factor(entry) else entry.name
    command = registry.KINDS[entry.kind].command.format(spec=spec, data=_data(entry))
    return line, command + _method_of(entry) + _teacher_of(entry) if command else ""


def _by_factor(entry: registry.Entry) -> bool:
    """Whether a component needs samples with a further variable."""
    return entry.kind == "protocols" and bool(getattr(entry.factory, "by_factor", False))


def _of_predictions(entry: registry.Entry) -> bool:
    """Whether a component is a loss on predictions without targets, which is added to one that has some."""
    return entry.kind == "losses" and getattr(entry.factory, "contract", "") == "predictions"


def _teacher_of(entry: registry.Entry) -> str:
    """The run that a method learns from, as an option."""
    needs = getattr(entry.factory, "needs", None) if entry.kind == "methods" else None
    return f" --teacher {RUN}" if getattr(needs, "reference", "") == "teacher" else ""


def _method_of(entry: registry.Entry) -> str:
    """The method that a head needs which looks at maps, as an option."""
    if entry.kind != "heads" or not getattr(entry.factory, "takes_maps", False):
        return ""
    methods = [method for method in registry.entries("methods") if method.factory.needs.head == entry.name]
    return "".join(f" --method {method.name}" for method in methods[:1])


def wanted(entry: registry.Entry) -> list[str]:
    """What the data of the command must hold, where that is more than a directory of images a class."""
    needs = getattr(entry.factory, "needs", None) if entry.kind == "methods" else None
    named = {*getattr(needs, "fields", ()), *getattr(needs, "streams", ())}
    named |= {"unlabelled"} if _of_predictions(entry) else set()
    return [
        line for line in (_FOLDERS[_data(entry)], *(_BESIDE[name] for name in sorted(named & set(_BESIDE)))) if line
    ]


def _data(entry: registry.Entry) -> str:
    """The folder that a command trains on, by the kind of targets that the component learns from."""
    if entry.kind == "backbones" and getattr(entry.factory, "modality", "images") == "features":
        return FEATURES
    if entry.kind == "heads" and getattr(entry.factory, "dense", False):
        return SCENES
    if _by_factor(entry):
        return MADE
    targets = getattr(entry.factory, "targets", ()) if entry.kind == "losses" else ()
    if not isinstance(targets, tuple) or not targets or "classes" in targets:
        return PHOTOS
    return TAGGED if "labels" in targets else NUMBERED


def family_link(slug: str, root: str) -> str:
    """A link to the page of a family, from a page from which `root` leads to the start."""
    return f'<a href="{root}families/{slug}.html">{html.escape(papers.family(slug).title)}</a>'


def status_badge(status: str) -> str:
    """A status as a badge; its colour only repeats what the word says."""
    return f'<span class="status {status.replace(" ", "-")}">{html.escape(status)}</span>'


def _in_a_cell(text: str) -> str:
    """A summary, which is Markdown already, inside a table."""
    return text.replace("|", "\\|")
