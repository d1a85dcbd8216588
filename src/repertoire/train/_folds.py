"""Cross-validation: a run for each fold of the data, what they say of it together, and as an ensemble."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import repertoire
from repertoire.data import Samples, Splits, digest, fold_splits
from repertoire.errors import ConfigError, DataError, Interrupted, RunError, ascii_path, option, resuming
from repertoire.files import atomic_path, lock_directory, write_json, write_text
from repertoire.recipe import IN_MEMORY, TrainConfig, import_plugins, layout, load_splits, make_config, pinned, stem
from repertoire.statistics import interval
from repertoire.tasks import Task
from repertoire.train._ensemble import Ensemble, mean_outputs
from repertoire.train._fit import complete
from repertoire.train._given import data_name, splits_in_memory
from repertoire.train._run import Run
from repertoire.train._track import Callback

__all__ = ["Folds", "fit_folds", "resume_folds"]

FORMAT = 1
MANIFEST = "folds.json"
SUMMARY = "summary.json"

_ERRORS = ("nll", "mae", "rmse", "error", "brier")
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_ERRORS, (0.0, math.inf)),
    "r2": (-math.inf, 1.0),
    "spearman": (-1.0, 1.0),
}
"""The least and the largest that a metric can be; all others are shares."""

_COUNTS = ("images", "samples", "best_epoch")


class Folds(Ensemble):
    """The runs of a cross-validation: what they say of the data that each was not trained on, and of new images.

    As an ensemble they answer with the mean of all. `out_of_fold` is what each sample's own fold says of it.

    Args:
        path: directory that `fit_folds` wrote.
        device: as of `Run`.
        plugins: as of `Run`.

    Raises:
        RunError: the directory holds no folds, or some that are not finished.

    Example:
        >>> import repertoire
        >>> folds = repertoire.train.Folds("runs/photos-folds")  # doctest: +SKIP
        >>> folds.summary["metrics"]["accuracy"]["interval"]  # doctest: +SKIP
        [0.88, 0.93]
        >>> folds.predict("photo.jpg").argmax(1)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu", plugins: Sequence[str] = ()) -> None:
        self.path = Path(path)
        count = int(read_manifest(self.path)["folds"])
        runs = []
        for number in range(1, count + 1):
            place = fold_path(self.path, number)
            if not (place / "metrics.json").exists():
                raise RunError(f"fold {number} of {count} in {self} is not finished; go on: {_again(self.path)}")
            runs.append(Run(place, device=device, plugins=plugins))
        super().__init__(runs)

    def __str__(self) -> str:
        return ascii_path(str(self.path))

    def __repr__(self) -> str:
        return f"Folds({str(self)!r}, {len(self.runs)} runs)"

    @property
    def summary(self) -> dict[str, Any]:
        """Results of all folds, as `summary.json` has them.

        Keys: `folds`; `metrics`, for each the `values` of the folds, their `mean` and its 95 % `interval`; `overlap`,
        the number of test samples over that of training samples, by which the interval is wider than one of independent
        values; `out_of_fold`, the metrics of all answers of `out_of_fold` together; `held_out`, those of the ensemble
        on the test part of a source that has one; and `runs`.
        """
        try:
            found: dict[str, Any] = json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self}/{SUMMARY} cannot be read ({error}); make it anew: {_again(self.path)}") from None
        return found

    @property
    def out_of_fold(self) -> dict[str, np.ndarray]:
        """Answer of the run that was not trained on it for each sample, fold after fold, as in `predictions.npz`.

        Keys: `names`, `fold` (from 1), `labels`, and `values`: probabilities `[N, K]`, or numbers `[N, k]`.
        """
        with np.load(self.path / "predictions.npz", allow_pickle=False) as file:
            return dict(file)

    def evaluate(self, images: Samples | str | os.PathLike[str] | None = None, **options: Any) -> dict[str, Any]:
        """Metrics of the ensemble on labelled images. Arguments and errors as in `Run.evaluate`.

        Without images, those of the ensemble on the test part that the source has, which is in no fold; where it has
        none, those of the answers out of fold, because every sample was trained on by most of the runs.
        """
        if images is None:
            found = self.summary
            result: dict[str, Any] = found.get("held_out") or found["out_of_fold"]
            return result
        return super().evaluate(images, **options)


