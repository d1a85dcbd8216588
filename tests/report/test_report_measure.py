"""What a diagnosis measures of the checkpoints of a run whose layers are adapted, or frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repertoire import recipe, train
from repertoire.report._measure import _trend


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    train.fit("digits", out=out, backbone="convnet:width=8,depth=2", epochs=1, device="cpu")
    return out


@pytest.mark.parametrize("changes", [{"adapter": "lora:rank=2"}, {"tune": "head"}])
def test_a_diagnosis_looks_at_each_checkpoint_and_leaves_the_model_alone(first: Path, tmp_path: Path, changes: dict):
    run = train.fit("digits", start=str(first), out=tmp_path / "run", epochs=2, batch_size=256, save_every=2, **changes)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    rows = _trend(run, recipe.load_splits(run.config).train)
    assert len(rows) == 2
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
