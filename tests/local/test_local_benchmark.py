"""The benchmark runs, and counts memory as it says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import torch

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
