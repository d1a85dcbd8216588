from __future__ import annotations

import multiprocessing
import random
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from repertoire import recipe, train
from repertoire.errors import CheckpointError, Interrupted, RunError
from repertoire.rules import Backprop
from repertoire.train import _checkpoint
from stopping import crash


def weights(run: train.Run) -> dict[str, torch.Tensor]:
    """Everything of the final checkpoint: weights, statistics, moving average, momentum."""
    path = _checkpoint.checkpoints(run.directory.checkpoints)[0]
    return {"step": torch.tensor(int(path.stem.split("-")[1])), **_checkpoint.load(path).tensors}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def full(options: dict) -> dict[str, object]:
    return {**options, "ema": 0.9, "save_every": 4, "augment": "shift", "optimizer": "adamw", "lr": 0.003}


@pytest.fixture(scope="module")
def whole(full: dict, tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("whole") / "a", **full)


@pytest.mark.parametrize("step", [0, 3, 4, 6, 9, 17])
def test_a_crash_at_any_step_changes_nothing(full: dict, whole: train.Run, tmp_path: Path, step: int):
    with crash(Backprop, after=step):
        train.fit(out=tmp_path / "a", **full)
    assert train.load(tmp_path / "a").info["status"] == "failed"
    run = train.resume(tmp_path / "a")
    assert_equal(weights(run), weights(whole))
    timing = ("seconds", "images_per_second")
    strip = [[{k: v for k, v in row.items() if k not in timing} for row in r.history] for r in (run, whole)]
    assert strip[0] == strip[1]
    assert run.metrics == whole.metrics


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(full: dict, whole: train.Run, tmp_path: Path):
    with crash(Backprop, after=13):
        train.fit(out=tmp_path / "a", **full)
    newest, older = _checkpoint.checkpoints(tmp_path / "a" / "checkpoints")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert older.exists()
    assert_equal(weights(train.resume(tmp_path / "a")), weights(whole))


def test_as_many_checkpoints_as_asked_for_are_kept(options: dict, tmp_path: Path):
    for keep in (2, 3):
        run = train.fit(out=tmp_path / str(keep), **{**options, "epochs": 4, "keep": keep})
        steps = [int(path.stem.partition("-")[2]) for path in _checkpoint.checkpoints(run.directory.checkpoints)]
        assert len(steps) == keep
        assert steps == sorted(steps, reverse=True)
        assert len({newer - older for newer, older in pairwise(steps)}) == 1, "one after each epoch"


def test_ctrl_c_saves_and_says_how_to_go_on(
    full: dict, whole: train.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import signal

    original, calls, before = Backprop.step, [], signal.getsignal(signal.SIGINT)

    def patched(self: Backprop, method: object, batch: object) -> object:
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return original(self, method, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Backprop, "step", patched)
        with pytest.raises(Interrupted, match=r"go on with: repertoire\.train\.resume"):
            train.fit(out=tmp_path / "a", **full)
    assert train.load(tmp_path / "a").info["status"] == "interrupted"
    assert _checkpoint.checkpoints(tmp_path / "a" / "checkpoints")[0].name == "step-000000006.safetensors"
    assert_equal(weights(train.resume(tmp_path / "a")), weights(whole))
    # What was done about it before, be it nothing, as in the background of a shell.
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_of_what_is_in_memory_does_not_promise_a_way_on(full: dict, monkeypatch: pytest.MonkeyPatch):
    import signal

    original = Backprop.step

    def patched(self: Backprop, method: object, batch: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return original(self, method, batch)

    monkeypatch.setattr(Backprop, "step", patched)
    with pytest.raises(Interrupted, match="stopped in memory, at step 1; nothing was saved"):
        train.in_memory(recipe.make_config(**full))


def test_a_finished_run_is_given_back(whole: train.Run):
    before = whole.directory.info_file.read_bytes()
    assert train.resume(whole.path).metrics == whole.metrics
    assert whole.directory.info_file.read_bytes() == before


def test_a_finished_run_without_its_weights_is_no_success(options: dict, tmp_path: Path):
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 1})
    run.directory.best_file.unlink()
    with pytest.raises(CheckpointError, match="best"):
        train.resume(run.path)


