"""The loss about the weights, in the diagnosis of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from repertoire.cli import main
from repertoire.data import plain
from repertoire.report import _optimisation
from repertoire.report._optimisation import landscape_section, optimisation
from repertoire.train import Run


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points and images, for the sake of time."""
    monkeypatch.setattr(_optimisation, "GRID", 3)
    monkeypatch.setattr(_optimisation, "IMAGES", 40)


def test_the_numbers_are_those_of_the_loss(hostile: Run) -> None:
    images = hostile.splits.train.subset(range(40))
    before = {name: tensor.clone() for name, tensor in hostile.model.state_dict().items()}
    numbers, plane = optimisation(hostile, images)
    x, y = plain(torch.from_numpy(images.pixels(slice(None)))), torch.from_numpy(images.labels)
    with torch.no_grad():
        assert numbers["loss"] == pytest.approx(F.cross_entropy(hostile.model(x), y).item(), rel=1e-4)
    assert plane.loss.shape == (3, 3)
    assert numbers["largest_eigenvalues"] == sorted(numbers["largest_eigenvalues"], reverse=True)
    json.dumps(numbers, allow_nan=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in hostile.model.state_dict().items())
    section = landscape_section({**numbers, "gradient_noise_scale": None}, plane)
    assert "nearly all noise" in section["sentence"]


def test_the_page_shows_it_where_it_is_asked_for(
    hostile: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", str(hostile.path), "--landscape", "--json", "-o", str(out)])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["optimisation"]["images"] > 16
    page = out.read_text(encoding="utf-8")
    assert "The loss about the weights" in page
    assert "http" not in page.replace("http-equiv", "")
    figure = re.search(r'<svg role="img" aria-label="Contours of the loss.*?</svg>', page, re.DOTALL)
    assert figure is not None
    assert "<style" not in figure[0]
