from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repertoire import backbones, heads, losses, train
from repertoire.methods import Classifier, Embedding, Normalize, Relational
from repertoire.train._ranks import compared_apart


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["supervised", "contrastive"])
def test_two_ranks_give_the_weights_of_one(ranks, kind: str, options: dict, tmp_path: Path):
    """Without augmentation and batch normalisation, data parallelism is an identity up to the order of additions: also
    where samples are compared with each other, and where the ranks have unequal shares of the last batch."""
    arguments = {
        "backbone": "vit:patch=4,dim=16,depth=1,heads=2",
        "augment": "none",
        "epochs": 2,
        "val": 0.11,  # 165 images to train: the last batch has 29
        "batch_size": 34,
        "lr": 0.05,
        "seed": 3,
        "device": "cpu",
    }
    if kind == "contrastive":
        arguments |= {"method": "embedding", "loss": "supcon", "lr": 0.01}
    flags = [item for name, value in arguments.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    command = ["-m", "repertoire", "train", str(options["data"]), *flags, "--out", str(tmp_path / "two"), "--no-report"]
    if kind == "supervised":  # once by the launcher that users start
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*launcher, *command], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said = done.stdout
    else:
        started = ranks(2, *command)
        said = "".join(process.communicate(timeout=240)[0] for process in started)
        assert [process.returncode for process in started] == [0, 0], said[-3000:]
    assert said.count("test accuracy") == 1
    two = train.load(tmp_path / "two")
    one = train.fit(options["data"], out=tmp_path / "one", **arguments)
    assert two.info["ranks"] == 2
    assert sum(two.info["counts"]["train"]) % 34 % 2 == 1
    for a, b in zip(two.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for name in ("train_loss", "train_accuracy"):
        assert [row[name] for row in two.history] == pytest.approx([row[name] for row in one.history], rel=1e-3), name
    assert two.history[-1]["val_accuracy"] == pytest.approx(one.history[-1]["val_accuracy"], abs=0.05)


def test_what_compares_within_a_process_is_said():
    net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
    model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
    method = Embedding(model, losses.SupCon())
    assert compared_apart(method, 2, gather=True) == []
    assert compared_apart(method, 1, gather=False) == []
    (line,) = compared_apart(method, 2, gather=False)
    assert line.startswith("loss 'supcon', as gather=False says, compares the samples of each of the 2 processes")
    assert compared_apart(Relational(model), 3, gather=True) == [
        "method 'relational' compares the samples of each of the 3 processes, not those of all"
    ]
