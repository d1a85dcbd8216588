"""Descriptions of what has no card: each names something that exists, and what a need chooses is described."""

from __future__ import annotations

import importlib

import pytest
import typer

from repertoire import papers, registry
from repertoire.cli import build_app
from repertoire.recipe import TrainConfig

ITEMS = papers.components()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.kind}-{item.name}")
def test_it_exists(item: papers.Component) -> None:
    papers.family(item.family)
    assert item.summary.endswith(".")
    assert len(item.keywords) >= 2
    if item.kind == "options":
        assert item.name.replace("-", "_") in TrainConfig.model_fields
    elif item.kind == "commands":
        name, *rest = item.name.split()
        command = typer.main.get_command(build_app()).commands[name]
        assert {word for word in rest if word.startswith("-")} <= {o for p in command.params for o in p.opts}
    elif item.kind == "functions":
        module, _, name = item.name.rpartition(".")
        assert name in importlib.import_module(module).__all__
    else:
        entry = registry.get(item.kind, item.name)
        assert entry.paper is None, f"{item.name} has a card, {entry.paper}: describe it there"
        assert papers.family_of(entry) == item.family


def test_each_is_described_once() -> None:
    assert len({(item.kind, item.name) for item in ITEMS}) == len(ITEMS)


@pytest.mark.parametrize("kind", ["losses", "heads", "methods", "rules"])
def test_every_component_can_be_found_by_a_need(kind: str) -> None:
    """By its paper's card, or by a description in papers/components.toml."""
    described = {item.name for item in ITEMS if item.kind == kind}
    ours = [entry for entry in registry.entries(kind) if entry.factory.__module__.startswith("repertoire.")]
    missing = [entry.name for entry in ours if entry.paper is None and entry.name not in described]
    assert not missing, f"say in src/repertoire/papers/components.toml what {missing} are for"
