"""What holds for every component, whatever its room: a docstring that says enough, a card, a public name."""

from __future__ import annotations

import importlib
import inspect

import pytest

from repertoire import papers, registry

ENTRIES = [entry for room in registry.KINDS for entry in registry.entries(room)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}/{entry.name}")
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
