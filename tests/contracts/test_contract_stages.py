"""Every method that is about stages: classes are added to what it knows, and a crash changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import papers, protocols, recipe, registry
from repertoire.methods import Method, brought_head
from repertoire.protocols import Outcome
from repertoire.rules import Backprop
from repertoire.train import last_state

SPEC = "classes:step=2,order=given,memory=12"


class Stop(Exception):
    """Stands for a crash."""


def of_stages(entry: registry.Entry) -> bool:
    """Whether a method is about stages: it keeps samples of them, or says in its family that it is continual."""
    factory = entry.factory
    own = any("end" in vars(base) for base in factory.__mro__ if base is not Method)
    return "replay" in factory.needs.streams or own or papers.family_of(entry) == "continual"


METHODS = [entry.name for entry in registry.entries("methods") if of_stages(entry)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 grey images of 8 pixels in four classes: a bright band at one of four heights."""
    generator = np.random.default_rng(0)
    labels = np.arange(128) % 4
    images = generator.integers(0, 160, (128, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 90
    path = tmp_path_factory.mktemp("bands") / "bands.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["a", "b", "c", "d"]))
    return path


def config_of(method: str, data: Path) -> recipe.TrainConfig:
    factory = registry.get("methods", method).factory
    given = getattr(factory, "example_options", dict)()
    plain = {name: value for name, value in given.items() if isinstance(value, str | int | float | bool)}
    spec = method + ":" * bool(plain) + ",".join(f"{name}=({value})" for name, value in plain.items())
    return recipe.make_config(
        data=str(data),
        method=spec,
        backbone=getattr(factory, "example_backbone", "convnet:width=4,depth=2"),
        head=brought_head(spec, factory) or "linear",
        epochs=1,
        batch_size=16,
        lr=0.01,
        save_every=1,
        device="cpu",
    )


def follow(config: recipe.TrainConfig, out: Path) -> Outcome:
    return protocols.follow(SPEC, config, out=out, bounds=False)


def states(outcome: Outcome) -> dict[str, torch.Tensor]:
    return {f"{t}/{name}": value for t in range(2) for name, value in last_state(outcome.path / f"{t:02d}").items()}


@pytest.mark.parametrize("method", METHODS)
def test_killed_in_its_second_stage_it_ends_in_the_same_bits(
    method: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_of(method, data)
    original, seen, crash = Backprop.step, [], False

    def step(self, trained, batch):
        rows = trained.model.head.num_classes
        if not seen or seen[-1][0] != rows:
            seen.append((rows, {n: v.clone() for n, v in trained.model.head.state_dict().items()}))
        known = {int(label) for label in batch.targets.tolist() if label >= 0}
        assert known <= ({0, 1} if rows == 2 else {2, 3}), "samples of another stage"
        if crash and rows == 4 and len(steps) == 2:
            raise Stop
        steps.extend([rows] if rows == 4 else [])
        return original(self, trained, batch)

    monkeypatch.setattr(Backprop, "step", step)
    steps: list[int] = []
    whole = follow(config, tmp_path / "whole")
    # What is known is known in the same way when classes have been added, before anything is trained.
    before = last_state(whole.path / "00")
    widths, grown = seen[-1]
    assert widths == 4
    for name, value in grown.items():
        old = before[f"model.head.{name}"]
        if value.ndim and old.shape[1:] == value.shape[1:] and len(value) == 2 * len(old):
            assert torch.equal(value[: len(old)], old), name
    assert whole.metrics["memory_bytes"] <= 12 * (64 + 8)

    steps, crash = [], True
    with pytest.raises(Stop):
        follow(config, tmp_path / "stopped")
    steps, crash = [], False
    again = follow(config, tmp_path / "stopped")
    one, two = states(whole), states(again)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    np.testing.assert_array_equal(whole.matrix, again.matrix)
