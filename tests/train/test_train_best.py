"""Which epoch is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire import recipe, train
from repertoire.cli import main
from repertoire.data import FeatureSet, Splits
from repertoire.train import Loop, _checkpoint


def splits(count: int = 60) -> Splits:
    generator = np.random.default_rng(0)

    def part(n: int) -> FeatureSet:
        y = np.arange(n) % 2
        x = (generator.normal(size=(n, 6)) + y[:, None]).astype(np.float32)
        return FeatureSet(x, y, [str(i) for i in range(n)], ("a", "b"), generator.integers(0, 2**62, n, np.uint64))

    return Splits(part(count), part(30), part(30), "drawn")


def best_of(accuracies: list[float], monkeypatch: pytest.MonkeyPatch, **fields: object) -> int:
    """The number of the epoch that is kept, where validation says these."""
    said = iter(accuracies)
    monkeypatch.setattr(Loop, "validate", lambda self: {"accuracy": next(said), "nll": 1.0})
    config = recipe.make_config(data="drawn", epochs=len(accuracies), device="cpu", **fields)
    return train.in_memory(config, splits()).progress.best_epoch


# Of 30 validation samples, 0.9 is known to within 0.055.
@pytest.mark.parametrize(
    ("accuracies", "kept"),
    [
        ([0.8, 0.9, 0.9], 3),
        ([0.8, 0.9, 0.85], 3),
        ([0.8, 0.9, 0.84], 2),
        ([0.9, 0.85, 0.8], 2),
        # Within one step of the last, but not of the highest.
        ([0.9, 0.86, 0.83, 0.85], 4),
        ([1.0, 0.97], 1),
    ],
)
def test_later_weights_of_a_head_count_unless_they_are_worse(accuracies, kept, monkeypatch):
    assert best_of(accuracies, monkeypatch) == kept


def test_with_patience_only_a_better_epoch_is_better(monkeypatch):
    assert best_of([0.8, 0.9, 0.9, 0.89], monkeypatch, patience=9) == 2


def test_while_the_learning_rate_stays_only_a_better_epoch_is_better(monkeypatch):
    assert best_of([0.8, 0.9, 0.9, 0.89], monkeypatch, schedule="constant") == 2


@pytest.mark.parametrize(("fields", "later"), [({}, True), ({"patience": 9}, False), ({"schedule": "constant"}, False)])
def test_the_command_and_the_report_say_which_epoch_it_is(fields, later, tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.savez(tmp_path / "f.npz", features=rows, labels=np.arange(60) % 2)
    run = train.fit(tmp_path / "f.npz", epochs=2, device="cpu", out=tmp_path / "run", **fields)
    assert train.later_counts(run.config, run.task) == later
    page = run.report().read_text()
    assert ("within a standard error of the highest" in page) == later
    assert ("the best on the validation images" in page) != later
    with pytest.raises(SystemExit):
        main(["train", "--resume", str(run.path), "-q", "--no-report"])
    assert ("the last within a standard error of the best" in capsys.readouterr().out) == later


def test_of_a_network_from_random_weights_the_best_epoch_counts(monkeypatch):
    assert best_of([0.8, 0.9, 0.9, 0.89], monkeypatch, backbone="mlp") == 2


def test_all_layers_must_be_as_good_as_the_head_alone_was(monkeypatch):
    config = recipe.make_config(data="drawn", epochs=1, device="cpu")
    loop = train.in_memory(config, splits())
    loop.start_from({"accuracy": 0.9, "nll": 0.1})
    said = iter([0.8, 0.9])
    monkeypatch.setattr(loop, "validate", lambda: {"accuracy": next(said), "nll": 1.0})
    loop.config = loop.config.model_copy(update={"epochs": 3})
    loop.progress.best_epoch = 0
    loop.run()
    assert loop.progress.best_epoch == 3
    assert loop.progress.best["accuracy"] == 0.9


def test_the_best_head_survives_a_kill_before_it_is_written(tmp_path, monkeypatch):
    """What differs from the frozen layers is in the checkpoint: the network itself is written every few seconds."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    data = (images, np.arange(60) % 2)
    np.savez(tmp_path / "d.npz", x=data[0], y=data[1])
    options = {"data": str(tmp_path / "d.npz"), "epochs": 6, "device": "cpu", "augment": "none"}
    options |= {"backbone": "convnet:width=4,depth=2", "lr": 0.01}
    first = train.fit(out=tmp_path / "first", **{**options, "epochs": 1})
    options |= {"start": str(first.directory.path), "tune": "head"}
    whole = train.fit(out=tmp_path / "whole", **options)

    def killed(self: Loop, trackers: object) -> None:
        if self.progress.epoch == 4:
            raise KeyboardInterrupt
        epoch(self, trackers)

    epoch = Loop._epoch
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_epoch", killed)
        patch.setattr(Loop, "_write_best", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            train.fit(out=tmp_path / "killed", **options)
    late = _checkpoint.load(tmp_path / "killed" / "checkpoints" / "best.safetensors")
    resumed = train.resume(tmp_path / "killed")
    found, expected = (_checkpoint.load(run.directory.best_file) for run in (resumed, whole))
    assert late.values["epoch"] < found.values["epoch"] == expected.values["epoch"]
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.tensors.items())
    assert resumed.metrics == whole.metrics
