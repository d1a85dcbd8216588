"""What finds, refuses and learns what is unknown, killed in the middle: the same command goes on to the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commands import run_cli
from repertoire import cli, openset
from repertoire.discover import ProtoGCD
from repertoire.rules import Backprop
from repertoire.train import kept_checkpoints


def killed(owner: type, name: str, call: int, *arguments: object) -> None:
    """Runs a command in a process of its own, which is killed at that call of a function: no handler sees it."""
    child = os.fork()
    if child == 0:
        original: Callable[..., object] = getattr(owner, name)
        calls: Iterator[int] = iter(range(10**6))

        def counted(*given: object, **more: object) -> object:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **more)

        setattr(owner, name, counted)
        try:
            cli.main([str(a) for a in arguments])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes far apart, of which three are known by half of their rows."""
    truth, generator = np.repeat(np.arange(4), 40), np.random.default_rng(0)
    x = (6 * np.eye(4, 8)[truth] + generator.normal(size=(160, 8))).astype(np.float32)
    root = tmp_path_factory.mktemp("rows")
    np.savez(root / "some.npz", features=x, labels=np.where((truth < 3) & (np.arange(160) % 2 == 0), truth, -1))
    np.savez(root / "known.npz", features=x[:120], labels=truth[:120])
    np.savez(root / "new.npz", features=x[::3])
    return root


@pytest.mark.parametrize("name", ["fit", "_objective"])
def test_a_discovery(name: str, rows: Path, tmp_path: Path, capsys):
    asked = ("discover", rows / "some.npz", "--method", "protogcd:epochs=4,hidden=16")
    assert run_cli(capsys, *asked, "--out", tmp_path / "whole")[0] == 0
    killed(ProtoGCD, name, 0 if name == "fit" else 3, *asked, "--out", tmp_path / "cut")
    assert not (tmp_path / "cut" / "groups.csv").exists()
    assert run_cli(capsys, *asked, "--out", tmp_path / "cut")[0] == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_what_is_refused(rows: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    trained = ("train", rows / "known.npz", "--epochs", 2, "--val", 0.3, "--no-report", "-q", "--out", run)
    assert run_cli(capsys, *trained)[0] == 0
    asked = ("predict", run, rows / "new.npz", "--reject", 0.9)
    status, whole, _ = run_cli(capsys, *asked)
    assert status == 0
    before = contents(run)
    for name in ("fit", "__call__"):
        killed(openset.NoveltyScore, name, 0, *asked)
        assert contents(run) == before
    assert run_cli(capsys, *asked)[1] == whole


def test_normal_images_with_the_centre_of_the_network_as_it_was(tmp_path: Path, capsys):
    generator, folder = np.random.default_rng(0), tmp_path / "normal"
    folder.mkdir()
    for i in range(24):
        pixels = generator.integers(0, 160, (8, 8), dtype=np.uint8)
        pixels[2:4] += 90
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    asked = ("train", folder, "--method", "mean-shifted", "--backbone", "convnet:width=4,depth=2", "--epochs", 3)
    asked += ("--batch-size", 8, "--save-every", 1, "--device", "cpu", "--no-report", "-q")
    assert run_cli(capsys, *asked, "--out", tmp_path / "whole")[0] == 0
    killed(Backprop, "step", 1, *asked, "--out", tmp_path / "cut")
    killed(Backprop, "step", 2, "train", "--resume", tmp_path / "cut", "-q")
    assert run_cli(capsys, "train", "--resume", tmp_path / "cut", "-q")[0] == 0
    whole, cut = (list(kept_checkpoints(tmp_path / name))[-1][1] for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    (centre,) = (value for name, value in whole.items() if name.endswith("loss.centre"))
    assert bool(centre.abs().sum() > 0)
