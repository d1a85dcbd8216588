from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from repertoire import train
from repertoire.errors import RepertoireWarning, RunError
from repertoire.train import _directory
from repertoire.train._directory import RunDirectory, next_free

PROJECT = {
    "config.yaml": "# mine\nepochs: 1\n",
    "metrics.json": "{}",
    "predictions.npz": "x",
    "report.html": "x",
    "model.onnx": "x",
    "model.pt2.bak": "x",
    "tensorboard/events": "x",
    "explanations/a.txt": "x",
    "evaluation-2024/results.csv": "x",
    "checkpoints/step-000000001.safetensors": "x",
}


def fill(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def contents(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file() and p.name != ".lock"}


def make_run(root: Path) -> RunDirectory:
    """What a run leaves, without training one."""
    directory = RunDirectory(root)
    directory.clear()
    directory.write_config(train.make_config(data="digits"))
    info = {"status": "finished", "classes": ["a", "b"], "channels": 1, "size": 8, "mean": [0.5], "std": [0.2]}
    directory.write_info(info)
    directory.append_history({"epoch": 1})
    fill(root, {"checkpoints/step-000000001.safetensors": "x", "checkpoints/best.safetensors": "x"})
    return directory


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", [*PROJECT, "photo.jpg", ".hidden", "run.json"])
def test_a_folder_of_the_user_is_never_touched(options: dict, tmp_path: Path, name: str, overwrite: bool):
    fill(tmp_path, {name: PROJECT.get(name, "precious")})
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"not empty and holds no run|already holds"):
        RunDirectory(tmp_path).check_free(overwrite=overwrite)
    with pytest.raises(RunError):
        train.fit(out=tmp_path, overwrite=overwrite, **{**options, "epochs": 1})
    assert contents(tmp_path) == before


def test_what_file_managers_leave_behind_does_not_count(tmp_path: Path):
    fill(tmp_path, {".DS_Store": "x"})
    RunDirectory(tmp_path).check_free()


def test_replacing_a_run_removes_what_is_its_own_and_keeps_the_rest(tmp_path: Path):
    directory = make_run(tmp_path)
    ours = {"model.onnx": "x", "evaluation-test/metrics.json": "{}", "tensorboard/events.1": "x"}
    theirs = {"model.onnx.json": "mine", "evaluation-test/notes.txt": "mine", "checkpoints/other.pt": "mine"}
    fill(tmp_path, {**ours, **theirs, "late.csv": "x"})
    directory.record(*(tmp_path / name for name in (*list(ours)[:2], "late.csv")))
    directory.record(tmp_path / "tensorboard/events.1", growing=True)
    fill(tmp_path, {"late.csv": "changed since", "tensorboard/events.1": "xyz"})
    with pytest.warns(RepertoireWarning, match=r"it stays: checkpoints, evaluation-test, late\.csv, model\.onnx\.json"):
        directory.clear()
    left = contents(tmp_path)
    # The configuration stays until the new one takes its place: a run without any could not be resumed.
    assert left.keys() - {"run.json", ".written", "config.yaml"} == {*theirs, "late.csv"}
    assert json.loads(left["run.json"])["status"] == "failed"
    assert not (tmp_path / "tensorboard").exists()


def test_an_edited_configuration_is_kept_under_another_name(tmp_path: Path):
    directory = make_run(tmp_path)
    directory.config_file.write_text("data: digits\nepochs: 7  # mine\n")
    with pytest.warns(RepertoireWarning, match=r"config\.edited-1\.yaml"):
        directory.clear()
    assert "# mine" in (tmp_path / "config.edited-1.yaml").read_text()


def test_a_run_that_was_cut_short_while_it_began_can_be_begun_again(tmp_path: Path):
    directory = make_run(tmp_path)
    directory.info_file.write_text("{")
    directory.clear()
    directory.check_free(overwrite=True)


