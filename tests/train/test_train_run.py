from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from repertoire import train
from repertoire.errors import CheckpointError, RepertoireWarning, RunError


@pytest.fixture(scope="module")
def finished(options: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.fit(out=tmp_path_factory.mktemp("run") / "a", **{**options, "epochs": 2}).path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "a"))


def test_no_directory_and_no_run_are_told_apart(tmp_path: Path):
    with pytest.raises(RunError, match="there is no run directory"):
        train.load(tmp_path / "none")
    with pytest.raises(RunError, match="is not a run directory"):
        train.load(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_truncated_record_is_damaged(copied: Path, length: int):
    record = copied / "run.json"
    record.write_bytes(record.read_bytes()[:length])
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        train.load(copied)


def test_a_newer_run_asks_for_an_upgrade(copied: Path):
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(RunError, match="newer version"):
        train.load(copied)


def test_a_record_that_lacks_fields_names_them(copied: Path):
    info = json.loads((copied / "run.json").read_text())
    del info["classes"], info["mean"]
    (copied / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="lacks classes, mean"):
        train.load(copied)


def test_missing_pieces_are_named(copied: Path):
    (copied / "config.yaml").rename(copied / "gone")
    with pytest.raises(RunError, match=r"no config\.yaml"):
        train.load(copied)
    (copied / "gone").rename(copied / "config.yaml")
    (copied / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"no metrics\.json"):
        _ = train.load(copied).metrics


def test_without_the_best_weights_the_newest_are_used(copied: Path, finished: Path):
    (copied / "checkpoints" / "best.safetensors").unlink()
    with pytest.warns(RepertoireWarning, match="using the last weights"):
        found = train.load(copied).model.state_dict()
    assert found.keys() == train.load(finished).model.state_dict().keys()


def test_without_any_weights_the_error_names_the_file(copied: Path):
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        _ = train.load(copied).model


def test_another_number_of_classes_is_refused(copied: Path):
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**info, "classes": [*info["classes"], "more"]}))
    with pytest.raises(CheckpointError, match="4 classes"):
        _ = train.load(copied).model


@pytest.mark.parametrize("task", [5, {}, {"kind": ["classes"]}, {"kind": "number"}, {"kind": "classes", "more": [1]}])
def test_a_damaged_task_is_one_line(copied: Path, task: object):
    info = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**info, "task": task}))
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        train.load(copied)


def test_a_cut_last_line_of_the_history_is_left_out(copied: Path):
    history = copied / "metrics.jsonl"
    history.write_text(history.read_text()[:-20])
    assert len(train.load(copied).history) == 1


def test_a_set_of_other_classes_is_refused(finished: Path):
    from dataclasses import replace

    run = train.load(finished)
    with pytest.raises(RunError, match="classes"):
        run.evaluate(replace(run.splits.test, classes=("a", "b", "c")))
