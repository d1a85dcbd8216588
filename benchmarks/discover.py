"""How well discoverers group rows of known and of new classes, told how many there are or not.

    python benchmarks/discover.py --out runs.jsonl photographs characters pieces
    python benchmarks/discover.py --out runs.jsonl --table

Half of the classes are known, by half of their rows. `photographs` are CIFAR-10 and `characters` three alphabets of
Omniglot, both as 128 principal components of features of the built-in network, and `pieces` the table of pieces of
outdoor photographs. Each arm has three seeds, or two of characters, which draw rows, classes and labels; options are
the defaults but for 20 epochs. A run that is in the file already is not repeated. `--table` prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repertoire import registry
from repertoire.claims import Budget
from repertoire.claims.beds import features, frozen, get, new_classes
from repertoire.discover import class_number

SEEDS = {"photographs": 3, "characters": 2, "pieces": 3}
ROWS = 1000

ARMS = {
    "k-means": "k-means",
    "semi-supervised k-means": "semi-supervised-k-means",
    "spectral": "spectral",
    "SimGCD's objective": "simgcd:epochs=20",
    "ProtoGCD": "protogcd:epochs=20",
    "class relation": "class-relation:epochs=20",
    "rank statistics": "rank-statistics:epochs=20",
    "contrastive pseudo-labels": "contrastive-pseudo:epochs=20",
    "Gaussian mixture": "semi-supervised-gmm",
    "encoder of tables": "tabular-ncd:epochs=20",
}
DATA = {"photographs": "cifar10-lite0", "characters": "omniglot", "pieces": "segment"}
TITLES = {
    "photographs": "CIFAR-10, 10 classes, 3 seeds",
    "characters": "Omniglot, characters of three alphabets, 2 seeds",
    "pieces": "Segment, 7 classes of a table, 3 seeds",
}


@functools.lru_cache(maxsize=1)
def rows_of(data: str) -> tuple[np.ndarray, np.ndarray]:
    budget = Budget("small")
    splits = features(DATA[data], budget, 0) if data == "characters" else get(DATA[data]).splits(budget, 0)
    parts = (splits.train, splits.val, splits.test)
    x = np.concatenate([np.asarray(part.inputs(np.arange(len(part))), np.float32) for part in parts])
    if x.shape[1] > 128:
        # What every discoverer does first, done once.
        rows = torch.from_numpy(x)
        x = frozen.components_of(rows)(rows).numpy()
    return x, np.concatenate([part.labels for part in parts])


def task_of(data: str, seed: int) -> new_classes.Drawn:
    """Rows of a data set, half of whose classes are known by half of their rows."""
    x, labels = rows_of(data)
    generator = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    truth = np.argsort(generator.permutation(classes))[labels]
    kept = generator.permutation(len(x))[:ROWS]
    x, truth = x[kept], truth[kept]
    known = classes // 2
    seen = (truth < known) & (generator.random(len(truth)) < 0.5)
    for c in range(known):
        seen[np.flatnonzero(truth == c)[:2]] = True
    return new_classes.Drawn(x, np.where(seen, truth, -1), truth, known)


def run(data: str, out: Path) -> None:
    done = {json.dumps(row["key"]) for row in stored(out)}
    for seed in range(SEEDS[data]):
        task = task_of(data, seed)
        guessed: dict[str, int] = {}
        for arm, spec in ARMS.items():
            for told in (True, False):
                key = [data, arm, told, seed]
                if json.dumps(key) in done:
                    continue
                start = time.process_time()
                classes: int | str = task.classes
                if not told:
                    # An estimate from the rows alone is that of every discoverer that asks for it.
                    by = getattr(registry.build("discoverers", spec), "by", "") if arm != "encoder of tables" else ""
                    if by and by not in guessed:
                        guessed[by] = class_number(task.x, task.y, by=by, random_state=seed).count
                    classes = guessed.get(by, "auto")
                found = new_classes.grouped(spec, task, seed, classes)
                row: dict[str, Any] = {"key": key, "seconds": time.process_time() - start}
                row |= new_classes.accuracies(found.labels_, task)
                row |= {"classes": found.n_classes_, "true": len(np.unique(task.truth))}
                with open(out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def stored(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Accuracies of each arm, told how many classes there are and not, by data set."""
    lines = [
        f"Accuracy on the rows without a label, means over seeds: all, those of known classes / of new "
        f"ones. {ROWS:,} rows at most; half of the classes are known, by half of their rows."
    ]
    for data in DATA:
        own = [row for row in rows if row["key"][0] == data]
        if not own:
            continue
        true = np.mean([row["true"] for row in own])
        lines += [
            "",
            f"| {TITLES[data]} | number known | number estimated | estimates, {true:.0f} are true | seconds |",
            "| --- | --- | --- | --- | --: |",
        ]
        for arm in ARMS:
            cells = []
            for told in (True, False):
                mine = [row for row in own if row["key"][1:3] == [arm, told]]
                every, old, new = (np.mean([row[part] for row in mine]) for part in ("all", "old", "new"))
                cells.append(f"{every:.1%} ({old:.0%} / {new:.0%})")
            guesses = ", ".join(str(row["classes"]) for row in own if row["key"][1:3] == [arm, False])
            seconds = np.mean([row["seconds"] for row in own if row["key"][1:3] == [arm, True]])
            lines.append(f"| {arm} | {' | '.join(cells)} | {guesses} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", metavar="DATA", help=", ".join(DATA))
    parser.add_argument("--out", type=Path, default=Path("discover.jsonl"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.table:
        print(table(stored(arguments.out)))
    for data in arguments.data:
        run(data, arguments.out)


if __name__ == "__main__":
    main()
