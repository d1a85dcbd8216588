"""`merge`, `compress` and `stitch` killed in the middle: the same command goes on, and comes to the same bits."""

from __future__ import annotations

import os
import pkgutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from commands import run_cli
from repertoire import cli, train
from repertoire.weights import Progress

OPTIONS = {"epochs": 1, "device": "cpu", "batch_size": 256, "quiet": True}
ALWAYS = ("--no-report", "--device", "cpu", "--out")

COMMANDS: dict[str, tuple[str, ...]] = {
    "codebook": ("compress", "a", "--by", "codebook:bits=2,groups=2,rounds=2"),
    "lowrank": ("compress", "a", "--by", "lowrank:error=0.5"),
    "lowrank-share": ("compress", "a", "--by", "lowrank:share=0.5,epochs=1"),
    "dynamic": ("compress", "a", "--by", "dynamic:mass=0.7,rounds=1,epochs=1"),
    "ternary": ("compress", "a", "--by", "ternary:density=0.3"),
    "stitch": ("stitch", "a", "wide", "--epochs", "1"),
    "soup": ("merge", "a", "b"),
}
SAVE = Progress.save
KEPT = {"compress": ".cut.compressing", "stitch": ".cut.stitching", "merge": ".cut.merging"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start, two runs that began there, and a wider one."""
    root = tmp_path_factory.mktemp("runs")
    start = train.fit("digits", out=root / "base", backbone="convnet:width=4,depth=3", **OPTIONS)
    for name, lr in (("a", 0.003), ("b", 0.006)):
        train.fit(
            "digits", out=root / name, start=str(start.path), backbone="convnet:width=4,depth=3", lr=lr, **OPTIONS
        )
    train.fit("digits", out=root / "wide", backbone="convnet:width=8,depth=3", **OPTIONS)
    return root


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    """Something is kept whenever it can be."""
    monkeypatch.chdir(places)
    monkeypatch.setattr("repertoire.weights._progress.EVERY", 0.0)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is kept from now on."""
    found: list[str] = []

    def save(self: Progress, name: str, *more: Any) -> None:
        found.append(name)
        SAVE(self, name, *more)

    monkeypatch.setattr(Progress, "save", save)
    return found


def killed(where: str, name: str, call: int, *arguments: object) -> None:
    """Runs a command in a process of its own, which is killed behind that call of a function: no handler sees it.
    `where` names the module or the class that has the function."""
    owner = pkgutil.resolve_name(where)
    child = os.fork()
    if child == 0:
        original, left = getattr(owner, name), [call]

        def counted(*given: object, **more: object) -> object:
            found = original(*given, **more)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(owner, name, counted)
        try:
            cli.main([str(each) for each in arguments])
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def read(file: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """What a file of weights says, which stands in it in any order, and its tensors."""
    with safe_open(str(file), framework="pt") as opened:
        return opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def same(first: Path, second: Path) -> None:
    assert (first / "metrics.json").read_bytes() == (second / "metrics.json").read_bytes()
    (told, tensors), (others_told, others) = (
        read(each / "checkpoints" / "best.safetensors") for each in (first, second)
    )
    assert told == others_told
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        assert value.dtype == others[name].dtype
        assert torch.equal(value, others[name]), name
    found, expected = (np.load(folder / "predictions.npz") for folder in (first, second))
    assert all(np.array_equal(found[name], expected[name]) for name in expected.files)
    info = [train.load(folder).info for folder in (first, second)]
    for key in ("merged", "compressed", "stitched"):
        assert info[0].get(key) == info[1].get(key)


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_it_goes_on_to_the_same_bits(name: str, tmp_path: Path, always: None, capsys, monkeypatch):
    command = COMMANDS[name]
    whole, cut, kept = tmp_path / "whole", tmp_path / "cut", tmp_path / KEPT[command[0]]
    saves = watched(monkeypatch)
    status, expected, err = run_cli(capsys, *command, *ALWAYS, whole)
    monkeypatch.setattr(Progress, "save", SAVE)
    assert status == 0, err
    assert err == ""
    third = len(saves) // 3
    for _ in range(2):
        killed("repertoire.weights:Progress", "save", third, *command, *ALWAYS, cut)
        assert list(kept.glob("*.safetensors"))
        assert not (cut / "run.json").exists()
    done = watched(monkeypatch)
    status, out, err = run_cli(capsys, *command, *ALWAYS, cut)
    assert (status, err) == (0, f"goes on with what was kept in {kept}\n")
    assert out == expected.replace(str(whole), str(cut)).replace("whole", "cut")
    # What was kept is neither computed nor kept again.
    assert done == saves[2 * third :]
    same(cut, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "whole"]


def test_killed_while_the_run_is_written_it_is_written_again(tmp_path: Path, always: None, capsys):
    command = COMMANDS["lowrank"]
    status, _, err = run_cli(capsys, *command, *ALWAYS, tmp_path / "whole")
    assert status == 0, err
    killed("repertoire.train._checkpoint", "save", 1, *command, *ALWAYS, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoints" / "best.safetensors").exists()
    status, _, err = run_cli(capsys, *command, *ALWAYS, tmp_path / "cut")
    assert status == 0, err
    assert "goes on with what was kept" in err
    same(tmp_path / "cut", tmp_path / "whole")
    assert not (tmp_path / ".cut.compressing").exists()


def test_what_was_kept_of_another_command_is_discarded_and_said(tmp_path: Path, always: None, capsys):
    kept = tmp_path / ".cut.compressing"
    killed("repertoire.weights:Progress", "save", 3, *COMMANDS["codebook"], *ALWAYS, tmp_path / "cut")
    other = ("compress", "a", "--by", "codebook:bits=3,groups=2,rounds=2")
    status, _, err = run_cli(capsys, *other, *ALWAYS, tmp_path / "whole")
    assert status == 0, err
    status, _, err = run_cli(capsys, *other, *ALWAYS, tmp_path / "cut")
    assert status == 0, err
    assert "is of other runs, data or options, or of another version, and is discarded: this begins anew" in err
    assert "goes on" not in err
    same(tmp_path / "cut", tmp_path / "whole")
    assert not kept.exists()


def test_what_is_damaged_is_begun_anew(tmp_path: Path, always: None, capsys, monkeypatch):
    kept = tmp_path / ".cut.compressing"
    saves = watched(monkeypatch)
    status, _, err = run_cli(capsys, *COMMANDS["codebook"], *ALWAYS, tmp_path / "whole")
    assert status == 0, err
    monkeypatch.setattr(Progress, "save", SAVE)
    killed(
        "repertoire.weights:Progress",
        "save",
        saves.index("layer-0") + 1,
        *COMMANDS["codebook"],
        *ALWAYS,
        tmp_path / "cut",
    )
    moments, layer = kept / "moments.safetensors", kept / "layer-0.safetensors"
    moments.write_bytes(moments.read_bytes()[:-5])
    found = bytearray(layer.read_bytes())
    found[-1] ^= 4
    layer.write_bytes(found)
    status, _, err = run_cli(capsys, *COMMANDS["codebook"], *ALWAYS, tmp_path / "cut")
    assert status == 0, err
    lines = err.splitlines()
    assert [line.split()[0] for line in lines if "is damaged and is discarded" in line] == [moments.name, layer.name]
    same(tmp_path / "cut", tmp_path / "whole")
    assert not kept.exists()


def test_without_a_directory_the_same_one_is_taken_again(
    tmp_path: Path, places: Path, always: None, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for command, stem in ((COMMANDS["codebook"], "a-small-1"), (COMMANDS["stitch"], "wide-stitched-1")):
        given = [str(places / word) if (places / word).is_dir() else word for word in command]
        killed("repertoire.weights:Progress", "save", 3, *given, "--no-report", "--device", "cpu")
        assert list((tmp_path / "runs").glob(f".{stem}.*"))
        status, out, err = run_cli(capsys, *given, "--no-report", "--device", "cpu")
        assert status == 0, err
        assert "goes on with" in err
        assert f"runs/{stem}" in out
    assert not [path for path in (tmp_path / "runs").iterdir() if path.name.startswith(".")]
