"""A merge whose process is killed goes on, and comes to the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch

from repertoire import train
from repertoire.train import _merge
from repertoire.weights import Progress

OPTIONS = {"backbone": "convnet:width=8,depth=2", "epochs": 2, "device": "cpu", "batch_size": 64, "quiet": True}
OPERATOR = "anisotropic:steps=12,images=16"

KILLED = """
import os, signal, sys
import torch
from repertoire import train
from repertoire.weights import Progress, _progress
torch.set_num_threads(1)
_progress.EVERY = 0.0
first, second, out, operator, times = sys.argv[1:]
save = Progress.save
def counted(self, name, tensors, told=None, left=[int(times)]):
    save(self, name, tensors, told)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
Progress.save = counted
train.merge([first, second], out or None, operator=operator)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    start = train.fit("digits", out=folder / "start", **OPTIONS)
    return [
        train.fit("digits", out=folder / f"lr{lr}", start=str(start.path), lr=lr, **OPTIONS) for lr in (0.005, 0.01)
    ]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def killed(runs, out, operator, times, folder):
    """Merges in a process of its own, which is killed behind so many times of keeping something."""
    command = [sys.executable, "-c", KILLED, *(str(run.path) for run in runs), str(out), operator, str(times)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def same(first, second):
    a, b = first.model.state_dict(), second.model.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert first.metrics == second.metrics


def test_killed_it_goes_on_to_the_same_bits(runs, tmp_path):
    paths, lines = [run.path for run in runs], []
    expected = train.merge(paths, tmp_path / "whole", operator=OPERATOR)
    killed(runs, tmp_path / "m", OPERATOR, 5, tmp_path)
    kept = tmp_path / ".m.merging"
    assert [file.name for file in kept.iterdir()] == ["factors.safetensors"]
    assert not (tmp_path / "m").exists()
    found = train.merge(paths, tmp_path / "m", operator=OPERATOR, report=lines.append)
    same(found, expected)
    assert sum("goes on" in line for line in lines) == 1
    assert not kept.exists()


def test_without_a_directory_the_same_one_is_taken_again(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed(runs, "", OPERATOR, 2, tmp_path)
    stem = f"{runs[0].path.name}-merged"
    assert (tmp_path / "runs" / f".{stem}-1.merging").is_dir()
    paths = [run.path for run in runs]
    other = train.merge(paths, operator="anisotropic:steps=3,images=16")
    assert other.path.name == f"{stem}-2"  # another merge is not what was begun there
    assert train.merge(paths, operator=OPERATOR).path.name == f"{stem}-1"
    assert not list((tmp_path / "runs").glob(".*.merging"))


def test_killed_while_the_run_is_written_it_is_written_again(runs, tmp_path, monkeypatch):
    paths = [run.path for run in runs]
    expected = train.merge(paths, tmp_path / "whole", operator=OPERATOR)
    monkeypatch.setattr("repertoire.weights._progress.EVERY", 0.0)

    class Killed(BaseException):
        pass

    def stopped(*_, **__):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(train._derived._checkpoint, "save", stopped)
        with pytest.raises(Killed):
            train.merge(paths, tmp_path / "m", operator=OPERATOR)
    assert (tmp_path / ".m.merging" / "factors.safetensors").is_file()
    same(train.merge(paths, tmp_path / "m", operator=OPERATOR), expected)


def test_other_runs_are_another_merge(runs):
    base = {"w": torch.zeros(1)}
    merging = _merge._Merging(list(runs), None, None)
    keys = {
        merging.key("a", {}),
        merging.key("b", {}),
        merging.key("a", base),
        _merge._Merging([runs[0]] * 2, None, None).key("a", {}),
    }
    assert len(keys) == 4
    assert merging.key("a", {}) == _merge._Merging(list(runs), None, None).key("a", {})
    assert not Progress(None, merging.key("a", {})).holds()
