"""The directory of a comparison: what lies where, and whose it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import repertoire
from repertoire.errors import RunError, ascii_path, option
from repertoire.files import write_json
from repertoire.recipe import TrainConfig

__all__ = ["Folder", "fingerprint", "finished"]

FORMAT = 1
LONGEST_NAME = 60

INDIFFERENT = frozenset({"cache"})
"""Fields that change how long a run takes, and nothing that it computes."""


class Folder:
    """Paths of a comparison's files.

    ```text
    comparison.json          what is compared: data, shared options, the fields that have varied
    summary.json             what came out
    report.html
    runs/NAME/seed-0/        a run directory for each configuration and seed
    search/NAME/study.json   the trials of a search, and a run directory for each
    ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest_file = self.path / "comparison.json"
        self.summary_file = self.path / "summary.json"
        self.report_file = self.path / "report.html"
        self.marks = self.path / ".working"
        self.stop_file = self.path / ".stop"

    def __str__(self) -> str:
        return ascii_path(str(self.path))

    def run(self, label: str, config: TrainConfig) -> Path:
        """Directory of the run of a configuration, beside that of another seed."""
        return _place(self.path / "runs", label, config) / f"seed-{config.seed}"

    def study(self, label: str, config: TrainConfig) -> Path:
        """Directory of the trials of a configuration."""
        return _place(self.path / "search", label, config)

    def open(self, shared: TrainConfig, varied: tuple[str, ...], threads: int, data_digest: str) -> None:
        """Makes the directory that of a comparison, or finds that it is that of this one.

        Raises:
            RunError: it is that of another comparison, of other images, or of something else.
        """
        before = self._manifest()
        if before is None:
            if self.path.exists() and any(not p.name.startswith(".") for p in self.path.iterdir()):
                raise RunError(f"{self} is not empty and holds no comparison; choose another {option('out')}")
        else:
            difference = self.differs(before, shared, varied, threads)
            if difference:
                raise RunError(f"{self} holds another comparison: {difference}; choose another {option('out')}")
            if before["data_digest"] not in (None, data_digest) and before["shared"]["seed"] == shared.seed:
                raise RunError(
                    f"the images of {shared.data} changed since {self} was begun; choose another {option('out')}"
                )
            varied = (*before["varied"], *(field for field in varied if field not in before["varied"]))
        content = {
            "format": FORMAT,
            "repertoire": repertoire.__version__,
            "threads": threads,
            "varied": list(varied),
            "shared": shared.model_dump(mode="json"),
            "data_digest": data_digest,
        }
        if before != content:
            write_json(self.manifest_file, content)

    def differs(self, before: dict[str, Any], shared: TrainConfig, varied: tuple[str, ...], threads: int) -> str:
        """Differences of a comparison from that of a manifest; none where one adds to the other."""
        if before["threads"] != threads:
            return f"threads was {before['threads']}, is {threads}"
        now, then = shared.model_dump(mode="json"), before["shared"]
        # What a comparison of an older version does not say was as it is by default.
        then = {name: field.get_default() for name, field in type(shared).model_fields.items()} | then
        free = {*before["varied"], *varied, "seed", *INDIFFERENT}
        return "; ".join(
            f"{field} was {then[field]!r}, is {value!r}"
            for field, value in now.items()
            if field not in free and then[field] != value
        )

    def is_of(self, shared: TrainConfig, varied: tuple[str, ...], threads: int) -> bool:
        """True if a comparison may go on here."""
        try:
            before = self._manifest()
        except RunError:
            return False
        return before is not None and not self.differs(before, shared, varied, threads)

    def _manifest(self) -> dict[str, Any] | None:
        if not self.manifest_file.exists():
            return None
        try:
            found = json.loads(self.manifest_file.read_text(encoding="utf-8"))
            newer, incomplete = found["format"] > FORMAT, not {"threads", "varied", "shared", "data_digest"} <= {*found}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self}/comparison.json is damaged ({error}); choose another {option('out')}") from None
        if newer:
            raise RunError(f"{self} was written by a newer version of Repertoire ({found.get('repertoire')}); upgrade")
        if incomplete:
            raise RunError(
                f"{self}/comparison.json is damaged: it is not about a comparison; choose another {option('out')}"
            )
        return found

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Clears what tells this process and its workers of each other, before and after."""
        self._sweep()
        self.marks.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            self._sweep()

    def _sweep(self) -> None:
        self.stop_file.unlink(missing_ok=True)
        if self.marks.exists():
            for mark in self.marks.iterdir():
                mark.unlink(missing_ok=True)
            self.marks.rmdir()


def finished(path: Path) -> bool:
    """True if a run is over, and its metrics are there."""
    try:
        return (
            json.loads((path / "run.json").read_text(encoding="utf-8"))["status"] == "finished"
            and (path / "metrics.json").exists()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def fingerprint(config: TrainConfig) -> str:
    """Digest of everything that a configuration says but the seed, and what changes no run."""
    left_out = {"seed", *INDIFFERENT}
    # A field that is newer than some comparisons counts where it says something.
    left_out |= {"strategy"} if config.strategy == "ddp" else set()
    content = {key: value for key, value in config.model_dump(mode="json").items() if key not in left_out}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()


def _place(parent: Path, label: str, config: TrainConfig) -> Path:
    """The directory of a configuration: named after it, and found again whatever it is called by then."""
    found = fingerprint(config)
    readable = "".join(c if c.isalnum() or c in "=._" else "-" for c in label.replace(" + ", "_"))
    return next(parent.glob(f"*-{found}"), parent / f"{readable[:LONGEST_NAME].strip('-._')}-{found}")
