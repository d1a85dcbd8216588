"""`repertoire stitch`, and `predict --budget` of what comes out."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from commands import run_cli
from repertoire import train


def test_runs_are_stitched_and_asked_within_a_budget(capsys, tmp_path):
    options = {"epochs": 1, "device": "cpu", "quiet": True}
    for name, width in (("small", 4), ("large", 8)):
        train.fit("digits", out=tmp_path / name, backbone=f"convnet:width={width},depth=2", **options)
    net = tmp_path / "net"
    runs = tmp_path / "small", tmp_path / "large"
    options = "--epochs", 1, "--no-report", "--device", "cpu"
    status, out, err = run_cli(capsys, "stitch", *runs, "--out", net, *options)
    assert status == 0, err
    costs = re.findall(r"^ *([\d.]+) of the cost: validation accuracy [\d.]+  (.+)$", out, re.MULTILINE)
    assert [way for _, way in costs] == ["small", "small into large", "large"]

    image = tmp_path / "digit.png"
    Image.fromarray(np.full((8, 8), 120, np.uint8)).save(image)
    answers = {}
    for budget in (0.5, 1.0):
        status, answers[budget], err = run_cli(capsys, "predict", net, image, "--budget", budget, "--format", "csv")
        assert status == 0, err
    assert answers[0.5] != answers[1.0]
    for run, words in ((net, "the cheapest route takes"), (tmp_path / "small", "--budget is for one run that several")):
        status, _, err = run_cli(capsys, "predict", run, image, "--budget", 0.01)
        assert (status, words in err) == (2, True)