def fit_folds(
    data: Any = None,
    folds: int = 5,
    *,
    out: str | os.PathLike[str] | None = None,
    quiet: bool = True,
    config: TrainConfig | None = None,
    splits: Splits | None = None,
    callbacks: Sequence[Callback] = (),
    record: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Folds:
    """Trains a run for each fold of the data, and says how good they are on what they have not seen.

    The data is divided as `repertoire.data.fold_splits` says. Each run is an ordinary one of the configuration with
    `fold="1/5"` and so on, in a directory of its own. The same call goes on where it was stopped: what is finished is
    not done again.

    The interval of the mean is Student's, widened for the training sets that overlap (Nadeau and Bengio, *Inference for
    the Generalization Error*, 2003); see `repertoire.statistics.interval`.

    Args:
        data, config, splits, callbacks, record, fields: as in `fit`; `splits` is the data before it is divided.
        folds: how many, 2 or more.
        out: directory; `runs/NAME-folds` if None.
        quiet: show nothing while training.

    Returns:
        The folds, finished.

    Raises:
        ConfigError, DataError, UnreadableImages: what cannot be used; every fold is looked at before any is trained.
        RunError: the directory holds something else, or folds of another configuration.
        Interrupted: the user pressed Ctrl-C; the same call goes on.

    Example:
        >>> import repertoire
        >>> folds = repertoire.train.fit_folds("digits", 5, epochs=10)  # doctest: +SKIP
        >>> folds.summary["metrics"]["accuracy"]["mean"]  # doctest: +SKIP
        0.97
    """
    if config is None:
        if data is None:
            raise ConfigError("say what to train on: a folder with a directory per class, or a source such as 'digits'")
        config = make_config(data=data_name(data), **fields)
        splits = splits_in_memory(data, config) if splits is None else splits
    elif data is not None or fields:
        raise ConfigError("give either config, or data and fields")
    import_plugins(config)
    if config.fold is not None:
        raise ConfigError(f"{option('fold')} is one of several, and {option('folds')} all of them; leave one out")
    if layout(config) != (1, 1):
        raise ConfigError(
            f"folds are trained by one process: start without torchrun, or a run for each: {option('fold', '1/5')}"
        )
    config = pinned(config)
    whole = load_splits(config) if splits is None else splits
    if whole.kind == "maps":
        raise DataError(
            f"{whole.source} has maps, of which runs give no mean; train each fold alone: {option('fold', '1/5')}"
        )
    divided = [fold_splits(whole, number, folds, seed=config.seed, val=config.val) for number in range(1, folds + 1)]
    root = Path("runs") / f"{stem(config.data)}-folds" if out is None else Path(out)
    _check_free(root, config, folds)
    with lock_directory(root):
        _open(root, config, folds, digest(whole))
        try:
            for number, parts in enumerate(divided, 1):
                if not quiet:
                    print(f"fold {number} of {folds}: {ascii_path(str(fold_path(root, number)))}", file=sys.stderr)
                own = config.model_copy(update={"fold": f"{number}/{folds}"})
                complete(own, fold_path(root, number), splits=parts, quiet=quiet, callbacks=callbacks, record=record)
        except Interrupted:
            # What the loop says of resuming is for a run alone.
            raise Interrupted("stopped and saved; the same command goes on") from None
        found = Folds(root, plugins=config.plugins)
        if config.data == IN_MEMORY:
            for run, parts in zip(found.runs, divided, strict=True):
                run.splits = parts
        _write_summary(found, divided)
    return found


def resume_folds(
    path: str | os.PathLike[str], *, quiet: bool = True, splits: Splits | None = None, plugins: Sequence[str] = ()
) -> Folds:
    """Goes on with folds that were interrupted, killed or crashed. Arguments and errors as in `resume`."""
    manifest = read_manifest(Path(path))
    config = make_config(**manifest["config"])
    untrusted = [name for name in config.plugins if name not in plugins]
    if untrusted:
        words = " ".join(option("plugins", name) for name in untrusted)
        raise RunError(
            f"{ascii_path(str(path))} names plugins, which are code that would run; if you trust them, say so: {words}"
        )
    if config.data == IN_MEMORY and splits is None:
        raise RunError(f"{ascii_path(str(path))} is trained on data that was in memory; give it again: splits=...")
    return fit_folds(folds=int(manifest["folds"]), config=config, splits=splits, out=path, quiet=quiet)


def fold_path(root: Path, number: int) -> Path:
    """Directory of the run of a fold."""
    return root / f"fold-{number}"


def read_manifest(root: Path) -> dict[str, Any]:
    """Reads `folds.json`.

    Raises:
        RunError: there is none, or it is damaged or from a newer version.
    """
    shown = ascii_path(str(root))
    try:
        found = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        newer = found["format"] > FORMAT
        whole = found["folds"] > 1 and isinstance(found["config"], dict)
    except FileNotFoundError:
        raise RunError(f"{shown} holds no folds: it has no {MANIFEST}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{shown}/{MANIFEST} is damaged: {error}") from None
    if newer:
        raise RunError(f"{shown} was written by a newer version of Repertoire ({found.get('repertoire')}); upgrade")
    if not whole:
        raise RunError(f"{shown}/{MANIFEST} is damaged: it is not about folds")
    result: dict[str, Any] = found
    return result


def _again(root: Path) -> str:
    return resuming(root)


def _asked(config: TrainConfig) -> dict[str, Any]:
    """What was asked for: a field that is left open is for each run to decide, as it is without folds."""
    return config.model_dump(mode="json", exclude_unset=True)


def _check_free(root: Path, config: TrainConfig, folds: int) -> None:
    """Refuses a directory that holds anything but these folds.

    Raises:
        RunError: it does.
    """
    shown, other = ascii_path(str(root)), f"choose another {option('out')}"
    if not (root / MANIFEST).exists():
        if root.exists() and (not root.is_dir() or any(not p.name.startswith(".") for p in root.iterdir())):
            raise RunError(f"{shown} is not empty and holds no folds; nothing in it was touched; {other}")
        return
    before = read_manifest(root)
    now, then = {"folds": folds, **_asked(config)}, {"folds": before["folds"], **before["config"]}
    changed = sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
    if changed:
        words = "; ".join(f"{name} was {then.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise RunError(f"{shown} holds folds of another configuration: {words}; {other}")


def _open(root: Path, config: TrainConfig, folds: int, found: str) -> None:
    if not (root / MANIFEST).exists():
        content = {
            "format": FORMAT,
            "repertoire": repertoire.__version__,
            "folds": folds,
            "config": _asked(config),
            "data_digest": found,
        }
        write_json(root / MANIFEST, content)
    elif read_manifest(root).get("data_digest") != found:
        raise RunError(
            f"the data of {ascii_path(str(root))} ({config.data}) changed since it was begun; choose another "
            f"{option('out')}"
        )


def _write_summary(folds: Folds, divided: Sequence[Splits]) -> None:
    """Writes `predictions.npz`, `predictions.csv` and `summary.json`."""
    told = [_told(run, parts.test) for run, parts in zip(folds.runs, divided, strict=True)]
    sizes = [(len(parts.train), len(parts.test)) for parts in divided]
    overlap = statistics.fmean(test / train for train, test in sizes)
    metrics = [run.metrics for run in folds.runs]
    names = [
        name
        for name, value in metrics[0].items()
        if isinstance(value, int | float) and name not in _COUNTS and not name.startswith("val_")
    ]
    table = {}
    for name in names:
        values = [found[name] for found in metrics if isinstance(found.get(name), int | float)]
        if len(values) == len(metrics):
            low, high = interval(values, overlap=overlap, bounds=_BOUNDS.get(name, (0.0, 1.0)))
            table[name] = {"mean": statistics.fmean(values), "interval": [low, high], "values": values}
    columns: dict[str, Any] = {
        "names": np.array([name for parts in divided for name in parts.test.names]),
        "fold": np.repeat(np.arange(1, len(told) + 1), [len(labels) for _, labels, _ in told]),
        "labels": np.concatenate([labels for _, labels, _ in told]),
        "values": np.concatenate([values for values, _, _ in told]),
    }
    with atomic_path(folds.path / "predictions.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **columns)
    write_text(folds.path / "predictions.csv", _as_csv(columns, folds.task))
    embeddings = np.concatenate([embeddings for _, _, embeddings in told])
    summary = {
        "folds": len(told),
        "metrics": table,
        "overlap": overlap,
        "out_of_fold": folds.task.score(mean_outputs(columns["values"], embeddings, columns["labels"], folds.task)),
        "held_out": None,
        "runs": [
            {"path": run.path.name, "train": train, "test": test}
            for run, (train, test) in zip(folds.runs, sizes, strict=True)
        ],
    }
    if "test" in divided[0].extra:
        summary["held_out"] = Ensemble.evaluate(folds, divided[0].extra["test"])
    write_json(folds.path / SUMMARY, summary)


def _told(run: Run, test: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a run said of the samples it was tested on, their labels, and its features of them."""
    with np.load(run.directory.predictions_file, allow_pickle=False) as stored:
        found = {name: stored[name] for name in stored.files}
    if len(found["labels"]) != len(test):
        raise RunError(f"{run.directory}/predictions.npz is not about the samples of its fold; begin that run again")
    if "answers" in found:
        return found["answers"], found["labels"], found["embeddings"]
    values = run.answers_of(torch.from_numpy(found["logits"]).double()).numpy()
    return values, found["labels"], found["embeddings"]


def _as_csv(columns: Mapping[str, np.ndarray], task: Task) -> str:
    """A line a sample: name, fold, what is true, what was said and how surely."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "fold", "true", "predicted", "probability"])
    for name, fold, label, values in zip(*columns.values(), strict=True):
        shown = ascii_path(str(name))
        # A spreadsheet would take it for a formula.
        shown = f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
        writer.writerow([shown, fold, *_said(label, values, task)])
    return file.getvalue()


def _said(label: Any, values: np.ndarray, task: Task) -> tuple[str, str, str]:
    names = [ascii_path(name) for name in task.names]
    if task.kind == "number":
        return " ".join(f"{v:g}" for v in label), " ".join(f"{v:.6g}" for v in values), ""
    if task.kind == "labels":
        likely = values >= 0.5
        return (
            ";".join(name for name, value in zip(names, label, strict=True) if value == 1),
            ";".join(name for name, yes in zip(names, likely, strict=True) if yes),
            ";".join(f"{value:.4f}" for value in values[likely]),
        )
    best = int(values.argmax())
    true = names[int(label)] if np.ndim(label) == 0 and label >= 0 else ""
    return true, names[best], f"{values[best]:.6f}"
