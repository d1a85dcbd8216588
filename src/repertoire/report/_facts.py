"""What a run was, in words: what it trained, what that took, how to repeat it, where to go from here."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from repertoire.report._advice import best_row
from repertoire.report._remedies import Remedies
from repertoire.report._text import DASH, count, data_size, duration, label, number, percent, plural

if TYPE_CHECKING:
    from repertoire.recipe import TrainConfig
    from repertoire.train import Run

__all__ = ["circumstances", "command", "configuration", "next_steps", "score_tiles", "state", "summary"]


def summary(run: Run) -> str:
    """Sentence that says what was trained on what."""
    config, info = run.config, run.info
    counts = {name: sum(values) for name, values in info.get("counts", {}).items()}
    noun = "image" if run.facts.modality == "images" else "row"
    of = _targets(run)
    images = f"{noun}s{of}"
    if {"train", "val", "test"} <= counts.keys() and run.task.kind in ("classes", "number"):
        images = (
            f"{plural(counts['train'], noun)}{of}, with {count(counts['val'])} more for validation and "
            f"{count(counts['test'])} for the test"
        )
    size = f"{run.size} × {run.size} pixels, {'RGB' if info['channels'] == 3 else 'grey'}"
    if run.facts.modality != "images":
        size = plural(run.facts.channels, "feature")
    parameters = f" ({count(info['parameters'])} parameters)" if "parameters" in info else ""
    trained = f"method {config.method}, loss {config.loss}, rule {config.rule}"
    if merged := info.get("merged"):
        runs = ", ".join(merged["runs"])
        return (
            f"A {config.backbone}{parameters} with a {config.head} head, merged by {merged['operator']} from runs on "
            f"{images} ({size}): {runs}."
        )
    if stitched := info.get("stitched"):
        runs = ", ".join(stitched["runs"])
        return f"Networks of several sizes{parameters}, stitched together and trained on {images} ({size}): {runs}."
    if compressed := info.get("compressed"):
        before, after = (data_size(each) for each in compressed["bytes"])
        return (
            f"A {config.backbone}{parameters} with a {config.head} head, trained on {images} ({size}) and compressed "
            f"by {compressed['by']}: its weights take {after}, and took {before} in {compressed['run']}."
        )
    return (
        f"A {config.backbone}{parameters} with a {config.head} head, trained on {images} ({size}): {trained}, "
        f"{plural(config.epochs, 'epoch')}, seed {config.seed}."
    )


def _targets(run: Run) -> str:
    """Words for what is learned of each sample, behind a noun."""
    kind, names = run.task.kind, len(run.classes)
    if kind == "none":
        return " without labels"
    if kind == "number":
        return f" with {plural(names, 'number')} each"
    if kind == "labels":
        return f" with any of {plural(names, 'label')}"
    return f" of {plural(names, 'class', 'classes')}"


def state(run: Run) -> dict[str, str] | None:
    """State of a run that is not finished: why, and how to go on; None if it is."""
    status = run.info["status"]
    if status == "finished":
        return None
    done = len(run.history)
    what = {
        "running": "It is still running, or was killed",
        "interrupted": "It was interrupted",
        "failed": "It failed",
    }.get(status, f"Its status is “{label(status)}”")
    after = f" after epoch {done} of {run.config.epochs}." if done else " before the first epoch was over."
    reason = run.info.get("reason")
    return {
        "what": what + after + " There are no test results yet.",
        "reason": label(reason) if reason and status == "failed" else "",
        "command": _line(["repertoire", "train", "--resume", str(run.path)]),
    }


def score_tiles(run: Run, metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures beside the accuracy: name, value, what it means."""
    row = best_row(run.history) or metrics
    made = {"merged", "compressed", "stitched"} & run.info.keys()
    counts = run.info.get("counts", {}).get("test") or [0]
    return [
        ("Balanced accuracy", percent(metrics["balanced_accuracy"]), "mean over the classes"),
        ("Macro F1", percent(metrics["macro_f1"]), "mean over the classes"),
        ("Calibration error", number(metrics["ece"]), "ECE; 0 is best"),
        ("NLL", number(metrics["nll"]), "negative log-likelihood, nats"),
        (
            "Validation",
            percent(row.get("val_accuracy")),
            "accuracy" if made else f"accuracy, epoch {row.get('epoch', DASH)}",
        ),
        ("Baseline", percent(max(counts) / max(1, sum(counts))), "always the commonest class"),
    ]


