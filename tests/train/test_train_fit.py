from __future__ import annotations

import errno
import json
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from repertoire import data, registry, train
from repertoire.data import Loader
from repertoire.errors import (
    ConfigError,
    NonFiniteLoss,
    RepertoireError,
    RepertoireWarning,
    RunError,
    ShapeError,
    UnknownName,
)
from repertoire.losses import CrossEntropy
from repertoire.recipe import forget_peak_memory, peak_memory, stem
from repertoire.train import _checkpoint


@pytest.fixture(scope="module")
def run(options: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **{**options, "epochs": 8})


def test_a_run_learns(run: train.Run):
    assert run.metrics["accuracy"] > 0.9
    assert run.info["status"] == "finished"
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_the_directory_is_complete(run: train.Run):
    names = {p.name for p in run.path.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "metrics.json", "predictions.npz", "checkpoints"} <= names
    assert len(_checkpoint.checkpoints(run.directory.checkpoints)) == 2
    assert run.directory.best_file.exists()
    for key in ("classes", "repertoire", "torch", "machine", "seconds", "peak_memory", "parameters", "counts"):
        assert run.info[key], key
    config = yaml.safe_load(run.directory.config_file.read_text())
    assert config["method"] == "supervised"
    assert config["weight_decay"] == 5e-4
    assert config["size"] == 8


def test_metrics_are_those_of_the_best_weights_on_the_test_images(run: train.Run):
    found = run.evaluate()
    for key in ("accuracy", "nll", "ece"):
        assert found[key] == pytest.approx(run.metrics[key], rel=1e-4)
    with np.load(run.directory.predictions_file, allow_pickle=False) as saved:
        probabilities = np.exp(saved["logits"]) / np.exp(saved["logits"]).sum(1, keepdims=True)
        np.testing.assert_allclose(run.predict(run.splits.test.pixels(slice(None))), probabilities, atol=1e-5)
        assert saved["embeddings"].shape == (len(run.splits.test), run.model.backbone.out_features)


def test_best_is_the_best_epoch_by_validation(run: train.Run):
    best = max(run.history, key=lambda row: (row["val_accuracy"], -row["val_nll"]))
    assert run.metrics["best_epoch"] == best["epoch"]
    assert run.metrics["val_accuracy"] == pytest.approx(run.evaluate(run.splits.val)["accuracy"])


def test_equal_configurations_give_equal_weights(options: dict, tmp_path: Path):
    torch.manual_seed(1)
    first = train.fit(out=tmp_path / "a", **options)
    torch.manual_seed(2)
    second = train.fit(out=tmp_path / "b", **options)
    third = train.fit(out=tmp_path / "c", **{**options, "seed": 4})
    states = [run.model.state_dict() for run in (first, second, third)]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(states[0].values(), states[2].values(), strict=True))


def test_training_leaves_the_callers_random_state_alone(options: dict, tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
    assert torch.equal(torch.rand(3), expected)


def test_the_loop_does_what_a_loop_by_hand_does(options: dict, tmp_path: Path):
    """The whole machinery against twenty lines of plain PyTorch: same weights after an epoch, bit for bit."""
    chosen = {**options, "epochs": 1, "warmup": 0, "schedule": "constant", "momentum": 0.0, "weight_decay": 0.0}
    run = train.fit(out=tmp_path / "a", **chosen)
    splits = data.load(chosen["data"], seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = registry.build("backbones", chosen["backbone"], in_channels=1, image_size=8)
        head = torch.nn.Linear(net.out_features, 3)
        mean, std = torch.tensor(run.info["mean"][0]), torch.tensor(run.info["std"][0])
        net, head = net.to(memory_format=torch.channels_last), head.to(memory_format=torch.channels_last)
        parameters = [*net.parameters(), *head.parameters()]
        net.train()
        augmentation = registry.build("augmentations", "shift")
        for batch in Loader(splits.train, 32, augmentation=augmentation, seed=3).epoch(0):
            loss = CrossEntropy()(head(net((batch.images - mean) / std)), batch.targets)
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.data.sub_(gradient, alpha=0.05)
    for found, expected in zip(run.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "extra",
    [
        {"optimizer": "adamw", "lr": 0.003},
        {"precision": "bf16"},
        {"clip": 1.0, "accumulate": 2},
        {"ema": 0.9},
        {"class_weights": True},
        {"balanced": True},
        {"rule": "sam:rho=0.05"},
        {"loss": "supcon", "epochs": 25},
        {"head": "matryoshka"},
        {"track": ("tensorboard",)},
        {"val": 0.2, "test": 0.3, "schedule": "constant"},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_every_option_trains(options: dict, tmp_path: Path, extra: dict):
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 6, **extra})
    assert run.metrics["accuracy"] > 0.6
    if "track" in extra:
        assert list((tmp_path / "a" / "tensorboard").glob("events.*"))


def test_patience_stops_early(options: dict, tmp_path: Path):
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 50, "patience": 2, "lr": 1e-9})
    assert run.info["epochs"] < 50
    assert run.info["epochs"] - run.metrics["best_epoch"] == 2


