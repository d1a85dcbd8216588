from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repertoire import train


@pytest.mark.slow
def test_two_ranks_give_the_weights_of_one(options: dict, tmp_path: Path):
    """Without augmentation and batch normalisation, data parallelism is an identity up to the order of additions."""
    arguments = {
        "backbone": "vit:patch=4,dim=16,depth=1,heads=2",
        "augment": "none",
        "epochs": 2,
        "batch_size": 32,
        "lr": 0.05,
        "seed": 3,
        "device": "cpu",
    }
    flags = [item for name, value in arguments.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "repertoire",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "train", str(options["data"]), *flags, "--out", str(tmp_path / "two"), "--no-report"],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("test accuracy") == 1
    two = train.load(tmp_path / "two")
    one = train.fit(options["data"], out=tmp_path / "one", **arguments)
    assert two.info["ranks"] == 2
    for a, b in zip(two.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert two.history[-1]["val_accuracy"] == pytest.approx(one.history[-1]["val_accuracy"], abs=0.05)
