"""What the page says in words."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from repertoire.recipe import make_config
from repertoire.report._facts import command, next_steps, summary
from repertoire.report._page import thin
from repertoire.report._remedies import Remedies
from repertoire.report._text import label, shorten
from repertoire.train import Run


@pytest.mark.parametrize(
    "fields",
    [
        {"data": "digits"},
        {"data": "my photos/it's\n", "epochs": 3, "lr": 0.05, "balanced": True, "precision": "bf16"},
        {"data": "digits", "track": ["tensorboard"], "backbone": "resnet20:width=32", "size": 64, "save_every": 10},
    ],
)
def test_the_command_gives_the_configuration_back(fields: dict[str, Any]) -> None:
    config = make_config(**fields)
    line = command(config).replace("\\n", "\n")
    program, verb, data, *words = shlex.split(line)
    assert (program, verb, data) == ("repertoire", "train", fields["data"])
    given: dict[str, Any] = {"data": data}
    while words:
        name = words.pop(0).removeprefix("--").replace("-", "_")
        if name == "balanced":
            given[name] = True
        elif name == "track":
            given.setdefault(name, []).append(words.pop(0))
        else:
            given[name] = words.pop(0)
    assert make_config(**given) == config


def test_summary_and_next_steps_of_a_run(hostile: Run) -> None:
    text = summary(hostile)
    for part in ("convnet", "of 3 classes", "8 × 8 pixels, grey", "cross-entropy", "backprop", "2 epochs", "seed 0"):
        assert part in text
    lines = [line for _, line in next_steps(hostile, Remedies(hostile.config))]
    assert any(line.startswith("repertoire predict") for line in lines)
    assert any("--loss supcon" in line and "--augment" not in line for line in lines)


def test_thin_keeps_ends_and_the_best_epoch() -> None:
    rows = [{"epoch": k, **({"best": True} if k in (1, 501) else {})} for k in range(1, 1001)]
    kept = [row["epoch"] for row in thin(rows, most=10)]
    assert kept[0] == 1
    assert kept[-1] == 1000
    assert 501 in kept
    assert len(kept) <= 11
    assert thin(rows[:10], most=10) == rows[:10]


def test_names_are_shown_on_one_line() -> None:
    assert label("a\nb\udc80\u202ec") == "a\\nb\\udc80\\u202ec"
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcdef", 4, keep="end") == "…def"
    assert shorten("abcd", 4) == "abcd"
