"""Features that are learned without labels, watched while they are learned."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from repertoire.data import load
from repertoire.recipe import build, make_config, make_fabric, resolve
from repertoire.tasks import Outputs, spread_out
from repertoire.train._display import Display
from repertoire.train._loop import Loop
from repertoire.train._monitor import Features, collapsed


def loop_of(splits, **fields):
    config = resolve(make_config(data=splits.source, epochs=1, device="cpu", batch_size=256, **fields), splits)
    built = build(config, splits, device="cpu")
    stream = io.StringIO()
    return Loop(built, None, make_fabric(config), Display(1, 1, stream=stream)), stream


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_neighbours_name_the_classes_as_a_slow_loop_does(digits):
    judge = Features(digits.train, 10)
    assert len(judge.bank) == len(digits.train)
    generator = np.random.default_rng(0)

    def made(count):
        rows = generator.normal(size=(count, 6)).astype(np.float32)
        return Outputs(rows, rows, generator.integers(0, 10, count))

    bank, val = made(90), made(40)
    val.labels[:5] = -1
    right = 0
    for row, label in zip(val.embeddings[5:], val.labels[5:], strict=True):
        cosines = [float(row @ r / np.linalg.norm(row) / np.linalg.norm(r)) for r in bank.embeddings]
        votes = np.zeros(10)
        for k in np.argsort(cosines)[-20:]:
            votes[bank.labels[k]] += np.exp(cosines[k] / 0.07)
        right += int(votes.argmax() == label)
    assert judge.score(bank, val)["knn_accuracy"] == pytest.approx(right / 35)
    assert "knn_accuracy" not in judge.score(bank, Outputs(val.logits, val.embeddings, np.full(40, -1)))


@pytest.mark.parametrize(("options", "watched"), [
    ({"method": "simclr"}, True),
    ({"method": "byol"}, True),
    ({"method": "embedding", "loss": "vicreg"}, True),
    ({"method": "embedding", "loss": "supcon"}, False),
    ({}, False),
])  # fmt: skip
def test_only_what_learns_without_labels_is_watched(digits, options, watched):
    loop, _ = loop_of(digits, **options)
    assert (loop.monitor is not None) == watched
    assert ("knn_accuracy" in loop.headline) == watched


def test_an_epoch_shows_neighbours_and_keeps_them(digits):
    loop, stream = loop_of(digits, method="simclr")
    loop.run()
    assert 0.3 < loop.progress.best["knn_accuracy"] <= 1
    assert loop.progress.best["rank"] > 2
    assert "validation neighbours " in stream.getvalue()
    assert "collapsed" not in stream.getvalue()


def test_a_collapse_is_said_once(digits):
    loop, stream = loop_of(digits, method="simsiam")
    loop.config = loop.config.model_copy(update={"epochs": 2})
    for block in loop.method.model.backbone.blocks[-1:]:
        for parameter in block.parameters():
            torch.nn.init.zeros_(parameter)
            parameter.requires_grad_(False)
        block.register_forward_hook(lambda _, __, output: torch.ones_like(output) + 0 * output)
    loop.run()
    assert stream.getvalue().count("the features have collapsed to 1.0 directions") == 1


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_no_alarm_for_features_that_differ(scale):
    rows = np.random.default_rng(0).normal(size=(300, 32))
    assert not collapsed(spread_out(scale * rows))
    assert not collapsed(spread_out(np.abs(rows)))
    assert collapsed(spread_out(scale * (100 + 0.1 * rows)))
    assert not collapsed({"accuracy": 0.5})
