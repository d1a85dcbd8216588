"""What every registered loss must do, and every loss of the guide."""

from __future__ import annotations

import inspect
import re
import typing
import warnings
from pathlib import Path

import pytest
import torch
from registered import each_check

from repertoire import losses, ranges, registry
from repertoire.errors import RepertoireWarning
from repertoire.losses import LogitsLoss
from repertoire.testing import check_loss

ENTRIES = registry.entries("losses")
EMBEDDINGS = [entry for entry in ENTRIES if entry.factory.contract == "embeddings"]
PAGES = Path(__file__).parents[2] / "docs"


#: Autograd follows their functions of pairs tile by tile, which torch.compile cannot make one graph of.
SEVERAL_GRAPHS = (losses.Circle,)
#: Whether it has clustered yet decides what it computes.
NOT_EXPORTED = (losses.SubclassContrastive,)


@each_check(
    "losses",
    lambda factory: check_loss(factory, fullgraph=factory not in SEVERAL_GRAPHS, exported=factory not in NOT_EXPORTED),
)
def test_keeps_its_contract(check):
    check()


@pytest.mark.parametrize("entry", EMBEDDINGS, ids=lambda entry: entry.name)
def test_no_positives_are_warned_about_once(entry, monkeypatch):
    monkeypatch.setattr("repertoire.losses.contracts._positives._warned", set())
    options = {"num_classes": 4, "samples": 64} | entry.factory.example_options()
    loss = entry.factory(**{n: v for n, v in options.items() if n in registry.options(entry.factory)})
    loss.prepare(6)
    labels = -1 - torch.arange(9) if loss.proxied else torch.arange(9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            loss(torch.randn(9, 6), labels)
    messages = [str(w.message) for w in caught if issubclass(w.category, RepertoireWarning)]
    assert [m[:60] for m in messages] == ["no embedding of the batch has another one with its label: th"]


def test_every_function_with_ranges_checks_them():
    """A range in a signature is a promise: the function is decorated, so that somebody keeps it."""
    unchecked = []
    for name in losses.__all__:
        function = getattr(losses, name)
        if not inspect.isfunction(function):
            continue
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
        promised = any(ranges._rule(hint) is not None for hint in hints.values())
        if promised and not hasattr(function, "__wrapped__"):
            unchecked.append(name)
    assert not unchecked


def test_each_loss_on_logits_has_a_row_that_says_when_to_choose_it():
    page = (PAGES / "components" / "losses.md").read_text(encoding="utf-8")
    section = page.partition("## On logits")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE)
    named = sorted(name for cell in cells for name in re.findall(r"`([^`]+)`", cell))
    assert named == [entry.name for entry in ENTRIES if issubclass(entry.factory, LogitsLoss)]
