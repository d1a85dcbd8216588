"""What each way of learning without labels reaches on nine thousand photographs, with equal budgets and equal trials.

    python benchmarks/self_supervised.py --out runs.jsonl [--methods simclr byol] [--trials 2] [--epochs 40]
    python benchmarks/self_supervised.py --out runs.jsonl --trials 2 --longer 4
    python benchmarks/self_supervised.py --out runs.jsonl --table

9,000 images of CIFAR-10 at 32 pixels (the data source `cifar10`), a plain convolutional network of 98,000 weights,
AdamW, two views of each image, batches of 64. Arithmetic is bfloat16 where the processor has instructions for it, and
float32 elsewhere (`--precision`). Every method has the same trials, each of which sees as
many views: a learning rate of 0.005, one of 0.002, and another value of what its paper tunes; the third of DINO has two
smaller crops beside the two views, in half the epochs. Features are read out with all labels of the training images,
and with 30 of each class, the mean of five draws: few labels are what learning without them is for.

Each line of the output is one run; a run that is there already is not repeated, and two processes with different
`--methods` may write to one file. `--table` prints Markdown: for each method the trial that is best by nearest
neighbours on the validation images, and what that trial reaches on the test images. Raw pixels and random weights stand
beside them, and who is ten points above the better of the two. `--longer 4` trains that trial of each method once more,
for four times as many epochs, and the table has a second part.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repertoire.backbones import fast_bfloat16
from repertoire.data import Samples, Splits, load
from repertoire.recipe import build, make_config, resolve
from repertoire.tasks import Outputs, rank_me
from repertoire.train import in_memory, outputs, probe_outputs

AUGMENT = "simclr:scale=(0.2,1),strength=0.5,blur=0"
RATE, LOWER = 5e-3, 2e-3
FEW = 30
"""Labels of each class in the second read-out."""
READ_OUTS = {
    "knn": "nearest neighbours",
    "linear": "linear",
    "few_knn": f"neighbours, {FEW} labels a class",
    "few_linear": f"linear, {FEW} labels a class",
}
POINTS = 0.1
"""By how much a method should be above raw pixels and random weights."""


def trials(method: str, other: str, loss: str = "") -> list[dict[str, Any]]:
    """Three trials: at the usual rate, at a lower one, and with another value of what the paper tunes.

    Args:
        method, loss: specs of the first two.
        other: spec of the third: of the loss where there is one, else of the method.
    """
    usual = {"method": method, **({"loss": loss} if loss else {}), "lr": RATE, "batch_size": 64}
    return [usual, usual | {"lr": LOWER}, usual | {"loss" if loss else "method": other}]


NORMED = "embedding:batch_norm=true,dimensions=256"
WHITENED = "embedding:batch_norm=true,dimensions=32"
DINO = "dino:momentum=0.99,prototypes=256"
TRIALS = {
    "simclr": trials("simclr:temperature=0.2,batch_norm=true", "simclr:temperature=0.5,batch_norm=true"),
    "byol": trials("byol:momentum=0.99", "byol:momentum=0.97"),
    "simsiam": trials("simsiam:dimensions=256", "simsiam:dimensions=256,bottleneck=128"),
    "moco": trials("moco:momentum=0.99,queue=1024", "moco:momentum=0.99,queue=1024,temperature=0.1"),
    # Two smaller crops of an image are as many views again: half as many epochs.
    "dino": [
        trial | ({"share": 0.5} if "crops" in trial["method"] else {}) for trial in trials(DINO, f"{DINO},crops=2")
    ],
    "vicreg": trials(NORMED, "vicreg:covariance_weight=4", "vicreg"),
    "barlow-twins": trials(NORMED, "barlow-twins:off_diagonal_weight=0.02", "barlow-twins"),
    "w-mse": trials(WHITENED, "w-mse:size=64,iterations=4", "w-mse:size=64"),
}


def judged(train: Outputs, test: Outputs, kinds: tuple[str, ...] = tuple(READ_OUTS)) -> dict[str, float]:
    """Accuracy of the read-outs on the second set, and the effective rank of its features."""
    found = {"rank": rank_me(test.embeddings)}
    for kind in kinds:
        few, _, probe = kind.rpartition("_")
        sets = [_with_few(train, draw) for draw in range(5)] if few else [train]
        answers = [probe_outputs(probe, seen, test, 10)[0] for seen in sets]  # type: ignore[arg-type]
        found[kind] = float(np.mean([answer.logits.argmax(1) == answer.labels for answer in answers]))
    return found


def _with_few(train: Outputs, draw: int) -> Outputs:
    """The same with labels left for few images of each class."""
    random, labels = np.random.default_rng(draw), np.full_like(train.labels, -1)
    for kind in np.unique(train.labels):
        kept = random.permutation(np.flatnonzero(train.labels == kind))[:FEW]
        labels[kept] = kind
    return replace(train, labels=labels)


def pixels(samples: Samples) -> Outputs:
    """Raw pixels in the place of features, centred, so that cosines tell them apart."""
    rows = samples.inputs(np.arange(len(samples))).reshape(len(samples), -1).astype(np.float32) / 255 - 0.5
    return Outputs(rows, rows, np.asarray(samples.labels))


def measured(splits: Splits, fields: dict[str, Any], epochs: int, seed: int, precision: str) -> dict[str, float]:
    """A run: its probes on validation and test images, and its CPU seconds. Without epochs, random weights."""
    epochs = round(fields.get("share", 1) * epochs)
    fields = {key: value for key, value in fields.items() if key != "share"}
    if fields.get("pixels"):
        parts = [pixels(part) for part in (splits.train, splits.val, splits.test)]
        cost = 0.0
    else:
        options = {"backbone": "convnet:width=16", "augment": AUGMENT, "epochs": max(1, epochs)}
        options |= {"optimizer": "adamw", "weight_decay": 1e-4, "precision": precision, "seed": seed, "device": "cpu"}
        config = resolve(make_config(data=splits.source, **options | fields), splits)
        built = build(config, splits, device="cpu")
        start = time.process_time()
        method = in_memory(built, validate=False).method if epochs else built.method
        cost = time.process_time() - start
        parts = [outputs(method.model, part) for part in (splits.train, splits.val, splits.test)]
    val = {f"val_{name}": value for name, value in judged(parts[0], parts[1], ("knn",)).items()}
    return val | judged(parts[0], parts[2]) | {"cpu_seconds": cost}


def best_trials(rows: list[dict[str, Any]], count: int) -> dict[str, dict[str, Any]]:
    """Of the first trials of each method the one that is best by neighbours on the validation images."""
    own = {name: [row for k in trials[:count] for row in rows if row["fields"] == k] for name, trials in TRIALS.items()}
    return {name: max(rows, key=lambda row: row["val_knn"]) for name, rows in own.items() if len(rows) == count}


def table(rows: list[dict[str, Any]], count: int) -> str:
    """What the best trial of each method reaches, and beside it what training it for longer does, as Markdown."""
    trivial = {row["name"]: row for row in rows if row["name"] not in TRIALS}
    epochs = sorted({row["epochs"] for row in rows if row["name"] in TRIALS})
    first = [row for row in rows if row["epochs"] in epochs[:1]]
    had = [sum(row["name"] == name for row in first) for name in TRIALS]
    count = min([count, *filter(None, had)])
    parts = [best_trials(first, count)]
    parts += [{row["name"]: row for row in rows if row["epochs"] == number} for number in epochs[1:]]
    counted = f"the better of {count} of 3 trials" if count > 1 else "one trial"
    said = [counted, *["the same trial of each, for longer" for _ in parts[1:]]]
    return "\n\n".join(_part(trivial, best, how) for best, how in zip(parts, said, strict=True))


def _part(trivial: dict[str, dict[str, Any]], best: dict[str, dict[str, Any]], how: str) -> str:
    """One table, and who is ten points above."""
    settings = sorted({(row["images"] * 9 // 10, row["epochs"], row["precision"]) for row in best.values()})
    words = {"32": "float32", "bf16": "bfloat16"}
    said = "; ".join(f"{images:,} images, {epochs} epochs in {words[kind]}" for images, epochs, kind in settings)
    lines = [f"{said}; 20 nearest neighbours and logistic regression on 2,000 test images; {how}.", ""]
    lines.append(f"| | {' | '.join(READ_OUTS.values())} | effective rank | CPU seconds | with |")
    lines.append("| --- |" + " --: |" * (len(READ_OUTS) + 2) + " --- |")
    for name, row in (trivial | best).items():
        with_ = " ".join(f"`{value}`" for key, value in row["fields"].items() if key in ("method", "loss"))
        with_ += f", rate {row['fields']['lr']:g}" if "method" in row["fields"] else ""
        scores = " | ".join(f"{row[kind]:.3f}" for kind in READ_OUTS)
        lines.append(f"| {name} | {scores} | {row['rank']:.0f} | {row['cpu_seconds']:.0f} | {with_} |")
    lines += ["", f"{round(100 * POINTS)} points or more above the better of raw pixels and random weights:", ""]
    for kind, title in READ_OUTS.items():
        bar = max(row[kind] for row in trivial.values())
        above = [name for name, row in best.items() if row[kind] - bar >= POINTS - 1e-9]
        lines.append(f"- {title}: {', '.join(above) or 'none'}")
    return "\n".join(lines)


def _stored(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=list(TRIALS), choices=list(TRIALS))
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000, help="a tenth of them for validation")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--precision", choices=["32", "bf16"], default="bf16" if fast_bfloat16() else "32")
    parser.add_argument("--longer", type=int, help="the best trial of each method once more, for as many times as long")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.table:
        print(table(_stored(options.out), options.trials))
        return
    splits = load(f"cifar10:count={options.images},tested=2000", size=32, seed=options.seed)
    # The first trial of every method before the second of any: what is stopped half-way is still a comparison.
    plan: list[tuple[str, dict[str, Any], int]] = [("raw pixels", {"pixels": True}, 0), ("random weights", {}, 0)]
    plan += [(name, TRIALS[name][k], options.epochs) for k in range(options.trials) for name in options.methods]
    if options.longer:
        stored = [row for row in _stored(options.out) if row["epochs"] == options.epochs]
        best = best_trials(stored, options.trials)
        if missing := [name for name in options.methods if name not in best]:
            parser.error(f"--longer trains the best of {options.trials} trials, which were not run: {missing}")
        plan = [(name, best[name]["fields"], options.longer * options.epochs) for name in options.methods]
    for name, fields, epochs in plan:
        how = {"images": options.images, "epochs": epochs, "seed": options.seed, "precision": options.precision}
        key: dict[str, Any] = {"name": name, "fields": fields, **how}
        if any(all(row[k] == v for k, v in key.items()) for row in _stored(options.out)):
            continue
        row = key | measured(splits, fields, epochs, options.seed, options.precision)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
