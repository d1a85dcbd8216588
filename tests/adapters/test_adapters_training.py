"""A run whose backbone is frozen and adapted: resumed to the same bits, and left behind as a plain network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import recipe, train
from repertoire.adapters import is_adapted
from repertoire.errors import ConfigError, RepertoireWarning
from repertoire.rules import Backprop
from stopping import crash

BACKBONE = "convnet:width=16,depth=2"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    train.fit("digits", out=out, backbone=BACKBONE, epochs=2, device="cpu")
    return out


@pytest.fixture
def options(first: Path) -> dict[str, object]:
    return {
        "data": "digits",
        "start": str(first),
        "adapter": "lora:rank=2",
        "epochs": 2,
        "batch_size": 256,
        "ema": 0.5,
        "save_every": 2,
        "device": "cpu",
    }


@pytest.fixture
def built(options: dict) -> recipe.Built:
    config = recipe.make_config(**options)
    return recipe.build(config, recipe.load_splits(config))


def test_the_adapter_and_the_head_learn_and_nothing_else(built: recipe.Built):
    method = built.method
    learn = {name for name, p in method.named_parameters() if p.requires_grad}
    assert all(name.startswith("model.head.") or ".parametrizations.weight.0." in name for name in learn)
    assert any(name.startswith("model.head.") for name in learn)
    assert built.record["adapter"]["parameters"] == sum(
        p.numel() for n, p in method.named_parameters() if p.requires_grad and "parametrizations" in n
    )
    frozen = {n: p.clone() for n, p in method.named_parameters() if not p.requires_grad}
    statistics = {n: b.clone() for n, b in method.model.backbone.named_buffers()}
    loop = train.in_memory(built, validate=False)
    assert all(torch.equal(dict(loop.method.named_parameters())[n], p) for n, p in frozen.items())
    assert all(torch.equal(dict(loop.method.model.backbone.named_buffers())[n], b) for n, b in statistics.items())
    rates = {group["peak_lr"] for group in loop.rule.optimizers[0].param_groups}
    assert rates == {built.config.lr}


@pytest.mark.parametrize("step", [0, 3, 7])
def test_a_crash_changes_nothing_and_what_is_left_is_a_plain_network(
    options: dict, first: Path, tmp_path: Path, step: int
):
    whole = train.fit(out=tmp_path / "whole", **options)
    with crash(Backprop, after=step):
        train.fit(out=tmp_path / "broken", **options)
    broken = train.resume(tmp_path / "broken")
    state, again = whole.model.state_dict(), broken.model.state_dict()
    assert state.keys() == again.keys() == train.load(first).model.state_dict().keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not is_adapted(whole.model)
    before = train.load(first).model.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert changed <= {n for n in state if n.endswith("weight") or n.startswith("head.")}
    assert any(n.startswith("backbone.") for n in changed)
    # The metrics are those of the network that is left.
    stored = np.load(whole.directory.predictions_file)["logits"]
    config = recipe.make_config(**options)
    found = train.outputs(whole.model, recipe.load_splits(config).test).logits
    np.testing.assert_allclose(found, stored, rtol=1e-5, atol=1e-5)


def test_the_network_can_be_exported(options: dict, tmp_path: Path):
    run = train.fit(out=tmp_path / "run", **options)
    path = run.export("pt2", tmp_path / "model.pt2")
    images = torch.rand(3, 1, 8, 8)
    found = torch.export.load(path).module()(images)
    torch.testing.assert_close(found.argmax(1), run.model(images).argmax(1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": None, "backbone": BACKBONE}, "has random weights"),
        ({"tune": "head"}, "leave tune out"),
        ({"rule": "local:blocks=2"}, "trains the layers themselves"),
        ({"adapter": "lora:rank=500"}, "finds no layer to adapt"),
    ],
)
def test_what_does_not_go_together(options: dict, changes: dict, words: str):
    config = recipe.make_config(**{**options, **changes})
    with pytest.raises(ConfigError, match=words):
        recipe.build(config, recipe.load_splits(config))


def test_the_last_weights_stand_in_for_a_damaged_best(options: dict, tmp_path: Path):
    run = train.fit(out=tmp_path / "run", **{**options, "ema": None})
    names = run.model.state_dict().keys()
    run.directory.best_file.write_bytes(b"damaged")
    with pytest.warns(RepertoireWarning, match="using the last weights"):
        model = train.load(tmp_path / "run").model
    assert not is_adapted(model)
    assert model.state_dict().keys() == names
