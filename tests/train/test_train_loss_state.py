"""A loss that learns or remembers something, in a run that stops and goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repertoire import train
from repertoire.rules import Backprop
from repertoire.train import _checkpoint


class Stop(Exception):
    """Stands for a crash."""


def state(run: train.Run) -> dict[str, torch.Tensor]:
    return _checkpoint.load(_checkpoint.checkpoints(run.directory.checkpoints)[0]).tensors


@pytest.mark.parametrize(
    ("loss", "part"),
    [("tico", "covariance"), ("individual-temperatures", "log_means"), ("clip", "log_scale")],
)
def test_a_resumed_run_ends_as_if_it_had_not_stopped(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, part: str
):
    options = {**options, "loss": loss, "epochs": 2, "ema": 0.9, "save_every": 2, "augment": "shift"}
    whole = train.fit(out=tmp_path / "whole", **options)
    step, calls = Backprop.step, []

    def stopping(self: Backprop, method: object, batch: object) -> object:
        calls.append(1)
        if len(calls) > 3:
            raise Stop
        return step(self, method, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Backprop, "step", stopping)
        with pytest.raises(Stop):
            train.fit(out=tmp_path / "a", **options)
    a, b = state(whole), state(train.resume(tmp_path / "a"))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    found = [value for name, value in a.items() if name.endswith(f"loss.{part}")]
    assert found
    assert any(value.ndim == 0 or value.unique().numel() > 1 for value in found)
