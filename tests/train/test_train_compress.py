"""Runs compressed into runs."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import CheckpointError, ConfigError, RunError
from repertoire.weights import count_flops

OPTIONS = {"backbone": "convnet:width=8,depth=2", "epochs": 3, "device": "cpu", "batch_size": 64}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run, and the same in half precision."""
    folder = tmp_path_factory.mktemp("compress")
    run = train.fit("digits", out=folder / "a", **OPTIONS)
    return run, train.compress(run.path, folder / "small", by="half")


def test_the_result_is_a_run_that_answers_nearly_as_before(pair):
    run, small = pair
    made = small.info["compressed"]
    assert (made["by"], made["form"], made["key"]) == ("half", "half", "accuracy")
    assert made["test"] == [run.metrics["accuracy"], small.metrics["accuracy"]]
    assert made["val"] == [each.evaluate(run.splits.val)["accuracy"] for each in (run, small)]
    again = train.load(small.path)
    assert again.evaluate()["accuracy"] == small.metrics["accuracy"]
    found, expected = (each.predict(run.splits.test.images[:20]) for each in (again, run))
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert not np.array_equal(found, expected)
    stored = np.load(again.directory.predictions_file)["logits"]
    np.testing.assert_array_equal(stored, again.outputs().logits)


def test_statistics_are_measured_anew_where_that_helps(pair, tmp_path):
    run, _ = pair
    small = train.compress(run.path, tmp_path / "pruned", by="prune:0.6")
    before = {n: v for n, v in run.model.named_buffers() if n.endswith("running_mean")}
    after = dict(small.model.named_buffers())
    assert not all(torch.equal(after[name], value) for name, value in before.items())
    stale = {**small.stored().tensors, **{n: v for n, v in run.model.named_buffers() if "running" in n}}
    network = dataclasses.replace(small.stored(), tensors=stale).build(copy.deepcopy(run.model)).eval()
    logits = train.outputs(network, run.splits.val).logits
    assert small.info["compressed"]["val"][1] > (logits.argmax(1) == run.splits.val.labels).mean()


def test_its_file_is_as_small_as_it_says(pair):
    run, small = pair
    before, after = small.info["compressed"]["bytes"]
    sizes = [each.directory.best_file.stat().st_size for each in (run, small)]
    assert after < 0.7 * before  # 25 names of 100 bytes beside 2,000 weights
    # The file of a run says more beside the weights: epoch, metric and digest.
    assert 0 < sizes[1] - after < 1000
    weights = sum(value.nbytes for value in small.stored().tensors.values())
    assert weights < 0.51 * sum(value.nbytes for value in run.stored().tensors.values())


def test_it_can_be_exported_and_be_a_teacher(pair, tmp_path):
    _, small = pair
    out = train.export(small, "pt2", tmp_path / "net.pt2")
    images = torch.rand(2, *small.facts.shape)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.export.load(out).module()(images), small.model(images).softmax(1), rtol=1e-4, atol=1e-5
        )
    taught = train.fit("digits", out=tmp_path / "taught", method="distil", teacher=str(small.path), **OPTIONS)
    assert taught.info["status"] == "finished"


def test_what_cannot_be_compressed_or_started_from_is_refused(pair, tmp_path):
    run, small = pair
    with pytest.raises(RunError, match="already holds a run"):
        train.compress(run.path, small.path)
    with pytest.raises(RunError, match="stored in the form 'half' already"):
        train.compress(small.path, tmp_path / "b")
    with pytest.raises(ConfigError, match="did you mean"):
        train.compress(run.path, tmp_path / "b", by="halve")
    with pytest.raises(RunError, match=r"stored in the form 'half'.*nothing can start from it"):
        train.fit("digits", out=tmp_path / "c", start=str(small.path), **OPTIONS)
    with pytest.raises(RunError, match="no weights to merge any more"):
        train.merge([run.path, small.path], tmp_path / "d")
    assert not (tmp_path / "b").exists()


def test_multiplications_are_those_of_the_networks(pair):
    run, small = pair
    before, after = small.info["compressed"]["multiplications"]
    assert before == after > 1000
    assert before == count_flops(run.model, torch.zeros(1, *run.facts.shape)) / 2


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A start, and a run that was fine-tuned from it."""
    folder = tmp_path_factory.mktemp("tuned")
    start = train.fit("digits", out=folder / "start", **OPTIONS)
    return start, train.fit("digits", out=folder / "tuned", start=str(start.path), lr=0.003, **OPTIONS)


def test_a_change_is_stored_beside_its_start(tuned, tmp_path):
    start, run = tuned
    small = train.compress(run.path, tmp_path / "small", by="ternary:density=0.3")
    made = small.info["compressed"]
    assert made["origin"] == {"run": str(start.path.resolve())}
    assert made["bytes"][1] < 0.7 * made["bytes"][0]
    again = train.load(small.path)
    assert again.evaluate()["accuracy"] == small.metrics["accuracy"]
    name = "backbone.blocks.1.conv.weight"
    sizes = (again.model.state_dict()[name] - start.model.state_dict()[name]).abs()
    assert sizes.unique().numel() < 20  # nought and one size, as float32 has their sums
    other = train.compress(run.path, tmp_path / "other", by="ternary:density=0.3", base=start.path)
    assert other.info["compressed"]["origin"] == made["origin"]


def test_a_change_whose_start_is_not_known_or_gone_is_refused(tuned, pair, tmp_path):
    start, run = tuned
    with pytest.raises(ConfigError, match=r"needs the weights that the run started from.*base"):
        train.compress(pair[0].path, tmp_path / "a", by="ternary")
    with pytest.raises(ConfigError, match="'half' does not look at where a run started; leave base out"):
        train.compress(run.path, tmp_path / "a", by="half", base=start.path)
    wide = train.fit("digits", out=tmp_path / "wide", **{**OPTIONS, "backbone": "convnet:width=4,depth=2"})
    with pytest.raises(CheckpointError, match="is no base of"):
        train.compress(run.path, tmp_path / "a", by="ternary", base=wide.path)
    assert not (tmp_path / "a").exists()
    moved = tmp_path / "moved"
    shutil.copytree(start.path, moved)
    small = train.compress(run.path, tmp_path / "small", by="ternary:alpha=1", base=moved)
    shutil.rmtree(moved)
    with pytest.raises(RunError, match=r"is a change of the run .*moved, which cannot be opened"):
        _ = train.load(small.path).model
