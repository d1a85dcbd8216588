"""The directory of a run: what lies where, who may write to it, and reading it with suspicion.

Nothing in it is removed or replaced that is not provably a run's. Two things are proof: for the files that every run
has, a record of a run (`run.json`, or the mark of one that began in an empty directory); for what commands added later,
the journal `.written`. A file in the journal is theirs as long as nobody changed it since.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repertoire.errors import RepertoireWarning, RunError, ascii_path, option, resuming
from repertoire.files import naming, write_json, write_text
from repertoire.recipe import TrainConfig, make_config, read_config, write_config

__all__ = ["RunDirectory", "next_free"]

FORMAT = 1
_NEEDED = ("format", "status", "classes", "channels", "size", "mean", "std")
_MARK = {"begun": "in an empty directory"}
"""First line of the journal of a run that began where there was nothing."""

_NOTHING = {".lock", ".written", ".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that make no directory occupied: ours, and what file managers leave behind."""

_MADE: set[str] = set()
"""Directories that this process made, and may remove while no run has begun in them."""


class RunDirectory:
    """Paths of a run's files, and their reading and writing.

    ```text
    config.yaml        the resolved configuration
    run.json           classes, image size, data, versions, commit, machine, status
    metrics.jsonl      one line an epoch
    metrics.json       the final metrics on the test images
    predictions.npz    logits, embeddings and labels of the test images
    checkpoints/       step-*.safetensors (the last two) and best.safetensors
    report.html
    .written           journal of what commands on the run added
    ```
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.info_file = self.path / "run.json"
        self.history_file = self.path / "metrics.jsonl"
        self.metrics_file = self.path / "metrics.json"
        self.predictions_file = self.path / "predictions.npz"
        self.report_file = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.best_file = self.checkpoints / "best.safetensors"
        self.journal_file = self.path / ".written"
        self.lock_file = self.path / ".lock"

    def __str__(self) -> str:
        return ascii_path(str(self.path))

    @property
    def occupied(self) -> bool:
        """True if a run lies here already."""
        return self.info_file.exists() or any(self.checkpoints.glob("step-*.safetensors"))

    def check_free(self, *, overwrite: bool = False) -> None:
        """Refuses a directory in which a new run may not begin.

        Args:
            overwrite: an older run that lies there may give way.

        Raises:
            RunError: it holds a run, or something that is not provably a run's.
        """
        if not self._ours() and (found := self._entries()):
            shown = ", ".join(ascii_path(name) for name in found[:3]) + (", ..." if len(found) > 3 else "")
            raise RunError(
                f"{self} is not empty and holds no run of Repertoire (found {shown}); nothing in it was touched. "
                f"Choose another {option('out')}, or an empty directory"
            )
        if self.occupied and not overwrite:
            path = str(self)
            raise RunError(
                f"{self} already holds a run; go on with it: {resuming(path)}, replace it: "
                f"{option('overwrite', True)}, or choose another {option('out')}"
            )

    def clear(self) -> None:
        """Makes room for a new run: removes what is provably an older run's, and nothing else.

        What a user changed stays too; a configuration that was edited is kept under another name. A warning names
        what stays.

        Raises:
            RunError: the directory holds something, and no run.
        """
        self.check_free(overwrite=True)
        if not self._entries():
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.journal_file, json.dumps(_MARK) + "\n")
            return
        journal = self._journal()
        if self._changed(self.config_file, journal):
            os.replace(self.config_file, self._beside(self.config_file))
        if self.info_file.exists():
            # Until the new run has written its own record, this is one that failed, and not a finished one.
            with contextlib.suppress(RunError):
                self.write_info({**self.read_info(), "status": "failed", "reason": "its directory was given away"})
        # Not the configuration: the new one takes its place at once, and a run without any could not even be resumed.
        files = [self.history_file, self.metrics_file, self.predictions_file, self.report_file]
        files += [*self.checkpoints.glob("step-*.safetensors"), *self.checkpoints.glob(".*.tmp"), self.best_file]
        # What a process that was killed while it wrote one of these left half-written.
        own = (self.config_file, self.info_file, *files[:4])
        files += [half for file in own for half in self.path.glob(f".{file.name}.*.tmp")]
        added = [name for name in journal if name != self.config_file.name]
        files += [self.path / name for name in added if not self._changed(self.path / name, journal)]
        for file in files:
            file.unlink(missing_ok=True)
        for folder in sorted({parent for file in files for parent in self._inside(file)}, key=str, reverse=True):
            with contextlib.suppress(OSError):  # it holds something that is not ours
                folder.rmdir()
        write_text(self.journal_file, json.dumps(_MARK) + "\n")
        if kept := [name for name in self._entries() if name not in (self.info_file.name, self.config_file.name)]:
            shown = ", ".join(ascii_path(name) for name in kept[:5]) + (", ..." if len(kept) > 5 else "")
            warnings.warn(
                f"{self} also holds what is not known to be the older run's, or was changed since; it stays: {shown}",
                RepertoireWarning,
                stacklevel=2,
            )

    def record(self, *files: Path, growing: bool = False) -> None:
        """Notes that a command wrote these files, so that they go when the run is replaced.

        Args:
            files: those outside the run's directory are passed over.
            growing: they are still being written to, and whatever becomes of them is this command's.
        """
        lines = []
        for file in files:
            with contextlib.suppress(ValueError, OSError):
                name = file.resolve().relative_to(self.path.resolve()).as_posix()
                lines.append(json.dumps({"file": name, "state": None if growing else _state(file)}) + "\n")
        # A run on a read-only disk can be used all the same.
        with contextlib.suppress(OSError), open(self.journal_file, "a", encoding="utf-8") as journal:
            journal.writelines(lines)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Makes the directory if need be, and holds it for this process; the system lets go however the process ends.

        Where no run began in it, a directory that this process made is removed again, unless something else is in it.

        Raises:
            RunError: another process holds it.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir()
                _MADE.add(self._key)
        descriptor = self._lock()
        try:
            yield
        finally:
            if self._key in _MADE and not self.info_file.exists():
                # Refused before it began: leave no empty directory, whose number the next run would skip.
                self.journal_file.unlink(missing_ok=True)
                self.lock_file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.path.rmdir()
            else:
                # Once only: what lies there after it was removed is the lock of another process.
                self.lock_file.unlink(missing_ok=True)
            _MADE.discard(self._key)
            os.close(descriptor)

    def _lock(self) -> int:
        """Descriptor of the lock file, locked."""
        while True:
            try:
                # Through no link, and without emptying what is there: the directory may be one that others write to.
                descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                self.path.mkdir(parents=True, exist_ok=True)  # removed just now by the process that had made it
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise RunError(f"{self}/.lock is a symbolic link, which no run makes; remove it") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise RunError(
                    f"another process is writing to {self}; wait for it, or choose another {option('out')}"
                ) from error
            # Whoever held it before may have removed the file in the meantime: then this lock keeps nobody out.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(self.lock_file)):
                    return descriptor
            os.close(descriptor)

    @property
    def _key(self) -> str:
        return os.path.abspath(self.path)

    def _ours(self) -> bool:
        """Whether a run of Repertoire lies here, or began here when there was nothing."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            info = json.loads(self.info_file.read_text(encoding="utf-8"))
            if isinstance(info, dict) and isinstance(info.get("format"), int) and "classes" in info:
                return True
        with contextlib.suppress(OSError, ValueError), open(self.journal_file, encoding="utf-8") as journal:
            return json.loads(journal.readline()) == _MARK
        return False

    def _entries(self) -> list[str]:
        """Names in the directory, but those that hold no work."""
        if not self.path.is_dir():
            return [self.path.name] if self.path.exists() else []
        # A process that was killed while it began here left half a journal.
        half = f".{self.journal_file.name}."
        names = {p.name for p in self.path.iterdir() if not (p.name.startswith(half) and p.name.endswith(".tmp"))}
        return sorted(names - _NOTHING)

    def _journal(self) -> dict[str, list[int] | None]:
        """Files that commands wrote, and their states when they had."""
        found: dict[str, list[int] | None] = {}
        with contextlib.suppress(OSError):
            for line in self.journal_file.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    row = json.loads(line)
                    name = str(row["file"])
                    if not Path(name).is_absolute() and ".." not in Path(name).parts:
                        found[name] = row["state"]
        return found

    def _changed(self, file: Path, journal: Mapping[str, list[int] | None]) -> bool:
        """Whether a file in the journal is no longer as it was written."""
        name = file.relative_to(self.path).as_posix()
        if name not in journal or file.is_symlink() or not file.is_file():
            return False
        return journal[name] is not None and journal[name] != _state(file)

    def _beside(self, file: Path) -> Path:
        """The first free name for a file that is kept: `config.edited-1.yaml`."""
        number = 1
        while (kept := file.with_name(f"{file.stem}.edited-{number}{file.suffix}")).exists():
            number += 1
        return kept

    def _inside(self, file: Path) -> list[Path]:
        """The folders between the run's directory and a file in it."""
        return [parent for parent in file.parents if self.path in parent.parents]

    def read_info(self) -> dict[str, Any]:
        """Contents of `run.json`.

        Raises:
            RunError: the directory is not a run, or `run.json` is cut short, incomplete or from a newer version.
        """
        if not self.path.is_dir():
            raise RunError(f"there is no run directory {self}")
        if not self.info_file.exists():
            folds = sorted(place.parent.name for place in self.path.glob("fold-*/run.json"))
            hint = f"; it holds folds, each of which is a run, such as {self}/{folds[0]}" if folds else ""
            if (self.path / "finetune" / "run.json").exists():
                hint = f"; it holds self-training, whose student is {self}/finetune"
            raise RunError(f"{self} is not a run directory: it has no run.json{hint}")
        try:
            info = json.loads(self.info_file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RunError(f"{self}/run.json is damaged: {error}") from None
        if not isinstance(info, dict) or not isinstance(info.get("format"), int):
            raise RunError(f"{self}/run.json is damaged: it is not the record of a run")
        if info["format"] > FORMAT:
            raise RunError(
                f"{self} was written by a newer version of Repertoire ({info.get('repertoire')}); upgrade to read it"
            )
        missing = [key for key in _NEEDED if key not in info]
        if missing:
            raise RunError(f"{self}/run.json is incomplete: it lacks {', '.join(missing)}")
        for name, valid, expected in _FIELDS:
            if not valid(info[name]):
                raise RunError(f"{self}/run.json is damaged: {name} is {str(info[name])[:40]!r}, expected {expected}")
        return info

    def write_info(self, info: Mapping[str, Any]) -> None:
        write_json(self.info_file, {"format": FORMAT, **info})

    def read_config(self) -> TrainConfig:
        """The configuration.

        Raises:
            RunError: `config.yaml` is missing. ConfigError: it is damaged.
        """
        if not self.config_file.exists():
            raise RunError(f"{self} is incomplete: it has no config.yaml")
        try:
            return make_config(**read_config(self.config_file))
        except RecursionError:
            raise RunError(f"{self}/config.yaml is damaged: it is nested too deeply") from None

    def write_config(self, config: TrainConfig) -> None:
        write_config(config, self.config_file)
        self.record(self.config_file)

    def history(self) -> list[dict[str, Any]]:
        """The epochs so far; a last line that a crash cut short is left out."""
        if not self.history_file.exists():
            return []
        rows = []
        for line in self.history_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def truncate_history(self, epochs: int) -> None:
        """Forgets the epochs from number `epochs` on, which a resumed run will do again."""
        rows = [row for row in self.history() if row["epoch"] <= epochs]
        write_text(self.history_file, "".join(json.dumps(row) + "\n" for row in rows))

    def append_history(self, row: Mapping[str, Any]) -> None:
        with naming(self.history_file), open(self.history_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _state(file: Path) -> list[int]:
    """What changes when a file does: its length and the time of its last change."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, int | float) and math.isfinite(v) for v in value)


_LARGEST = 1 << 14
_FIELDS: tuple[tuple[str, Any, str], ...] = (
    ("status", lambda v: isinstance(v, str), "a word"),
    ("classes", lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v), "a list of names"),
    # A run on features has neither pixels nor channels.
    ("size", lambda v: v is None or (type(v) is int and 1 <= v <= _LARGEST), f"pixels, at most {_LARGEST}"),
    ("channels", lambda v: v is None or (type(v) is int and 1 <= v <= 1 << 20), "a number of channels"),
    ("mean", lambda v: v is None or _numbers(v), "a list of numbers"),
    ("std", lambda v: v is None or _numbers(v), "a list of numbers"),
)
"""What the fields of `run.json` are: name, test, and what is expected."""


def _forget(path: str) -> None:
    """Removes a directory that was made for a run which was refused before it began."""
    if path in _MADE:
        with contextlib.suppress(OSError):
            os.rmdir(path)


def next_free(stem: str, root: Path | None = None) -> Path:
    """Makes `runs/STEM-1`, or the first number that is free: jobs that start at the same moment get one each.

    Under a launcher of several processes the directory is not made, because all of them must find the same one.
    """
    root = root or Path("runs")
    number = 1
    while True:
        path = root / f"{stem}-{number}"
        if "LOCAL_RANK" in os.environ:
            if not path.exists():
                return path
        else:
            root.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                _MADE.add(os.path.abspath(path))
                atexit.register(_forget, os.path.abspath(path))
                return path
        number += 1