def test_class_weights_need_a_loss_that_takes_them(options: dict, tmp_path: Path):
    with pytest.raises(ConfigError, match="balanced"):
        train.fit(out=tmp_path / "a", **{**options, "loss": "supcon", "class_weights": True})
    assert not (tmp_path / "a" / "run.json").exists()


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ({"backbone": "resent20"}, UnknownName, "did you mean 'resnet20'"),
        ({"loss": "cross-entropi"}, UnknownName, "did you mean 'cross-entropy'"),
        ({"rule": "sma"}, UnknownName, "did you mean 'sam'"),
        ({"device": "tpu"}, ConfigError, "auto, cpu, cuda"),
        ({"device": "cuda:99"}, ConfigError, "CUDA devices here"),
        ({"precision": "16"}, ConfigError, "needs a GPU"),
        ({"plugins": ("no_such_module",)}, ConfigError, "no_such_module"),
        ({"weights": "none.safetensors"}, Exception, "none"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    options: dict, tmp_path: Path, extra: dict, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        train.fit(out=tmp_path / "a", **{**options, **extra})
    assert not (tmp_path / "a" / "run.json").exists()


def test_a_run_is_not_overwritten_by_accident(options: dict, tmp_path: Path):
    first = train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
    (first.path / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match="already holds a run"):
        train.fit(out=first.path, **options)
    with pytest.warns(RepertoireWarning, match=r"it stays: mine\.txt"):
        second = train.fit(out=first.path, overwrite=True, **{**options, "epochs": 2})
    assert len(second.history) == 2
    assert (first.path / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "extra",
    [
        {"rule": "nonsense"},
        {"loss": "cross-entropy:weight=(1,2)"},
        {"loss": "cross-entropy:reduction=none"},
        {"augment": "shift:pixels=99"},
        {"track": ("mlflow",)},
        {"loss": "supcon", "accumulate": 2},
        {"accumulate": 17},
    ],
    ids=str,
)
def test_a_refused_run_does_not_replace_the_one_that_lies_there(
    options: dict, tmp_path: Path, extra: dict, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    first = train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
    with pytest.raises(RepertoireError):
        train.fit(out=first.path, overwrite=True, **{**options, **extra})
    assert train.load(first.path).metrics == first.metrics


def test_a_run_that_is_refused_leaves_no_directory(options: dict, tmp_path: Path):
    with pytest.raises(UnknownName):
        train.fit(out=tmp_path / "a", **{**options, "loss": "supcom"})
    assert not (tmp_path / "a").exists()


def test_overwriting_removes_what_the_commands_wrote(options: dict, tmp_path: Path):
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
    train.export(run, "pt2")
    assert (run.path / "model.pt2.json").exists()
    train.fit(out=run.path, overwrite=True, **{**options, "epochs": 1})
    assert not list(run.path.glob("model.*"))


def test_weights_spoilt_by_the_very_last_step_are_never_kept(options: dict, tmp_path: Path):
    with pytest.raises(NonFiniteLoss, match="none was saved"):
        train.fit(out=tmp_path / "a", **{**options, "batch_size": 1000, "epochs": 1, "lr": 1e38, "warmup": 0})
    assert not list((tmp_path / "a").glob("checkpoints/*"))
    assert train.load(tmp_path / "a").info["status"] == "failed"


def test_unlabelled_images_are_left_out_where_they_are_of_no_use(tiny: Path, options: dict, tmp_path: Path):
    with np.load(tiny, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"].copy()
    parts = {"train": slice(0, 160), "val": slice(160, 200), "test": slice(200, 240)}
    labels[:40], labels[160:] = -1, -1
    saved = {f"images_{name}": images[part] for name, part in parts.items()}
    saved |= {f"labels_{name}": labels[part] for name, part in parts.items()}
    np.savez(tmp_path / "some.npz", **saved, classes=np.array(["top", "middle", "bottom"]))
    run = train.fit(out=tmp_path / "a", **{**options, "data": tmp_path / "some.npz"})
    assert run.metrics["images"] > 0
    assert any("have no label" in note for note in run.info["notes"])


def test_a_method_may_log_nothing_but_its_loss(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from repertoire.methods import Step, Supervised

    monkeypatch.setattr(Supervised, "step", lambda self, b: Step(self.loss(self.model(b.images), b.targets)))
    run = train.fit(out=tmp_path / "a", quiet=False, **{**options, "epochs": 1})
    assert run.history[0]["train_loss"] > 0


def test_a_contrastive_run_trains_every_output_of_a_nested_head(options: dict, tmp_path: Path):
    run = train.fit(
        out=tmp_path / "a", **{**options, "loss": "supcon", "head": "matryoshka:sizes=(4,16)", "epochs": 25}
    )
    features = torch.from_numpy(run.embed(run.splits.test.pixels(slice(None))))
    labels = torch.from_numpy(run.splits.test.labels)
    assert (run.model.head.logits_at(features, 4).argmax(1) == labels).float().mean() > 0.6


def test_a_plugin_in_the_working_directory_is_found(tmp_path: Path, options: dict, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_own_loss.py").write_text(
        "from repertoire.losses import CrossEntropy\nfrom repertoire.registry import register\n"
        "@register('losses', 'mine')\nclass Mine(CrossEntropy):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1, "loss": "mine", "plugins": ("my_own_loss",)})
    assert train.load(run.path).predict(run.splits.test.pixels(slice(0, 2))).shape == (2, 3)


def test_a_run_can_be_opened_from_anywhere(tiny: Path, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tiny.parent)
    run = train.fit(out=tmp_path / "a", **{**options, "data": "tiny.npz", "epochs": 1})
    monkeypatch.chdir(tmp_path)
    assert run.evaluate()["images"] == run.metrics["images"]


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_good_checkpoint(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("repertoire.train._loop.PATIENT_STEPS", 0)
    original, calls = CrossEntropy.forward, []

    def forward(self: CrossEntropy, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        loss = original(self, logits, targets)
        # The first call is the rehearsal, before the first step.
        return loss * float("nan") if len(calls) == 10 else loss

    monkeypatch.setattr(CrossEntropy, "forward", forward)
    with pytest.raises(NonFiniteLoss, match=r"nan in epoch 2, step 3 .*step 9 of the run.*step-000000006") as caught:
        train.fit(out=tmp_path / "a", **options)
    assert "Try a lower lr" in str(caught.value)
    run = train.load(tmp_path / "a")
    assert run.info["status"] == "failed"
    assert all(p.isfinite().all() for p in run.model.parameters())


def test_first_steps_that_diverge_begin_anew_at_a_tenth_of_the_rate(options: dict, tmp_path: Path):
    """The second start is the run that a tenth of the learning rate would have been, and it is resumed as any other."""
    shared = {**options, "warmup": 0.0, "batch_size": 64, "epochs": 2}
    cool = train.fit(out=tmp_path / "cool", **{**shared, "lr": 3.0})
    hot = train.fit(out=tmp_path / "hot", **{**shared, "lr": 30.0})
    progress = _checkpoint.latest(hot.directory.checkpoints)[1].values["progress"]
    assert progress["rate"] == 0.1
    assert progress["total_steps"] == len(hot.history) * hot.history[0]["step"]
    for name, value in cool.model.state_dict().items():
        torch.testing.assert_close(hot.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_a_full_disk_loses_nothing(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved, real = [], os.fsync

    def full(descriptor: int) -> None:
        saved.append(1)
        if len(saved) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((RunError, OSError), match=r"(?i)no space left"):
        train.fit(out=tmp_path / "a", **options)
    monkeypatch.undo()
    resumed = train.resume(tmp_path / "a")
    whole = train.fit(out=tmp_path / "b", **options)
    for a, b in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_predict_takes_files_and_arrays(run: train.Run, tmp_path: Path):
    from PIL import Image

    pixels = run.splits.test.pixels(slice(0, 3))
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
    expected = run.predict(pixels)
    np.testing.assert_allclose(run.predict([tmp_path / f"{i}.png" for i in range(3)]), expected, atol=1e-6)
    floats = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_allclose(run.predict(floats), expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum(1), 1)
    np.testing.assert_allclose(run.predict(str(tmp_path / "0.png")), expected[:1], atol=1e-6)
    np.testing.assert_allclose(run.predict(floats.double().numpy()), expected, atol=1e-6)
    assert run.predict(pixels[:0]).shape == (0, 3)
    assert run.embed(pixels).shape == (3, run.model.backbone.out_features)


def test_a_model_that_predicted_can_still_be_differentiated(run: train.Run):
    opened = train.load(run.path)
    images = torch.rand(2, 1, 8, 8)
    opened.predict(images)
    opened.model(images).sum().backward()
    assert all(p.grad is not None for p in opened.model.parameters())


@pytest.mark.parametrize("shape", [(2, 8, 8, 5), (8,), (2, 2, 8, 8, 1), (2, 0, 8, 1)])
def test_arrays_that_are_no_images_are_refused(run: train.Run, shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"expected|images must|dimensions"):
        run.predict(np.zeros(shape, np.uint8))


def test_names_of_directories_come_from_the_data():
    assert stem("photos/") == "photos"
    assert stem("/a/b/my pets.npz") == "my-pets"
    assert stem("shapes:size=64,count=10") == "shapes"


def test_metrics_are_strict_json(run: train.Run):
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(run.directory.metrics_file.read_text(), parse_constant=refuse)
    json.loads(run.directory.info_file.read_text(), parse_constant=refuse)


def test_a_rehearsal_resolves_and_leaves_nothing(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resolved = train.rehearse(train.make_config(**{**options, "lr": None}))
    assert resolved.lr is not None
    assert resolved.method == "supervised"
    assert not list(tmp_path.iterdir())


def test_a_rehearsal_refuses_what_a_run_would_refuse(options):
    with pytest.raises(ConfigError, match="class weights"):
        train.rehearse(train.make_config(**{**options, "loss": "supcon", "class_weights": True}))


def test_splits_that_are_at_hand_give_the_same_run(options, tmp_path):
    splits = data.load(options["data"], seed=options["seed"])
    first = train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
    second = train.fit(out=tmp_path / "b", splits=splits, **{**options, "epochs": 1})
    assert first.metrics == second.metrics
    assert first.info["data_digest"] == second.info["data_digest"]


def test_peak_memory_can_start_anew():
    """A process that trains one network after the other says of each what it took, not of the largest."""
    device = torch.device("cpu")
    # Of the system itself: what an allocator is given back it may keep.
    block = mmap.mmap(-1, 2**26)
    block.write(bytes(2**26))
    with_block = peak_memory(device)
    block.close()
    forget_peak_memory(device)
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system cannot forget")
    assert peak_memory(device) < with_block - 2**25
