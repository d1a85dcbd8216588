"""The directory of a run: what lies where, and reading it with suspicion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repertoire.errors import RunError, ascii_path
from repertoire.files import write_json, write_text
from repertoire.train._config import TrainConfig, make_config, read_config, write_config

__all__ = ["RunDirectory", "next_free"]

FORMAT = 1
_NEEDED = ("format", "status", "classes", "channels", "size", "mean", "std")


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

    def __str__(self) -> str:
        return ascii_path(str(self.path))

    @property
    def occupied(self) -> bool:
        """Whether a run lies here already."""
        return self.info_file.exists() or self.checkpoints.exists()

    def clear(self) -> None:
        """Deletes what a run and the commands on it write here, and nothing else."""
        files = [self.info_file, self.config_file, self.history_file, self.metrics_file, self.predictions_file]
        files += [self.report_file, self.path / "diagnosis.html", self.path / "mlflow_run_id"]
        files += [path for name in ("onnx", "ts", "pt2") for path in self.path.glob(f"model.{name}*")]
        for file in files:
            file.unlink(missing_ok=True)
        folders = [self.checkpoints, self.path / "tensorboard", self.path / "explanations"]
        for folder in [*folders, *self.path.glob("evaluation-*")]:
            if folder.is_dir():
                shutil.rmtree(folder)

    def read_info(self) -> dict[str, Any]:
        """Contents of `run.json`.

        Raises:
            RunError: the directory is not a run, or `run.json` is cut short, incomplete or from a newer version.
        """
        if not self.path.is_dir():
            raise RunError(f"there is no run directory {self}")
        if not self.info_file.exists():
            raise RunError(f"{self} is not a run directory: it has no run.json")
        try:
            info = json.loads(self.info_file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
        return make_config(**read_config(self.config_file))

    def write_config(self, config: TrainConfig) -> None:
        write_config(config, self.config_file)

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
        with open(self.history_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def next_free(stem: str, root: Path | None = None) -> Path:
    """`runs/STEM-1`, or the first number that is free."""
    root = root or Path("runs")
    number = 1
    while (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"
