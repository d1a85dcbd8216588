"""Runs merged into a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import train
from repertoire.errors import CheckpointError, ConfigError, RunError
from repertoire.train._merge import _Merging

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


def test_operators_are_given_samples_of_all_classes_first(halves):
    runs, data = halves
    merging = _Merging(list(runs), None, data)
    for of, classes in ((0, 5), (1, 5), (None, 10)):
        assert len(next(merging.batches(of)).targets[:60].unique()) == classes


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
    with pytest.raises(RunError, match="differ: one takes inputs of shape"):
        train.merge([a, shapes.path], out)
    assert not out.exists()
    train.merge([a, b], out)
    with pytest.raises(RunError, match="already holds a run"):
        train.merge([a, b], out)
    with pytest.raises(ConfigError, match=r"looks at what training has changed.*base"):
        train.merge([a, b], tmp_path / "n", operator="task-arithmetic")
    elsewhere = train.fit("digits", out=tmp_path / "elsewhere", **OPTIONS)
    with pytest.raises(ConfigError, match="did not start from the same weights"):
        train.merge([a, elsewhere.path], tmp_path / "n", operator="task-arithmetic")


def test_runs_from_other_starts_are_not_merged(runs, tmp_path):
    """The mean of networks from two starts is worse than either of them."""
    elsewhere = train.fit("digits", out=tmp_path / "elsewhere", **{**OPTIONS, "epochs": 6, "seed": 5})
    weights = str(elsewhere.directory.best_file)
    far = train.fit("digits", out=tmp_path / "far", weights=weights, lr=0.01, **OPTIONS)
    said = r"cannot be merged by uniform-soup.*halfway between the first two the loss is \d.*same weights"
    with pytest.raises(ConfigError, match=said):
        train.merge([runs[0].path, far.path], tmp_path / "m", operator="uniform-soup")
    assert not (tmp_path / "m").exists()


def test_networks_of_other_shapes_are_named(runs, monkeypatch, tmp_path):
    from repertoire.train import _merge

    monkeypatch.setattr(_merge, "check_runs", lambda *_: None)
    wide = train.fit("digits", out=tmp_path / "wide", **{**OPTIONS, "backbone": "convnet:width=4,depth=2"})
    with pytest.raises(CheckpointError, match="state 1 is"):
        train.merge([runs[0].path, wide.path], tmp_path / "m")


def test_what_training_changed_is_added_to_the_base(runs, tmp_path):
    start = train.load(runs[0].path.parent / "start")
    merged = train.merge(
        [run.path for run in runs], tmp_path / "m", operator="task-arithmetic:scale=0.5", base=start.path
    )
    name = "backbone.blocks.0.conv.weight"
    base, *own = (run.model.state_dict()[name] for run in (start, *runs))
    torch.testing.assert_close(merged.model.state_dict()[name], base + 0.5 * sum(state - base for state in own))
    # The head of the start is no base of heads that began anew: the mean of theirs stands for it.
    weight = [run.model.head.linear.weight for run in runs]
    torch.testing.assert_close(merged.model.head.linear.weight, sum(weight) / 2)


def write_digits(folder, classes):
    """Folders train/, val/ and test/ of the digits of some classes."""
    from PIL import Image

    from repertoire.data import load

    splits = load("digits")
    for part in ("train", "val", "test"):
        samples = getattr(splits, part)
        for number in range(len(samples)):
            if (label := int(samples.labels[number])) in classes:
                path = folder / part / f"digit-{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(samples.pixels([number])[0].squeeze()).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Runs on the two halves of the digits from one start, and a folder with all of them."""
    folder = tmp_path_factory.mktemp("halves")
    start = train.fit("digits", out=folder / "start", **{**OPTIONS, "epochs": 4})
    data = [write_digits(folder / name, classes) for name, classes in (("low", range(5)), ("high", range(5, 10)))]
    options = {**OPTIONS, "weights": str(start.directory.best_file), "lr": 0.005}
    runs = [train.fit(each, out=folder / f"run{i}", **options) for i, each in enumerate(data)]
    return runs, write_digits(folder / "all", range(10))


def test_runs_of_other_classes_become_one_that_knows_all(halves, tmp_path):
    runs, data = halves
    paths = [run.path for run in runs]
    with pytest.raises(RunError, match="To put their classes together, say where images of all of them are"):
        train.merge(paths, tmp_path / "m", operator="uniform-soup")
    with pytest.raises(RunError, match="has no digit-5, digit-6"):
        train.merge(paths, tmp_path / "m", operator="uniform-soup", data=runs[0].config.data)
    merged = train.merge(paths, tmp_path / "m", operator="uniform-soup", data=data)
    assert merged.classes == tuple(f"digit-{i}" for i in range(10))
    weight = merged.model.head.linear.weight
    torch.testing.assert_close(weight, torch.cat([run.model.head.linear.weight for run in runs]))
    again = train.load(tmp_path / "m")
    assert again.evaluate()["accuracy"] == merged.metrics["accuracy"]
    for run, part in zip(runs, merged.info["merged"]["parts"], strict=True):
        assert part["alone"] == run.metrics["accuracy"]
        assert part["samples"] == len(run.splits.test)
        rows = [merged.classes.index(name) for name in run.classes]
        logits = torch.from_numpy(merged.outputs().logits)
        known = np.isin(merged.splits.test.labels, rows)
        right = torch.tensor(rows)[logits[known][:, rows].argmax(1)].numpy() == merged.splits.test.labels[known]
        assert part["merged"] == right.mean()
    assert merged.info["merged"]["after"] > max(merged.info["merged"]["before"])
