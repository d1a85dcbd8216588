"""A run over a pipeline of processes is the run of one process, file by file."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from repertoire import train
from repertoire.cli.train import complete
from repertoire.errors import CheckpointError, ConfigError, RunError
from repertoire.recipe import layout
from repertoire.train import _checkpoint


@pytest.fixture(scope="module")
def fields(tiny: Path) -> dict[str, Any]:
    """Batch normalisation, momentum, augmentation, a moving average, checkpoints inside an epoch."""
    return {
        "data": str(tiny),
        "backbone": "resnet20:width=2",
        "rule": "local:blocks=3,auxiliary=linear",
        "augment": "shift",
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.05,
        "seed": 3,
        "ema": 0.8,
        "save_every": 4,
        "device": "cpu",
    }


def flags(fields: dict[str, Any]) -> list[str]:
    named = [(f"--{name.replace('_', '-')}", str(value)) for name, value in fields.items() if name != "data"]
    return ["-m", "repertoire", "train", fields["data"], *(item for pair in named for item in pair), "--no-report"]


@pytest.fixture(scope="module")
def one(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> train.Run:
    return train.fit(out=tmp_path_factory.mktemp("one") / "a", **fields)


def assert_same(run: train.Run, other: train.Run) -> None:
    """Weights, statistics, moving average, momenta; what was measured; what was written beside."""
    for file in ("best.safetensors", _checkpoint.checkpoints(other.directory.checkpoints)[0].name):
        a, b = (_checkpoint.load(r.directory.checkpoints / file) for r in (run, other))
        assert a.tensors.keys() == b.tensors.keys()
        assert not [name for name in a.tensors if not torch.equal(a.tensors[name], b.tensors[name])]
        for values in (a.values, b.values):
            for key in ("seconds", "first_loss"):  # a pipeline does not begin anew
                values.get("progress", {}).pop(key, None)
        assert a.values == b.values
    timing = ("seconds", "images_per_second")
    histories = [[{k: v for k, v in row.items() if k not in timing} for row in r.history] for r in (run, other)]
    assert histories[0] == histories[1]
    assert run.metrics == other.metrics


@pytest.mark.slow
def test_a_pipelined_run_is_that_of_one_process_and_either_goes_on_with_the_other(
    ranks, fields: dict[str, Any], one: train.Run, tmp_path: Path
):
    started = ranks(2, *flags(fields), "--out", str(tmp_path / "two"), "--pipeline")
    said = "".join(process.communicate(timeout=600)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0], said[-3000:]
    assert said.count("test accuracy") == 1
    two = train.load(tmp_path / "two")
    assert two.config.pipeline == "all"
    assert two.info["ranks"] == 1, "all processes see the same batches"
    assert_same(two, one)
    # One process goes on where two were stopped: from the checkpoint before the last.
    shutil.copytree(two.path, tmp_path / "resumed")
    directory = train.load(tmp_path / "resumed").directory
    _checkpoint.checkpoints(directory.checkpoints)[0].unlink()
    directory.write_info({**two.info, "status": "running"})
    assert_same(train.resume(tmp_path / "resumed"), one)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_then_goes_on(
    ranks, fields: dict[str, Any], one: train.Run, tmp_path: Path
):
    """Killed after the first epoch, the run is resumed by the same processes and gives the same weights."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\nfrom repertoire.cli import main\nfrom repertoire.local import Pipeline\nsend = Pipeline.send\n"
        "def slowly(*args):\n    time.sleep(0.3)\n    send(*args)\nPipeline.send = slowly\nmain()\n"
    )
    out = tmp_path / "run"
    started = ranks(2, str(slow), *flags(fields)[2:], "--out", str(out), "--pipeline")
    limit = time.monotonic() + 600
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert time.monotonic() < limit
        assert started[0].poll() is None, started[0].communicate()[0]
        time.sleep(0.05)
    started[1].kill()
    killed = time.monotonic()
    output, _ = started[0].communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert started[0].returncode == 2
    # Which of the two depends on whether the first process was just waiting for a message, or for all others.
    gone = re.compile(r"(process 1 of 2 \(block|another process).* is gone or no longer answers")
    assert gone.search(output), output
    assert f"--resume {out}" in output
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "failed"
    assert gone.search(info["reason"])
    resumed = ranks(2, "-m", "repertoire", "train", "--resume", str(out), "--no-report")
    outputs = [process.communicate(timeout=600)[0] for process in resumed]
    assert [process.returncode for process in resumed] == [0, 0], outputs
    assert_same(train.load(out), one)


def test_what_cannot_be_a_pipeline_leaves_nothing_behind(fields: dict[str, Any], tmp_path: Path):
    for changes, text in (
        ({"pipeline": "all"}, "pipeline needs several processes: start with torchrun"),
        ({"pipeline": 2}, "1 process cannot be divided into pipelines of 2"),
        ({"pipeline": "all", "rule": "backprop"}, "no block waits for those after it.* the rule is 'backprop'"),
        ({"pipeline": 0}, "1 or more stages"),
        ({"pipeline": "both"}, "1 or more stages"),
        ({"pipeline": 1, "precision": "16"}, "precision 16 needs a GPU|does not work in float16"),
        ({"rule": "local:blocks=99"}, "blocks is 99, and this network can be cut into no more than 10"),
    ):
        with pytest.raises(ConfigError, match=text):
            train.fit(out=tmp_path / "a", **{**fields, **changes})
        assert not list(tmp_path.iterdir())


def test_stages_and_replicas(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    for pipeline, expected in ((None, (1, 4)), ("all", (4, 1)), (2, (2, 2)), ("2", (2, 2)), (1, (1, 4))):
        assert layout(train.make_config(**fields, pipeline=pipeline)) == expected
    with pytest.raises(ConfigError, match="4 processes cannot be divided into pipelines of 3"):
        layout(train.make_config(**fields, pipeline=3))


def test_a_pipelined_run_does_not_go_on_with_other_replicas(one: train.Run, tmp_path: Path):
    shutil.copytree(one.path, tmp_path / "a")
    train.load(tmp_path / "a").directory.write_info({**one.info, "status": "running", "ranks": 2})
    with pytest.raises(RunError, match="was trained by 2 ranks and cannot go on with 1"):
        train.resume(tmp_path / "a")


def test_a_checkpoint_of_another_partition_is_refused(one: train.Run, tmp_path: Path):
    shutil.copytree(one.path, tmp_path / "a")
    directory = train.load(tmp_path / "a").directory
    directory.write_info({**one.info, "status": "running"})
    directory.write_config(one.config.model_copy(update={"rule": "local:blocks=2,auxiliary=linear"}))
    with pytest.raises(CheckpointError, match=r"is of a network cut into 3 blocks .* this one has 2"):
        train.resume(tmp_path / "a")


def test_the_number_of_stages_may_be_left_out():
    assert complete(["train", "a", "--pipeline"]) == ["train", "a", "--pipeline", "all"]
    assert complete(["train", "--pipeline", "a"]) == ["train", "--pipeline", "all", "a"]
    assert complete(["train", "a", "--pipeline", "2", "-q"]) == ["train", "a", "--pipeline", "2", "-q"]
    assert complete(["train", "a", "--pipeline=2"]) == ["train", "a", "--pipeline=2"]
