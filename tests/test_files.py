from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from repertoire import files
from repertoire.errors import RunError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_replaces_the_file_whole(tmp_path: Path):
    target = tmp_path / "deep" / "a.txt"
    files.write_text(target, "new\udcff")
    assert target.read_bytes() == b"new\\udcff"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "a.txt"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="no space left"):
        files.write_text(target, "new")
    assert target.read_text() == "old"


def test_json_refuses_what_json_cannot_hold(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def _hold(directory: Path, ready: object, release: object) -> None:
    with files.lock_directory(directory):
        ready.set()
        release.wait(30)


def test_a_directory_is_held_by_one_process_at_a_time(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, release))
    process.start()
    assert ready.wait(30)
    with pytest.raises(RunError, match="another process is writing"), files.lock_directory(tmp_path):
        pass
    # Killed, not released: the lock must die with its holder.
    process.kill()
    process.join()
    with files.lock_directory(tmp_path):
        pass


def test_json_has_a_list_of_numbers_on_a_line_and_loses_nothing(tmp_path: Path) -> None:
    value = {
        "confusion": [[10, 0], [-1, 2.5e-30]],
        "empty": [],
        "text": ["[\n1,\n2\n]", "3,"],
        "mixed": [1, "2", None, [3]],
        "deep": [{"counts": [1, 2, 3]}],
    }
    files.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == value
    assert "    [10, 0],\n    [-1, 2.5e-30]\n" in text
    assert '"counts": [1, 2, 3]' in text
    files.write_json(tmp_path / "b.json", {"confusion": [[0] * 300] * 300})
    assert len((tmp_path / "b.json").read_text().splitlines()) == 304


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "a.txt"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_text(folder, "new")
    assert caught.value.filename == str(folder)
    with pytest.raises(OSError, match=r"[Nn]o such file|denied|not permitted") as failed:
        files.write_text("/proc/here.txt", "new")
    assert failed.value.filename == "/proc/here.txt"
    # What the block says of another file, or of who reads the output, stays.
    for error in (FileNotFoundError(errno.ENOENT, "no", "other"), BrokenPipeError(errno.EPIPE, "gone")):
        with pytest.raises(type(error)) as stays, files.atomic_path(tmp_path / "b.txt"):
            raise error
        assert stays.value is error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("where", ["making the file", "making the folder"])
def test_a_full_disk_names_the_file_from_the_first_moment(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "elsewhere")

    monkeypatch.setattr(*((files.tempfile, "mkstemp") if where == "making the file" else (Path, "mkdir")), full)
    with pytest.raises(RunError, match=r"no space left on the disk to write .*a\.txt"):
        files.write_text(tmp_path / "deep" / "a.txt", "new")


def test_a_place_is_looked_at_and_left_as_it_is(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    files.check_place(tmp_path / "file", "out")
    files.check_place(tmp_path / "deep" / "er" / "file", "out")
    files.check_place(tmp_path / "deep", "out", folder=True)
    for place, folder, words in (
        (" ", False, "out is empty: name a file"),
        ("", True, "out is empty: name a folder"),
        (tmp_path, False, "which is a directory"),
        (tmp_path / "file", True, "which is a file"),
        (tmp_path / "file" / "x", False, "is no folder"),
        (tmp_path / "file" / "x" / "y", True, "is no folder"),
        ("/proc/x/y", True, "nothing can be written to /proc"),
    ):
        with pytest.raises(RunError, match=words):
            files.check_place(place, "out", folder=folder)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