def circumstances(run: Run) -> list[tuple[str, str]]:
    """Time, speed, memory, machine and versions; what is unknown is left out."""
    info = run.info
    rows: list[tuple[str, object]] = []
    made = {"merged", "compressed", "stitched"} & info.keys()
    if "seconds" in info and not made:
        rows.append(("Training time", duration(info["seconds"])))
    if "steps" in info and not made:
        rows.append(("Epochs", f"{info['epochs']} of {run.config.epochs}, {plural(info['steps'], 'step')}"))
    speeds = [row["images_per_second"] for row in run.history if row.get("images_per_second")]
    if speeds:
        rows.append(("Throughput", f"{statistics.median(speeds):,.0f} images/s (median of the epochs)"))
    device = str(info.get("device", "cpu"))
    if info.get("peak_memory"):
        whose = "on the GPU" if device.startswith("cuda") else "of the process"
        rows.append(("Peak memory", f"{data_size(info['peak_memory'])}, {whose}"))
    rows.append(("Device", f"{device}, {plural(info.get('ranks', 1), 'process', 'processes')}"))
    named = {
        "Machine": "machine",
        "Started": "created",
        "Repertoire": "repertoire",
        "Commit": "commit",
        "Python": "python",
        "PyTorch": "torch",
        "NumPy": "numpy",
        "Data digest": "data_digest",
    }
    rows += [(name, info.get(key)) for name, key in named.items()]
    return [(name, label(value)) for name, value in rows if value is not None]


def configuration(config: TrainConfig) -> list[tuple[str, str, str]]:
    """Every field of the resolved configuration: name, value, meaning."""
    fields = type(config).model_fields
    return [
        (name, DASH if value in (None, ()) else label(_written(value)), fields[name].description or "")
        for name, value in config
    ]


def command(config: TrainConfig) -> str:
    """The command that trains the same again: what differs from the defaults, everything automatic written out."""
    words = ["repertoire", "train", config.data]
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name == "data" or value == field.get_default():
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple):
            words += [word for item in value for word in (flag, str(item))]
        else:
            words += [flag, str(value)]
    return _line(words)


def next_steps(run: Run, remedies: Remedies) -> list[tuple[str, str]]:
    """Next steps, with the command of each; nothing that the page warns of."""
    path = str(run.path)
    if run.info["status"] != "finished":
        return [("Go on with this run", _line(["repertoire", "train", "--resume", path]))]
    config, best, kind = run.config, best_row(run.history), run.task.kind
    export = ("Use it elsewhere", _line(["repertoire", "export", path, "--format", "onnx"]))
    if kind == "none":
        start = ["repertoire", "train", "LABELLED", "--start", path]
        return [
            ("Train a classifier from here", _line(start)),
            ("Write the features", _line(["repertoire", "embed", path]) + " IMAGE..."),
            export,
        ]
    steps = [
        (
            "Predict the numbers of new images" if kind == "number" else "Classify new images",
            _line(["repertoire", "predict", path]) + " IMAGE...",
        ),
        ("See where the model looks", _line(["repertoire", "explain", path]) + " IMAGE..."),
        export,
    ]
    if kind == "maps":
        steps = [("Map new images", _line(["repertoire", "predict", path, "--out", "maps"]) + " IMAGE...")]
    if run.facts.modality == "features":
        steps = [("Predict new rows", _line(["repertoire", "predict", path]) + " FEATURES.npz")]
    if best is not None and best.get("epoch") == config.epochs and remedies.allows("longer"):
        longer = config.model_copy(update={"epochs": 2 * config.epochs})
        steps.insert(0, ("The last epoch was the best one: train twice as long", command(longer)))
    if kind == "classes" and config.loss == "cross-entropy" and remedies.allows("supcon"):
        # The augmentation of the supervised method does not suit two views: leave it to be chosen anew.
        other = config.model_copy(update={"loss": "supcon", "method": "auto", "augment": "auto"})
        steps.append(("Compare with a contrastive loss, all else being equal", command(other)))
    return steps


def _line(words: Sequence[str]) -> str:
    """Words as a shell reads them, on one line."""
    return " ".join(label(shlex.quote(word)) for word in words)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