def test_changed_data_is_noticed(options: dict, tiny: Path, tmp_path: Path):
    copied = tmp_path / "data.npz"
    copied.write_bytes(tiny.read_bytes())
    with crash(Backprop, after=8):
        train.fit(out=tmp_path / "a", **{**options, "data": str(copied)})
    with np.load(tiny, allow_pickle=False) as arrays:
        changed = dict(arrays)
    changed["images"][0] ^= 1
    np.savez(copied, **changed)
    with pytest.raises(RunError, match="changed since"):
        train.resume(tmp_path / "a")


def test_a_checkpoint_of_another_model_is_refused(options: dict, tmp_path: Path):
    with crash(Backprop, after=8):
        train.fit(out=tmp_path / "a", **options)
    config = tmp_path / "a" / "config.yaml"
    config.write_text(config.read_text().replace("width=8", "width=16"))
    with pytest.raises(CheckpointError, match="does not fit"):
        train.resume(tmp_path / "a")


def test_another_number_of_ranks_is_refused(options: dict, tmp_path: Path):
    import json

    with crash(Backprop, after=8):
        train.fit(out=tmp_path / "a", **options)
    record = tmp_path / "a" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "ranks": 2}))
    with pytest.raises(RunError, match="2 ranks"):
        train.resume(tmp_path / "a")


def test_the_record_says_what_is_going_on(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with crash(Backprop, after=8):
        train.fit(out=tmp_path / "a", **options)
    left_over = tmp_path / "a" / "checkpoints" / ".step-000000099.safetensors.abc.tmp"
    left_over.touch()
    assert train.load(tmp_path / "a").info["reason"] == "Crash"
    seen = []
    original = Backprop.step

    def look(self: Backprop, method: object, batch: object) -> object:
        seen.append(train.load(tmp_path / "a").info["status"])
        return original(self, method, batch)

    monkeypatch.setattr(Backprop, "step", look)
    finished = train.resume(tmp_path / "a")
    assert set(seen) == {"running"}
    assert finished.info["status"] == "finished"
    assert "reason" not in finished.info
    assert not left_over.exists()


def test_a_crash_before_the_first_checkpoint_leaves_no_history_behind(options: dict, tmp_path: Path):
    run = train.fit(out=tmp_path / "a", **{**options, "epochs": 2})
    for path in run.directory.checkpoints.iterdir():
        path.unlink()
    run.directory.write_info({**run.info, "status": "failed"})
    again = train.resume(run.path)
    assert [row["epoch"] for row in again.history] == [1, 2]


def test_two_runs_do_not_write_to_one_directory(options: dict, tmp_path: Path):
    from repertoire.files import lock_directory

    with lock_directory(tmp_path / "a"), pytest.raises(RunError, match="another process"):
        train.fit(out=tmp_path / "a", **options)


def _child(path: str, options: dict) -> None:
    torch.set_num_threads(1)
    directory = Path(path)
    if (directory / "run.json").exists():
        train.resume(directory)
    else:
        train.fit(out=directory, overwrite=True, **options)


@pytest.mark.slow
def test_twenty_kills_at_random_instants(options: dict, tmp_path: Path):
    """SIGKILL, which no handler sees, at twenty random instants; then the weights of a run that nobody touched."""
    chosen = {**options, "epochs": 12, "save_every": 3, "ema": 0.9}
    whole = train.fit(out=tmp_path / "whole", **chosen)
    context = multiprocessing.get_context("forkserver")
    # Modules are imported once, in the server: a child is at work at once, and a kill hits training, not imports.
    context.set_forkserver_preload(
        ["repertoire.train._fit", "repertoire.losses", "repertoire.rules", "repertoire.heads"]
    )
    generator = random.Random(0)
    path, kills = tmp_path / "killed", 0
    while True:
        process = context.Process(target=_child, args=(str(path), chosen))
        process.start()
        if kills < 20:
            time.sleep(generator.uniform(0.05, 0.6))
            kills += process.is_alive()
            process.kill()
            process.join()
            if (path / "run.json").exists() and train.load(path).info["status"] == "finished":
                # It was quicker than twenty kills: begin again, so that every kill hits a run at work.
                train.load(path).directory.clear()
            continue
        process.join(120)
        assert process.exitcode == 0
        break
    assert_equal(weights(train.load(path)), weights(whole))
