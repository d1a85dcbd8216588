"""A loss that learns or remembers something, in a run that stops and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repertoire import train
from repertoire.rules import Backprop
from repertoire.train import _checkpoint
from stopping import crash


def state(run: train.Run) -> dict[str, torch.Tensor]:
    return _checkpoint.load(_checkpoint.checkpoints(run.directory.checkpoints)[0]).tensors


@pytest.mark.parametrize(
    ("loss", "part"),
    [("tico", "covariance"), ("individual-temperatures", "log_means"), ("clip", "log_scale")],
)
def test_a_resumed_run_ends_as_if_it_had_not_stopped(options: dict, tmp_path: Path, loss: str, part: str):
    options = {**options, "loss": loss, "epochs": 2, "ema": 0.9, "save_every": 2, "augment": "shift"}
    whole = train.fit(out=tmp_path / "whole", **options)
    with crash(Backprop, after=3):
        train.fit(out=tmp_path / "a", **options)
    a, b = state(whole), state(train.resume(tmp_path / "a"))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    found = [value for name, value in a.items() if name.endswith(f"loss.{part}")]
    assert found
    assert any(value.ndim == 0 or value.unique().numel() > 1 for value in found)
