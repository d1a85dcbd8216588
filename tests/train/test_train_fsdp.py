"""Weights divided among processes: those of one process in the end, exact after a resume, and whole on the disk."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest
import torch

from repertoire import backbones, heads, train
from repertoire.errors import ConfigError
from repertoire.methods import BYOL, Classifier, Normalize, Stage
from repertoire.recipe import StageStart, make_config
from repertoire.rules import shard
from repertoire.train._session import _check_whole
from warm import Started

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="the extra 'timm' is not installed")

ARGUMENTS = {
    "backbone": "timm:test_vit",
    "size": 32,
    "augment": "none",
    "epochs": 2,
    "val": 0.11,  # 165 images to train: the last batch has 29
    "batch_size": 34,
    "optimizer": "adamw",
    "lr": 0.003,
    "seed": 3,
    "device": "cpu",
    "save_every": 2,
    "keep": 9,
}


def command(data: str, out: Path, **options: object) -> list[str]:
    arguments = {"strategy": "fsdp", **(options or ARGUMENTS)}
    flags = [item for name, value in arguments.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    return ["-m", "repertoire", "train", data, *flags, "--out", str(out), "--no-report"]


def succeeded(started: list[Started]) -> str:
    """What processes had to say that came to their end."""
    said = [process.communicate(timeout=400)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(text[-3000:] for text in said)
    return "".join(said)


@pytest.fixture(scope="module")
def two(ranks, options: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fsdp") / "two"
    assert succeeded(ranks(2, *command(str(options["data"]), out))).count("test accuracy") == 1
    return out


@pytest.mark.slow
def test_the_weights_are_those_of_one_process_and_whole_in_the_run(two: Path, options: dict, tmp_path: Path):
    alone = train.fit(options["data"], out=tmp_path / "one", **ARGUMENTS)
    divided = train.load(two)
    assert (divided.info["ranks"], divided.config.strategy) == (2, "fsdp")
    for (name, a), (_, b) in zip(divided.model.named_parameters(), alone.model.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3, msg=name)
    for name in ("train_loss", "train_accuracy", "val_accuracy"):
        assert [row[name] for row in divided.history] == pytest.approx([row[name] for row in alone.history], rel=1e-2)
    assert divided.metrics["images"] == alone.metrics["images"]
    file = divided.export("pt2", tmp_path / "model.pt2")
    images = torch.rand(3, *divided.splits.train.shape)
    answers = torch.export.load(file).module()(images)
    torch.testing.assert_close(answers, divided.model(images).softmax(1), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_bit_for_bit(ranks, two: Path, options: dict, tmp_path: Path):
    out = tmp_path / "killed"
    started = ranks(2, *command(str(options["data"]), out))
    for _ in range(6000):
        if list(out.glob("checkpoints/step-*2.safetensors")) or started[0].poll() is not None:
            break
        time.sleep(0.01)
    for process in started:
        process.kill()
    for process in started:
        process.communicate(timeout=60)
    saved = sorted(path.name for path in out.glob("checkpoints/step-*.safetensors"))
    for path in out.glob("checkpoints/step-*.safetensors"):  # as early as can be, whatever was reached
        if path.name != saved[0]:
            path.unlink()
    succeeded(ranks(2, "-m", "repertoire", "train", "--resume", str(out), "--no-report"))
    found = train.load(out).model.state_dict()
    for name, value in train.load(two).model.state_dict().items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"rule": "sam"}, "rule 'sam' looks at all weights"),
        ({"rule": "local:blocks=2"}, "rule 'local:blocks=2' looks at all weights, or steps through"),
        ({"ema": 0.9}, "keeps a second network whole"),
        ({"adapter": "lora:rank=2"}, "computes with whole weights"),
        ({"memory": "1GiB"}, "plans for a network that each process holds"),
        ({"precision": "16"}, "has a loss scale that is not divided"),
        ({}, "needs several processes"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(more: dict, reason: str, tiny: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=reason):
        train.fit(tiny, out=tmp_path / "a", strategy="fsdp", backbone="mlp:hidden=8", **more)
    assert not (tmp_path / "a").exists()


def test_teachers_are_refused():
    net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
    with pytest.raises(ConfigError, match=r"BYOL has weights that are not \(teacher.*use strategy='ddp'"):
        shard(BYOL(model), None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_losses_compare_the_images_of_all_processes(ranks, options: dict, tmp_path: Path):
    """With weights beside the network, a projector's; and the batch in processes' shares that are not equal."""
    arguments = {**ARGUMENTS, "backbone": "vit:patch=4,dim=16,depth=1,heads=2", "method": "embedding", "loss": "supcon"}
    arguments |= {"size": 8, "optimizer": "sgd", "lr": 0.01, "clip": 5.0}
    succeeded(ranks(2, *command(str(options["data"]), tmp_path / "two", **arguments)))
    alone = train.fit(options["data"], out=tmp_path / "one", **arguments)
    for a, b in zip(train.load(tmp_path / "two").model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_frozen_layers_and_stages_are_refused():
    with pytest.raises(ConfigError, match="tune='head' runs frozen layers by themselves: give tune='all'"):
        _check_whole(make_config(data="digits", strategy="fsdp", tune="head"), None)
    start = StageStart(Stage(classes=("a", "b"), new=(0, 1), samples=2, epochs=1))
    with pytest.raises(ConfigError, match="does not train in stages"):
        _check_whole(make_config(data="digits", strategy="fsdp", tune="all"), start)
