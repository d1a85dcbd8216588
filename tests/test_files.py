from __future__ import annotations

import errno
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
