"""Runs merged into a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import CheckpointError, ConfigError, RunError

OPTIONS = {"backbone": "convnet:width=8,depth=2", "epochs": 2, "device": "cpu", "batch_size": 64}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A start, and two runs fine-tuned from it."""
    folder = tmp_path_factory.mktemp("runs")
    start = train.fit("digits", out=folder / "start", **{**OPTIONS, "epochs": 6})
    weights = str(start.directory.best_file)
    return [train.fit("digits", out=folder / f"lr{lr}", weights=weights, lr=lr, **OPTIONS) for lr in (0.005, 0.01)]


@pytest.mark.parametrize("operator", ["uniform-soup", "greedy-soup"])
def test_the_result_is_a_run(runs, operator, tmp_path):
    before = [{name: value.clone() for name, value in run.model.state_dict().items()} for run in runs]
    merged = train.merge([run.path for run in runs], tmp_path / "m", operator=operator)
    made = merged.info["merged"]
    assert made["operator"] == operator
    assert made["before"] == [run.evaluate(run.splits.val)["accuracy"] for run in runs]
    assert made["after"] == merged.evaluate(merged.splits.val)["accuracy"]
    again = train.load(tmp_path / "m")
    assert again.metrics["accuracy"] == again.evaluate()["accuracy"]
    assert np.load(again.directory.predictions_file)["logits"].shape == (len(again.splits.test), 10)
    chosen = [before[i] for i in made["ingredients"]]
    for name, value in again.model.named_parameters():
        torch.testing.assert_close(value.detach(), sum(state[name] for state in chosen) / len(chosen))
    if operator == "greedy-soup":
        assert made["after"] >= max(made["before"])
    for run, state in zip(runs, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in run.model.state_dict().items())


def test_batch_statistics_are_measured_anew(runs, tmp_path):
    merged = train.merge([run.path for run in runs], tmp_path / "m", operator="uniform-soup")
    name = next(name for name, _ in merged.model.named_buffers() if name.endswith("running_var"))
    mean = sum(run.model.state_dict()[name] for run in runs) / 2
    assert not torch.allclose(merged.model.state_dict()[name], mean, rtol=1e-3)


def test_what_cannot_be_merged_is_refused_with_the_reason(runs, tmp_path):
    (a, b), out = [run.path for run in runs], tmp_path / "m"
    with pytest.raises(ConfigError, match="two runs or more, 1 given"):
        train.merge([a], out)
    wide = train.fit("digits", out=tmp_path / "wide", **{**OPTIONS, "backbone": "convnet:width=4,depth=2"})
    with pytest.raises(RunError, match=r"differ: one has the backbone convnet:width=8,depth=2, the other convnet:w"):
        train.merge([a, wide.path], out)
    seeded = train.fit("digits", out=tmp_path / "seeded", **OPTIONS, seed=7)
    with pytest.raises(RunError, match="holds out, so nothing could say"):
        train.merge([a, seeded.path], out)
    shapes = train.fit("shapes:count=60,classes=3", out=tmp_path / "shapes", **OPTIONS)
    with pytest.raises(RunError, match="differ: one predicts"):
        train.merge([a, shapes.path], out)
    assert not out.exists()
    train.merge([a, b], out)
    with pytest.raises(RunError, match="already holds a run"):
        train.merge([a, b], out)


def test_runs_from_other_starts_are_not_merged(runs, tmp_path):
    """The mean of networks from two starts is worse than either of them."""
    elsewhere = train.fit("digits", out=tmp_path / "elsewhere", **{**OPTIONS, "epochs": 6, "seed": 5})
    weights = str(elsewhere.directory.best_file)
    far = train.fit("digits", out=tmp_path / "far", weights=weights, lr=0.01, **OPTIONS)
    with pytest.raises(ConfigError, match=r"cannot be merged by uniform-soup.*same weights"):
        train.merge([runs[0].path, far.path], tmp_path / "m", operator="uniform-soup")
    assert not (tmp_path / "m").exists()


def test_networks_of_other_shapes_are_named(runs, monkeypatch, tmp_path):
    from repertoire.train import _merge

    monkeypatch.setattr(_merge, "_check", lambda opened: None)
    wide = train.fit("digits", out=tmp_path / "wide", **{**OPTIONS, "backbone": "convnet:width=4,depth=2"})
    with pytest.raises(CheckpointError, match="state 1 is"):
        train.merge([runs[0].path, wide.path], tmp_path / "m")
