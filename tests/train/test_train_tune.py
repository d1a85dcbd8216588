"""Runs that begin at published weights, of which layers learn or do not: resumed, they end in the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repertoire import recipe, train
from repertoire.data import Splits
from repertoire.train import _session

SPEC = "convnet:width=4,depth=3"


@pytest.mark.parametrize("tune", ["head", "last:1", "all", "auto"])
def test_a_resumed_run_ends_in_the_same_weights(
    splits: Splits, weights: str, tune: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_session, "HEAD_EPOCHS", 2)
    wanted = recipe.make_config(
        data="drawn", backbone=SPEC, weights=weights, tune=tune, epochs=4, lr=0.01, batch_size=8
    )
    whole = train.fit(config=wanted, splits=splits, out=tmp_path / "whole")

    class Stopped(Exception):
        pass

    original = train.Loop._finish_epoch

    def stop(self: train.Loop, *args: object) -> None:
        original(self, *args)
        if self.directory is not None and self.progress.epoch == 2:
            raise Stopped

    monkeypatch.setattr(train.Loop, "_finish_epoch", stop)
    with pytest.raises(Stopped):
        train.fit(config=wanted, splits=splits, out=tmp_path / "cut")
    monkeypatch.setattr(train.Loop, "_finish_epoch", original)
    resumed = train.resume(tmp_path / "cut", splits=splits)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.metrics["accuracy"] == whole.metrics["accuracy"]
    # The run predicts from images, whatever it was trained on.
    logits = whole.model(torch.rand(2, 3, 16, 16))
    assert logits.shape == (2, 2)
