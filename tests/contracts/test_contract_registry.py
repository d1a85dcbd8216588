"""What holds for every component, whatever its room: a docstring that says enough, a card, a public name."""

from __future__ import annotations

import importlib
import inspect

import pytest

from repertoire import papers, registry

ENTRIES = [entry for room in registry.ROOMS for entry in registry.entries(room)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.room}/{entry.name}")
class TestComponent:
    def test_it_is_public_where_its_card_says(self, entry: registry.Entry):
        module, _, name = entry.dotted.rpartition(".")
        imported = importlib.import_module(module)
        assert getattr(imported, name) is entry.factory
        assert name in imported.__all__

    def test_its_docstring_says_what_it_is_and_shows_it(self, entry: registry.Entry):
        text = inspect.getdoc(entry.factory) or ""
        assert 10 < len(entry.summary) <= 120, "the first line says what it is"
        options = registry.user_options(entry)
        if options:
            assert "Args:" in text
        for option in options:
            name = option.partition("=")[0]
            assert name in text, f"the docstring does not explain {name}"

    def test_its_options_have_types(self, entry: registry.Entry):
        hints = registry._hints(entry.factory)
        for name in registry.options(entry.factory):
            assert name in hints, name

    def test_its_paper_has_a_card_that_lists_it(self, entry: registry.Entry):
        if entry.paper is not None:
            assert entry.dotted in papers.get(entry.paper).components

    def test_its_name_can_be_typed(self, entry: registry.Entry):
        assert entry.name == entry.name.lower()
        assert all(c.isalnum() or c == "-" for c in entry.name)


def test_cards_list_components_that_exist():
    for card in papers.load():
        for dotted in card.components:
            module, _, name = dotted.rpartition(".")
            assert hasattr(importlib.import_module(module), name), f"{card.slug}: {dotted}"


def test_rooms_import_downwards_only():
    """The order of the rooms in the design: a room imports from those below it, never from those above."""
    import ast
    from pathlib import Path

    import repertoire

    order = [
        ["errors", "files", "registry", "statistics"],
        ["ops"],
        ["metrics"],
        ["data"],
        ["backbones", "heads", "losses", "diagnostics", "explain", "select", "estimators", "weights", "fewshot", "boosting", "merge"],
        ["methods"],
        ["rules"],
        ["local"],
        ["train"],
        ["compare"],
        ["papers"],
        ["claims"],
        ["report"],
        ["cli", "__main__"],
    ]
    level = {room: i for i, rooms in enumerate(order) for room in rooms}
    root = Path(repertoire.__file__).parent
    wrong = []
    for file in root.rglob("*.py"):
        room = file.relative_to(root).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("repertoire"):
                parts = node.module.split(".")
                names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name.split(".")[1] for a in node.names if a.name.startswith("repertoire.")]
            wrong += [f"{file.relative_to(root)} imports {n}" for n in names if level.get(n, -1) > level[room]]
    assert not wrong
