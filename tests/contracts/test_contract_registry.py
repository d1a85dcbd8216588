"""What holds for every component, whatever its kind: a docstring that says enough, a card, a public name."""

from __future__ import annotations

import importlib
import inspect

import pytest

from repertoire import papers, registry

ENTRIES = [entry for kind in registry.KINDS for entry in registry.entries(kind)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}/{entry.name}")
def test_it_is_public_documented_and_named(entry: registry.Entry):
    module, _, name = entry.dotted.rpartition(".")
    imported = importlib.import_module(module)
    assert getattr(imported, name) is entry.factory
    assert name in imported.__all__

    text = inspect.getdoc(entry.factory) or ""
    assert 10 < len(entry.summary) <= 120, "the first line says what it is"
    options = registry.user_options(entry)
    assert not options or "Args:" in text
    for option in options:
        assert option.partition("=")[0] in text, f"the docstring does not explain {option}"
    hints = registry._hints(entry.factory)
    untyped = [name for name in registry.options(entry.factory) if name not in hints]
    assert not untyped, "options without a type"

    assert entry.name == entry.name.lower()
    assert all(c.isalnum() or c == "-" for c in entry.name)
    if entry.paper is not None:
        assert entry.dotted in papers.get(entry.paper).components


@pytest.mark.parametrize("kind", ["methods", "rules", "heads"])
def test_nothing_registered_is_derived_from_what_is_registered(kind: str):
    factories = {entry.factory: entry.name for entry in registry.entries(kind)}
    for factory, name in factories.items():
        above = [factories[base] for base in factory.__mro__[1:] if base in factories]
        assert not above, f"{name} is derived from {above}: give both an abstract base"


def test_cards_list_components_that_exist():
    for card in papers.load():
        for dotted in card.components:
            module, _, name = dotted.rpartition(".")
            assert hasattr(importlib.import_module(module), name), f"{card.slug}: {dotted}"
