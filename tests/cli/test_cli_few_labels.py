"""Training with few labels, as typed: killed at any instant and resumed, and self-training from end to end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import cli, load
from repertoire.rules import Backprop
from repertoire.train import kept_checkpoints


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes whose centres are apart, and a pool."""
    root = tmp_path_factory.mktemp("features")
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    rows = (2.5 * np.eye(3, 8)[labels] + generator.normal(size=(120, 8))).astype(np.float32)
    np.savez(root / "few.npz", features=rows, labels=labels, classes=["a", "b", "c"])
    more = 2.5 * np.eye(3, 8)[np.arange(60) % 3] + generator.normal(size=(60, 8))
    np.savez(root / "more.npz", features=more.astype(np.float32))
    return root


def killed(step: int, *arguments: object) -> None:
    """Runs a command in a process of its own, which is killed before that step of it: no handler sees it."""
    child = os.fork()
    if child == 0:
        original, calls = Backprop.step, [0]

        def counted(self: Backprop, method: object, batch: object) -> object:
            if calls[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            calls[0] += 1
            return original(self, method, batch)

        Backprop.step = counted
        try:
            cli.main([str(a) for a in arguments])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def everything(run: Path) -> dict[str, torch.Tensor]:
    """All that the last checkpoint holds: weights, memories, moving average, momentum."""
    return list(kept_checkpoints(run))[-1][1]


STATE = {
    "fixmatch:threshold=class-adaptive,space=shrunk,ratio=2,level=0.4": ("policy.chosen", "space.certain"),
    "fixmatch:threshold=self-adaptive,align=true,blend=prototypes,warm_up=1,ratio=2": (
        "policy.level", "policy.marginal", "alignment.mean", "queue.memory", "blend.updates", "teacher.updates",
    ),
    "mean-teacher:ratio=2,ramp_up=4,momentum=0.9": ("teacher.updates", "teacher.network.head.linear.weight"),
    "fixmatch:diverse=learned,ratio=3": ("samples.losses", "samples.waiting"),
}  # fmt: skip
"""Methods, and of what they keep the ends of some names."""


@pytest.mark.parametrize("method", STATE)
def test_killed_at_several_steps_it_ends_in_the_same_bits(
    method: str, features: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    data = tiny if "diverse" in method else features / "few.npz"
    network = ("--backbone", "convnet:width=4,depth=2") if "diverse" in method else ()
    asked = ("train", data, "--labels", 4, "--method", method, "--epochs", 3, "--batch-size", 4, *network)
    asked += ("--ema", 0.9, "--save-every", 2, "--device", "cpu", "--no-report", "-q")
    assert command(*asked, "-o", tmp_path / "whole") == 0
    killed(1, *asked, "-o", tmp_path / "cut")
    for step in (2, 3):
        killed(step, "train", "--resume", tmp_path / "cut", "-q")
    assert command("train", "--resume", tmp_path / "cut", "-q") == 0
    whole, cut = everything(tmp_path / "whole"), everything(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name
    held = {name: value for name, value in whole.items() if name.startswith("method.")}
    first = {name: held[name] for end in STATE[method] for name in held if name.endswith(end)}
    assert len(first) >= len(STATE[method]), sorted(held)
    assert all(bool(value.float().abs().sum() > 0) for value in first.values()), first
    assert load(tmp_path / "cut").metrics == load(tmp_path / "whole").metrics
    capfd.readouterr()


def test_other_unlabelled_samples_than_it_began_with_are_noticed(features: Path, tmp_path: Path, capfd):
    pool = tmp_path / "more.npz"
    pool.write_bytes((features / "more.npz").read_bytes())
    asked = ("train", features / "few.npz", "--labels", 4, "--unlabelled", pool, "--method", "vat", "--epochs", 3)
    killed(2, *asked, "-o", tmp_path / "cut", "-q", "--batch-size", 4, "--save-every", 1)
    np.savez(pool, features=np.zeros((60, 8), np.float32))
    assert command("train", "--resume", tmp_path / "cut", "-q") == 2
    assert "(unlabelled) changed since the run began" in capfd.readouterr().err


def test_self_training_as_typed(features: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = ("train", features / "few.npz", "--labels", 4, "--epochs", 20, "-o", "runs/teacher", "-q", "--no-report")
    assert command(*teacher) == 0
    capfd.readouterr()
    asked = ("self-train", "runs/teacher", features / "more.npz", "--top", 10, "--most", 1, "--epochs", 4)
    assert command(*asked) == 0
    said = capfd.readouterr()
    for words in (
        "Each of 3 classes took 10 vectors of a pool of 60",
        "Against the labels alone",
        "report: runs/few-self",
    ):
        assert words in said.out, words
    for phase in ("first 30 vectors of the pool", "then 12 vectors with their labels", "the labels alone for as many"):
        assert phase in said.err, phase
    root = tmp_path / "runs" / "few-self-trained"
    assert (root / "finetune" / "report.html").exists()
    assert (root / "report.html").exists()
    summary = json.loads((root / "summary.json").read_text())
    before = (root / "finetune" / "run.json").stat().st_mtime_ns
    assert command(*asked, "-q") == 0
    assert json.loads((root / "summary.json").read_text()) == summary
    assert (root / "finetune" / "run.json").stat().st_mtime_ns == before
    assert command("report", root, "-o", tmp_path / "again.html") == 0
    assert (tmp_path / "again.html").exists()
    assert command("predict", root / "finetune", features / "more.npz") == 0
    capfd.readouterr()
    assert command("predict", root, features / "more.npz") == 2
    assert f"{root}/finetune" in capfd.readouterr().err
    other = ("--top", 99, "-o", "runs/other")
    assert command("self-train", "runs/teacher", features / "more.npz", *other) == 2
    assert not (tmp_path / "runs" / "other").exists()
    assert "nothing is chosen" in capfd.readouterr().err


def test_self_training_is_killed_and_goes_on(features: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    teacher = ("train", features / "few.npz", "--labels", 4, "--epochs", 5, "-o", tmp_path / "t", "-q", "--no-report")
    assert command(*teacher) == 0
    asked = ("self-train", tmp_path / "t", features / "more.npz", "--top", 10, "--epochs", 3, "--finetune-epochs", 3)
    asked += ("--batch-size", 8, "--save-every", 1, "--no-report", "-q")
    assert command(*asked, "-o", tmp_path / "whole") == 0
    # In the first phase, as it ends, in the second, and in the third.
    for step in (2, 9, 1, 1):
        killed(step, *asked, "-o", tmp_path / "cut")
    assert command(*asked, "-o", tmp_path / "cut") == 0
    for phase in ("pretrain", "finetune", "labels-alone"):
        whole, cut = everything(tmp_path / "whole" / phase), everything(tmp_path / "cut" / phase)
        assert all(torch.equal(value, cut[name]) for name, value in whole.items()), phase
    capfd.readouterr()
