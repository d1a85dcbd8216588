"""The benchmarks run, count memory as they say, and go on."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "local_learning.py"


def test_it_runs():
    done = subprocess.run([sys.executable, SCRIPT, "--quick"], capture_output=True, text=True, check=True, timeout=300)
    assert "| back-propagation |" in done.stdout
    assert "| 10 blocks, linear (all) |" in done.stdout


def test_the_peak_is_that_of_live_storages():
    spec = importlib.util.spec_from_file_location("local_learning", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def step() -> None:
        a = torch.zeros(1000)
        b = a + 1
        view = b[:10]
        del a
        c = torch.zeros(500)
        del b, view, c

    assert module.peak_memory(step) == 4 * 2000


@pytest.mark.slow
def test_the_accuracy_is_that_of_the_last_weights_and_runs_go_on(tmp_path: Path):
    """With directories and without, and again from what was kept in them."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 8, 8, 3), dtype=np.uint8)
    for label, images in enumerate(pixels):
        for number, image in enumerate(images):
            file = tmp_path / "images" / ("train" if number < 12 else "test") / f"class{label}" / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    options = "--images 100 --epochs 1 --seeds 1 --size 8 --processes 1 --backbone convnet:width=4,depth=2 --rules"
    rules = ("backprop", "local:blocks=2,auxiliary=linear", "local:blocks=2,auxiliary=linear,overlap=1")
    tables = []
    for more in ((), ("--runs", tmp_path / "runs"), ("--runs", tmp_path / "runs")):
        command = [sys.executable, SCRIPT.with_name("local_accuracy.py"), tmp_path / "images"]
        done = subprocess.run(
            [*command, *options.split(), *rules, *more], capture_output=True, text=True, check=True, timeout=300
        )
        rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| `")]
        tables.append([row[1] for row in rows])
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) == 3
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 3
    other = options.replace("--seeds 1", "--seeds 0").replace("--size 8", "--size 16")
    untrained = [*command[:-1], "shapes", *other.split(), *rules]
    done = subprocess.run(untrained, capture_output=True, text=True, check=True, timeout=300)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| `")]
    assert [row[1:4] for row in rows] == [[""] * 3] * 3, "speed and memory alone, of a source"
    assert all(float(row[4]) > 0 for row in rows)
