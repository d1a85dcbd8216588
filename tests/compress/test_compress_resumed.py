"""Compression that is stopped, and goes on to the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from nets import batches, network

from repertoire.compress import _codebook, _distil, _dynamic, _lowrank, codebook, distil, dynamic, lowrank
from repertoire.weights import Progress
from stopping import Killed, Stopping, goes_on

COMPRESSORS = {
    "codebook": lambda progress: codebook(network(), batches, bits=2, groups=2, rounds=3, progress=progress),
    "lowrank": lambda progress: lowrank(network(), batches, error=0.3, progress=progress),
    "lowrank, of a share": lambda progress: lowrank(network(), batches, share=0.5, epochs=2, progress=progress),
    "lowrank, svd": lambda progress: lowrank(
        network(), batches, share=0.5, method="svd", epochs=1, ends=True, progress=progress
    ),
    "dynamic": lambda progress: dynamic(network(), batches, error=0.9, first=True, progress=progress),
    "dynamic, of a mass": lambda progress: dynamic(
        network(), batches, mass=0.7, rounds=1, epochs=1, first=True, progress=progress
    ),
}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr("repertoire.weights._progress.EVERY", 0.0)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_whoever_is_stopped_at_any_time_goes_on_to_the_same_bits(name, tmp_path):
    """Of `dynamic` not every time is tried: its regressions take long."""
    assert goes_on(COMPRESSORS[name], tmp_path, every=4 if "dynamic" in name else 1) >= 4


def test_whoever_is_stopped_while_something_is_kept_goes_on(tmp_path):
    assert goes_on(COMPRESSORS["lowrank, of a share"], tmp_path, during=True, every=4) >= 5


@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_was_finished_is_not_computed_again(name, tmp_path, monkeypatch):
    """Neither moments, nor layers, nor anything that was learned: only statistics are put back, and layers cut."""
    progress = Progress(tmp_path, "key")
    COMPRESSORS[name](progress)

    def never(*_, **__):
        raise AssertionError("computed again")

    for module, names in (
        (_codebook, ("_Codes",)),
        (_lowrank, ("answers_changed", "low_rank", "_cut")),
        (_dynamic, ("_logistic", "_lost", "answers_changed", "filter_cost")),
        (_distil, ("answers_alike",)),
    ):
        for each in names:
            monkeypatch.setattr(module, each, never)
    monkeypatch.setattr(torch.linalg, "eigh", never)
    COMPRESSORS[name](progress)


def test_a_layer_goes_on_between_its_rounds(tmp_path):
    """Behind the moments, the first layer keeps its codebooks and indices after every round."""
    with pytest.raises(Killed):
        COMPRESSORS["codebook"](Stopping(tmp_path, 4, False))
    kept = Progress(tmp_path, "key").load("layer-0-round")
    assert kept.told["round"] == 2
    assert set(kept.tensors) == {"books", "indices"}


def test_distilling_goes_on_where_it_was(tmp_path):
    """In the middle of the second epoch: what lies before is not looked at again."""
    teacher = network()
    seen: list[int] = []

    def counted():
        for number, batch in enumerate(batches()):
            seen.append(number)
            yield batch

    def learn(progress):
        student = copy.deepcopy(teacher)
        with torch.no_grad():
            student[-1].weight.zero_()
        ends: list[int] = []
        distil(student, teacher, counted, epochs=3, rate=0.01, after=ends.append, progress=progress)
        return student, ends

    whole, ends = learn(None)
    assert ends == [0, 1, 2]
    with pytest.raises(Killed):
        learn(Stopping(tmp_path, 3, False))
    kept = Progress(tmp_path, "key").load("learned").told
    assert (kept["epoch"], kept["seen"]) == (1, 1)
    seen.clear()
    found, ends = learn(Progress(tmp_path, "key"))
    assert seen == [0, 1, 0, 1]  # the first batch of the second epoch is passed over, unlearned
    assert ends == [1, 2]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in found.state_dict().items())
