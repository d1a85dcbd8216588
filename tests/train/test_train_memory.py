"""Losses and methods that remember: a run that was cut short goes on exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repertoire import train
from repertoire.rules import Backprop
from repertoire.train import _checkpoint
from stopping import crash


@pytest.mark.parametrize(
    "components",
    [
        {"loss": "proxy-anchor"},
        {"loss": "spcl:memory=8,draw=3"},
        {"loss": "memory-info-nce:queue=50"},
        {"loss": "subclass-contrastive:warmup=1,every=1,smallest=3"},
        {"loss": "supcon", "method": "relu-embedding"},
    ],
    ids=lambda components: components.get("method", components["loss"].partition(":")[0]),
)
def test_a_crash_changes_nothing(options: dict, tmp_path: Path, components: dict):
    full = {**options, **components, "ema": 0.9, "augment": "shift", "save_every": 2, "epochs": 2}
    whole = train.fit(out=tmp_path / "whole", **full)
    with crash(Backprop, after=3):
        train.fit(out=tmp_path / "cut", **full)
    resumed = train.resume(tmp_path / "cut")
    states = [
        _checkpoint.load(_checkpoint.checkpoints(run.directory.checkpoints)[0]).tensors for run in (whole, resumed)
    ]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
