"""Runs stitched into one run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import ConfigError, RunError
from repertoire.weights import Stitched

OPTIONS = {"epochs": 2, "device": "cpu", "batch_size": 64, "quiet": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A large run, a small one, and the two stitched."""
    folder = tmp_path_factory.mktemp("stitch")
    large, small = (
        train.fit("digits", out=folder / name, backbone=f"convnet:width={width},depth=3", **OPTIONS)
        for name, width in (("large", 8), ("small", 4))
    )
    return large, small, train.stitch_runs([large.path, small.path], folder / "net", epochs=3)


def test_the_result_is_a_run_with_a_route_for_every_budget(runs):
    large, small, net = runs
    made = net.info["stitched"]
    assert made["runs"] == [str(small.path.resolve()), str(large.path.resolve())]
    assert [(route["from"], route["into"]) for route in made["routes"]] == [(0, 0), (0, 1), (0, 1), (1, 1)]
    shares = [route["share"] for route in made["routes"]]
    assert shares == sorted(shares)
    assert (shares[-1], shares[0] < 0.4) == (1.0, True)
    again = train.load(net.path)
    assert isinstance(again.model, Stitched)
    assert again.model.scores == [route["value"] for route in made["routes"]]
    assert again.evaluate()["accuracy"] == net.metrics["accuracy"]
    for number, route in enumerate(made["routes"]):
        again.model.use(number)
        assert again.evaluate(again.splits.val)["accuracy"] == route["value"]


def test_it_can_be_exported(runs, tmp_path):
    *_, net = runs
    out = train.export(net, "pt2", tmp_path / "net.pt2")
    images = torch.rand(2, *net.facts.shape)
    with torch.no_grad():
        found = torch.export.load(out).module()(images)
        torch.testing.assert_close(found, net.model(images).softmax(1), rtol=1e-4, atol=1e-5)
    assert np.isfinite(found.numpy()).all()


def test_what_cannot_be_stitched_is_refused(runs, tmp_path):
    large, small, net = runs
    with pytest.raises(ConfigError, match="two runs or more, 1 given"):
        train.stitch_runs([large.path], tmp_path / "a")
    with pytest.raises(RunError, match="compressed or merged into another form"):
        train.stitch_runs([large.path, net.path], tmp_path / "a")
    other = train.fit("digits", out=tmp_path / "other", backbone="convnet:width=4,depth=3", **{**OPTIONS, "seed": 5})
    with pytest.raises(RunError, match="trained on other parts of the data"):
        train.stitch_runs([small.path, other.path], tmp_path / "a")
    flat = train.fit("digits", out=tmp_path / "flat", backbone="mlp:hidden=8,depth=1", **OPTIONS)
    with pytest.raises(RunError, match=r"flat has the backbone mlp:hidden=8,depth=1, of one block or none.*stitched"):
        train.stitch_runs([flat.path, small.path], tmp_path / "a")
    assert not (tmp_path / "a").exists()
