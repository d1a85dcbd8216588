"""What the report says of its heat maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_report_page import Page

from repertoire.report import _trust, write_report
from repertoire.train import Run


def test_the_table_has_the_explainers_and_chance_and_warns_of_maps_without_a_class(page: Path, hostile: Run) -> None:
    words = Page(page).words
    start = words.index("Heat maps: how far to trust them")
    section = words[start : words.index("Map of the embeddings", start)]
    for name in ("grad-cam", "layer-cam", "eigen-cam", "gradient", "random map"):
        assert name in section
    assert "eigen-cam gives the same map whatever the class" in section
    assert "The map of eigen-cam is the same for every class." in words
    assert "On the object" not in section
    assert f"Measured on {min(_trust.MOST, len(hostile.splits.test))} test images." in section


def test_pictures_stand_side_by_side(page: Path) -> None:
    alts = [str(a["alt"]) for a in Page(page).all("img")]
    for name in ("grad-cam", "layer-cam", "eigen-cam", "gradient"):
        assert (
            sum(f"heat map by {name} of" in alt for alt in alts)
            == sum("heat map by grad-cam of" in a for a in alts)
            > 0
        )


def test_known_objects_are_looked_at(tmp_path: Path) -> None:
    from repertoire.train import fit

    run = fit("shapes:count=200,classes=3", out=tmp_path / "run", size=16, epochs=1, backbone="convnet:width=8,depth=2")
    chosen, unfit = _trust.explainers(run.model, run.splits.test)
    assert not unfit
    found = _trust.trust(run.model, run.splits.test, {"grad-cam": chosen["grad-cam"]})
    assert [row["name"] for row in found["rows"]] == ["grad-cam", "random map"]
    assert 0 < found["rows"][0]["energy"] < 1


def test_a_large_network_is_not_judged_but_warned_of(
    hostile: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_trust, "WORK", {"cpu": 1.0})
    words = Page(write_report(hostile, tmp_path / "r.html")).words
    assert "The heat maps were not judged. The network is too large for a report." in words
    assert f"repertoire explain {hostile.directory} --judge" in words
    assert "eigen-cam gives the same map whatever the class" in words


def test_counts_the_work_of_an_image(hostile: Run) -> None:
    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ torch.ones(64, 3)

    assert _trust._work(Linear(), hostile.splits.test) == 2 * 64 * 3  # type: ignore[arg-type]
    assert np.prod(hostile.splits.test.size) == 64
