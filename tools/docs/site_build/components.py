"""The table of a room's components, and how each is tried."""

from __future__ import annotations

import html

from repertoire import papers, registry

__all__ = ["component_table", "try_it"]

_OPTIONS = {
    "losses": "--loss", "heads": "--head", "backbones": "--backbone", "rules": "--rule", "methods": "--method",
    "augmentations": "--augment",
}  # fmt: skip


def component_table(room: str) -> str:
    """A Markdown table of what is registered in a room: name, what it is, options, paper.

    Raises:
        UnknownName: there is no such room.
    """
    rows = ["| name | what it is | options | paper |", "| --- | --- | --- | --- |"]
    for entry in registry.entries(room):
        options = "<br>".join(f"`{option}`" for option in registry.user_options(entry)) or "none"
        summary = entry.summary.replace("|", "\\|")  # a docstring is Markdown already
        paper = f"[{papers.get(entry.paper).year}](../papers/{entry.paper}.md)" if entry.paper else ""
        rows.append(f"| [`{entry.name}`][{entry.dotted}] | {summary} | {options} | {paper} |")
    return "\n".join(rows)


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
    if entry.room in _OPTIONS:
        return line, f"repertoire train photos/ {_OPTIONS[entry.room]} {entry.name}"
    if entry.room == "explainers":
        return line, f"repertoire explain runs/a photo.jpg --explainer {entry.name}"
    if entry.room == "data":
        return line, f"repertoire train {entry.name}"
    return line, ""


def status_badge(status: str) -> str:
    """A status as a badge; its colour only repeats what the word says."""
    return f'<span class="status {status.replace(" ", "-")}">{html.escape(status)}</span>'