def test_a_journal_cannot_name_files_elsewhere(tmp_path: Path):
    directory = make_run(tmp_path / "run")
    (tmp_path / "victim").write_text("precious")
    with open(directory.journal_file, "a") as journal:
        for name in ("../victim", str(tmp_path / "victim")):
            journal.write(json.dumps({"file": name, "state": None}) + "\n")
    directory.clear()
    assert (tmp_path / "victim").read_text() == "precious"


def test_jobs_that_start_together_get_a_directory_each(tmp_path: Path):
    found: list[Path] = []
    barrier = threading.Barrier(8)

    def job() -> None:
        barrier.wait()
        for _ in range(25):
            found.append(next_free("a", tmp_path))

    threads = [threading.Thread(target=job) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 200
    assert {path.name for path in found} == {f"a-{i}" for i in range(1, 201)}


def test_ranks_of_one_run_find_the_same_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert next_free("a", tmp_path) == next_free("a", tmp_path) == tmp_path / "a-1"
    assert not (tmp_path / "a-1").exists()


def test_what_was_made_in_vain_goes_and_what_was_there_stays(tmp_path: Path):
    made = RunDirectory(tmp_path / "runs" / "made")
    with made.hold():
        assert made.lock_file.exists()
    assert not made.path.exists()
    there = RunDirectory(tmp_path / "there")
    there.path.mkdir()
    with there.hold():
        pass
    assert list(there.path.iterdir()) == []
    numbered = RunDirectory(next_free("a", tmp_path))
    with pytest.raises(RunError, match="stop"), numbered.hold():
        raise RunError("stop")
    assert not numbered.path.exists()
    full = RunDirectory(next_free("a", tmp_path))
    with full.hold():
        (full.path / "mine.txt").write_text("precious")
    assert (full.path / "mine.txt").exists()


def test_a_directory_that_was_never_held_goes_when_the_process_ends(tmp_path: Path):
    refused, begun = next_free("a", tmp_path), next_free("a", tmp_path)
    (begun / "config.yaml").touch()
    for path in (refused, begun):
        _directory._forget(str(path))
    assert (refused.exists(), begun.exists()) == (False, True)


HOLD = """
import sys
from repertoire.train import _directory
from repertoire.train._directory import RunDirectory
from repertoire.errors import RunError
directory = RunDirectory(sys.argv[1])
held = 0
for _ in range(int(sys.argv[2])):
    try:
        with directory.hold():
            mark = directory.path / "mark"
            assert not mark.exists(), "two at once"
            mark.touch()
            mark.unlink()
            held += 1
    except RunError as error:
        assert "another process" in str(error), error
print(held)
"""


def test_two_processes_never_hold_one_directory_though_both_remove_it(tmp_path: Path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a"), "300"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]
    held = 0
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        held += int(out)
    assert held > 0


def test_a_lock_does_not_follow_a_link(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    os.symlink(victim, directory.lock_file)
    with pytest.raises(RunError, match="symbolic link"), directory.hold():
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", "x"), ("size", 10**6), ("classes", 5), ("classes", [1]), ("mean", [None]), ("mean", "0"),
     ("std", [1e999]), ("channels", True), ("channels", 0), ("status", None)],
)  # fmt: skip
def test_a_record_with_wrong_types_is_damaged(tmp_path: Path, field: str, value: object):
    directory = make_run(tmp_path)
    info = json.loads(directory.info_file.read_text())
    directory.info_file.write_text(json.dumps({**info, field: value}))
    with pytest.raises(RunError, match=rf"run\.json is damaged: {field} is"):
        directory.read_info()


def test_a_record_nested_without_end_is_damaged(tmp_path: Path):
    directory = make_run(tmp_path)
    directory.info_file.write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        directory.read_info()


def test_half_a_journal_of_a_killed_process_is_nothing(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "..written.ab12.tmp").write_text("")
    RunDirectory(tmp_path / "run").check_free()
