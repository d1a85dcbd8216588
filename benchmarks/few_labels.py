"""What unlabelled samples add to a few labels, and to labels in a long tail, on frozen features.

    python benchmarks/few_labels.py --out runs.jsonl photographs=photos.npz clothes=clothes.npz
    python benchmarks/few_labels.py --out runs.jsonl --table
    python benchmarks/few_labels.py --steps [--photographs]

Each NAME=FILE is a file of features as `repertoire embed` writes it. A linear head learns from 4, 25 or 100 labels of
each class; everything else of the training part has no label. All arms take as many steps, with as many labelled
samples in each, AdamW and a moving average. Every arm has four trials on a pilot seed: two learning rates, and two
values of what its paper tunes; those that are best on the validation rows are measured on five other seeds, which draw
labels, order and views. In the long tail, classes have from 100 labels down to 1, and the others of them in proportion
without; which class is rare is drawn, too, and logit adjustment is tuned with four trials like the others.

A run that is in the file already is not repeated. `--table` prints Markdown: error with its 95 % interval over the
seeds, what is added to the error of supervised learning, and the seconds of a processor that a run takes. `--steps`
measures a step of a method beside the passes through the network that it cannot do without, and `--photographs` one of
the built-in network on photographs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from repertoire import backbones, heads, losses
from repertoire.claims.beds.few_labels import balanced_accuracy, few, tail
from repertoire.data import Batch, Splits, load
from repertoire.methods import VAT, Classifier, FixMatch, Normalize
from repertoire.recipe import Facts, build, make_config
from repertoire.statistics import interval
from repertoire.train import in_memory, outputs

RATES = (0.001, 0.01)
STEPS = 200
PILOT = 100
SEEDS = range(5)
LABELS = (4, 25, 100)

ARMS = {
    "supervised": [{"method": "supervised", "weight_decay": decay} for decay in (0.05, 0.5)],
    "FixMatch": [{"method": f"fixmatch:ratio=3,threshold={t}"} for t in (0.95, 0.8)],
    "FlexMatch": [{"method": f"fixmatch:ratio=3,threshold=class-adaptive,level={t}"} for t in (0.95, 0.8)],
    "VAT": [{"method": f"vat:ratio=3,entropy=true,epsilon={e}"} for e in (2, 8)],
    "label-encoding risk": [{"method": f"unlabelled-loss:ratio=3,weight={w}"} for w in (0.1, 1)],
}
TAIL = {
    "supervised": ARMS["supervised"],
    "logit adjustment": [{"method": "supervised", "loss": f"logit-adjusted:tau={t}"} for t in (1, 1.5)],
    "FixMatch": ARMS["FixMatch"],
    "FlexMatch": ARMS["FlexMatch"],
    "FixMatch, logit adjustment": [{**arm, "loss": "logit-adjusted"} for arm in ARMS["FixMatch"]],
    "VAT": ARMS["VAT"],
    "label-encoding risk": ARMS["label-encoding risk"],
}
"""Two values of what is tuned, for each arm."""


def drawn(splits: Splits, setting: str, seed: int) -> Splits:
    """The splits with the labels of a setting: so many of each class, or those of a long tail."""
    if setting != "tail":
        return few(splits, seed, int(setting))
    classes = len(splits.classes)
    rank = np.random.default_rng(seed).permutation(classes)
    most = int(splits.train.counts().min())
    labels, pool = np.array(tail(100, 100, classes)), np.array(tail(most - 100, 100, classes))
    return few(splits, seed, labels[rank].tolist(), pool[rank].tolist())


def measured(splits: Splits, facts: Facts, fields: dict[str, Any], seed: int) -> dict[str, float]:
    """Errors of the last weights on validation and test rows, means over classes, and CPU seconds."""
    batch = 20 if len(splits.train) < 100 else 25
    per_epoch = len(splits.train) // batch
    options = {"optimizer": "adamw", "weight_decay": 0.05, "ema": 0.95, "batch_size": batch, "device": "cpu"}
    config = make_config(data="features", epochs=-(-STEPS // per_epoch), seed=seed, **{**options, **fields})
    start = time.process_time()
    method = in_memory(build(config, splits, facts=facts), validate=False).method.eval()
    cost = time.process_time() - start
    found = {part: 1 - balanced_accuracy(outputs(method.model, getattr(splits, part))) for part in ("val", "test")}
    return {**found, "cpu_seconds": cost}


def wanted(named: Sequence[str]) -> Iterator[tuple[str, str, dict[str, list[dict[str, Any]]]]]:
    """Data sets and settings, with the arms of each."""
    for data in named:
        for count in LABELS:
            yield data, str(count), ARMS
        yield data, "tail", TAIL


class Runs:
    """The runs of a file, each of which is done once."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.done = {json.dumps(row["key"]): row for row in stored(out)}

    def __call__(
        self, whole: Splits, facts: Facts, data: str, setting: str, arm: str, fields: dict[str, Any], seed: int
    ) -> dict[str, Any]:
        key = [data, setting, arm, fields, seed]
        row = self.done.get(json.dumps(key))
        if row is None:
            row = {"key": key, **measured(drawn(whole, setting, seed), facts, fields, seed)}
            with open(self.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row


def run(files: dict[str, str], out: Path) -> None:
    runs = Runs(out)
    for data, setting, arms in wanted(list(files)):
        whole = replace(load(files[data], unlabelled=True), extra={})
        known = (whole, Facts.of(whole), data, setting)
        for arm, values in arms.items():
            trials = [{**fields, "lr": rate} for fields in values for rate in RATES]
            found = [runs(*known, arm, fields, PILOT)["val"] for fields in trials]
            for seed in SEEDS:
                runs(*known, arm, trials[int(np.argmin(found))], seed)


def stored(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Error, its difference from that of the first arm in pairs of seeds, and time of each arm, by setting."""
    found: dict[tuple[str, str], dict[str, dict[int, dict[str, Any]]]] = {}
    for row in rows:
        data, setting, arm, _, seed = row["key"]
        if seed != PILOT:
            found.setdefault((data, setting), {}).setdefault(arm, {})[seed] = row
    lines = [
        f"Errors on the test rows, means over classes, of {len(SEEDS)} seeds with 95 % intervals, and below each the "
        f"points that it has more than supervised learning, in pairs of seeds. {STEPS} steps."
    ]
    for data in dict.fromkeys(name for name, _ in found):
        for group, title in (([str(n) for n in LABELS], "labels of each class"), (["tail"], "")):
            settings = [s for s in group if (data, s) in found]
            if not settings:
                continue
            headings = [f"{s} {title}" if title else "a long tail, 100 labels to 1" for s in settings]
            lines += ["", f"| {data} | {' | '.join(headings)} | seconds |", f"| --- |{' --- |' * len(settings)} --: |"]
            for arm in found[data, settings[0]]:
                cells, seconds = [], []
                for s in settings:
                    own = found[data, s].get(arm, {})
                    cells.append(cell(own, found[data, s]["supervised"]))
                    seconds += [row["cpu_seconds"] for row in own.values()]
                lines.append(f"| {arm} | {' | '.join(cells)} | {np.mean(seconds):.1f} |")
    return "\n".join(lines)


def cell(own: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> str:
    """An error with its interval, and its difference from another one."""
    values = [row["test"] for row in own.values()]
    low, high = interval(values, bounds=(0.0, 1.0))
    text = f"{np.mean(values):.1%} ({low:.1%} to {high:.1%})"
    if own == other:
        return text
    differences = [100 * (own[seed]["test"] - other[seed]["test"]) for seed in own]
    low, high = interval(differences, bounds=(-100.0, 100.0))
    return f"{text}<br>{np.mean(differences):+.1f} ({low:+.1f} to {high:+.1f})"


def network(width: int = 16) -> Classifier:
    torch.manual_seed(0)
    net = backbones.resnet20(width=width)
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))


def batch_of(labelled: int, ratio: int, side: int = 32) -> Batch:
    """A batch with its stream, already augmented: what is measured is the step alone."""
    generator = torch.Generator().manual_seed(1)

    def images(count: int) -> torch.Tensor:
        return torch.rand(count, 3, side, side, generator=generator).to(memory_format=torch.channels_last)

    count = labelled * ratio
    unlabelled = Batch(
        (images(count), images(count)), torch.full((count,), -1), torch.arange(count), names=("weak", "strong")
    )
    batch = Batch((images(labelled),), torch.arange(labelled) % 10, torch.arange(labelled))
    batch.streams = {"unlabelled": unlabelled}
    return batch


def fixmatch_passes(model: Classifier, batch: Batch) -> torch.Tensor:
    """One pass of all samples, with a gradient through those that have one."""
    stream = batch.streams["unlabelled"]
    features = model.embed(torch.cat([batch.images, stream.view("strong"), stream.view("weak")]))
    count, hard = len(batch), len(stream)
    strong = model.head(features[count : count + hard])
    weak = model.head(features[count + hard :].detach())
    return F.cross_entropy(model.head(features[:count]), batch.targets) + F.cross_entropy(strong, weak.argmax(1))


def vat_passes(model: Classifier, batch: Batch) -> torch.Tensor:
    """Three passes of all samples, of which one has a gradient to the inputs."""
    x = torch.cat([batch.images, batch.streams["unlabelled"].images])
    logits = model(x)
    p = logits.detach().softmax(1)
    d = (1e-6 * torch.randn_like(x)).requires_grad_()
    (slope,) = torch.autograd.grad(F.kl_div(model(x + d).log_softmax(1), p, reduction="batchmean"), d)
    changed = model(x + 8 * F.normalize(slope.flatten(1)).view_as(x))
    return F.cross_entropy(logits[: len(batch)], batch.targets) + F.kl_div(
        changed.log_softmax(1), p, reduction="batchmean"
    )


def cost(step: Callable[[], torch.Tensor], module: torch.nn.Module) -> Callable[[], float]:
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def once() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        step().backward()
        optimizer.step()
        if hasattr(module, "after_update"):
            module.after_update()
        return time.process_time() - start

    return once


def steps(rounds: int) -> str:
    """A step of each method beside its passes; they take turns, and the medians count."""
    batch = batch_of(8, 7)
    rows: list[tuple[str, Callable[[Classifier, Batch], torch.Tensor], torch.nn.Module]] = [
        ("FixMatch", fixmatch_passes, FixMatch(network(), losses.CrossEntropy())),
        (
            "FlexMatch",
            fixmatch_passes,
            FixMatch(network(), losses.CrossEntropy(), threshold="class-adaptive", unlabelled=5000),
        ),
        ("VAT", vat_passes, VAT(network(), losses.CrossEntropy())),
    ]
    lines = ["| step of | seconds | its passes alone | added |", "| --- | --: | --: | --: |"]
    for name, passes, method in rows:
        method.train()
        bare = network().train()
        ours = cost(lambda method=method: method.step(batch).loss, method)
        theirs = cost(lambda passes=passes, bare=bare: passes(bare, batch), bare)
        pairs = np.array([(ours(), theirs()) for _ in range(rounds + 1)][1:])
        mine, other = np.median(pairs, axis=0)
        added = np.median(pairs[:, 0] / pairs[:, 1]) - 1
        lines.append(f"| {name} | {mine:.3f} | {other:.3f} | {added:+.1%} |")
    return "\n".join(lines)


def photographs() -> str:
    """What a step of FixMatch takes on photographs, with the network that `auto` takes for them, and an epoch and a run
    of 40 labels with it."""
    net = backbones.lite0(pretrained=False)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
    method = FixMatch(model, losses.CrossEntropy()).train()
    batch = batch_of(8, 7, 160)
    once = cost(lambda: method.step(batch).loss, method)
    once()
    seconds = min(once() for _ in range(2))
    return (
        f"Fine-tuning photographs of 160 pixels with 8 labelled and 56 unlabelled ones in two views takes "
        f"{seconds:.0f} s of a processor a step: {5 * seconds / 60:.1f} minutes for an epoch of 40 labels, and "
        f"{200 * seconds / 3600:.1f} hours for the 200 steps of a run. That was not done for five seeds."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, default=Path("few_labels.jsonl"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--photographs", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.table:
        print(table(stored(arguments.out)))
    elif arguments.steps or arguments.photographs:
        print(steps(arguments.rounds) if arguments.steps else photographs())
    else:
        run(dict(item.split("=", 1) for item in arguments.files), arguments.out)


if __name__ == "__main__":
    main()
