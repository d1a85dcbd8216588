"""What local learning costs in accuracy on real images, and how much of it better auxiliary networks give back.

    python benchmarks/local_accuracy.py DATA [--images 10000] [--epochs 12] [--seeds 3] [--keep FILE] [--runs FOLDER]

DATA is a folder of train/CLASS/*.jpg and test/CLASS/*.jpg, of which the first images of each class are taken, or a
data source with an option `count`, such as fashion-mnist, of which each seed draws as many. A network is trained by
each rule with each seed, in as many processes as there are cores (`--processes`), one thread each; images, order,
augmentation and first weights of the network are the same for all rules, and what is tested are the last weights.
Speed is measured before, one rule after the other in one process and one thread, as processor time of a step, and
memory as what a step holds at its peak beside weights and the state of the optimisers. With `--keep`, what is finished
is not measured again; with `--runs`, every run has a directory there as well, in which a run that was interrupted goes
on where it was. `--seeds 0` trains nothing and gives speed and memory alone. Prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from repertoire import registry, train
from repertoire.data import Batch, Splits, load
from repertoire.plan import Ledger
from repertoire.recipe import TrainConfig, build, load_splits, make_config, make_optimizer, resolve

RULES = (
    "backprop",
    "local:blocks=4,auxiliary=(conv:depth=1)",
    "local:blocks=4,auxiliary=patches",
)


def subset(folder: Path, images: int, root: Path) -> None:
    """The first images of each class as a tree of links."""
    classes = sorted(path for path in (folder / "train").iterdir() if path.is_dir())
    for source in classes:
        files = sorted(source.iterdir())
        for part, chosen in (("train", files[: images // len(classes)]), ("val", files[-10:])):
            target = root / part / source.name
            target.mkdir(parents=True)
            for file in chosen:
                (target / file.name).symlink_to(file.resolve())
    (root / "test").symlink_to((folder / "test").resolve())


@dataclass(frozen=True)
class Setting:
    """What all rules have alike."""

    about: str
    """The folder's name or the source."""
    root: str
    """What the runs load: a tree of links, or the source with its number of images."""
    backbone: str
    images: int
    epochs: int
    size: int | None = None

    def configuration(self, rule: str, seed: int) -> TrainConfig:
        return make_config(
            data=self.root,
            device="cpu",
            backbone=self.backbone,
            rule=rule,
            epochs=self.epochs,
            seed=seed,
            augment="crop-flip",
            size=self.size,
        )


@functools.lru_cache(maxsize=1)
def images_of(setting: Setting, seed: int) -> Splits:
    """What all rules are trained on with a seed; runs of one seed follow each other in a process."""
    return load_splits(setting.configuration("backprop", seed))


def run(setting: Setting, rule: str, seed: int, directory: Path | None) -> float:
    """Test accuracy of the last weights."""
    torch.set_num_threads(1)
    config, splits = setting.configuration(rule, seed), images_of(setting, seed)
    if directory is None:
        result = train.in_memory(config, splits, validate=False).evaluate("test")
        return float((result.logits.argmax(1) == result.labels).mean())
    finished = train.complete(config, directory, splits=splits)
    state = train.last_state(directory)
    prefix = "model."
    finished.model.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
    test = finished.splits.test
    right = 0
    for start in range(0, len(test), 1000):
        rows = slice(start, start + 1000)
        right += int((finished.predict(test.pixels(rows)).argmax(1) == test.labels[rows]).sum())
    return right / len(test)


def name(setting: Setting, rule: str, seed: int) -> str:
    """The directory of a run."""
    words = f"{setting.about} {setting.backbone} {setting.images} {setting.epochs} {setting.size} {rule} {seed}"
    return re.sub(r"[^a-z0-9]+", "-", words)


def measured(
    setting: Setting, rules: list[str], seeds: range, keep: Path | None, runs: Path | None, processes: int
) -> dict[tuple[str, int], float]:
    """Test accuracy of each rule with each seed. What is in the file already is not measured again."""
    lines = keep.read_text().splitlines() if keep is not None and keep.exists() else []
    about = {"data": setting.about, "backbone": setting.backbone, "images": setting.images}
    about |= {"epochs": setting.epochs, "size": setting.size}
    rows = [row for row in map(json.loads, lines) if row.items() >= about.items()]
    found = {(row["rule"], row["seed"]): row["accuracy"] for row in rows}
    wanted = [(rule, seed) for seed in seeds for rule in rules]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        left = [one for one in wanted if one not in found]
        place = {one: None if runs is None else runs / name(setting, *one) for one in left}
        futures = {pool.submit(run, setting, *one, place[one]): one for one in left}
        for future in as_completed(futures):
            rule, seed = futures[future]
            found[rule, seed] = future.result()
            row = json.dumps({"rule": rule, "seed": seed, **about, "accuracy": found[rule, seed]})
            print(row, file=sys.stderr, flush=True)
            if keep is not None:
                with keep.open("a") as file:
                    file.write(f"{row}\n")
    return {one: found[one] for one in wanted}


def costs(setting: Setting, splits: Splits, rules: list[str], rounds: int = 9) -> dict[str, tuple[float, int]]:
    """Seconds of processor time of a step of each rule, the median over interleaved rounds, and bytes at its peak."""
    torch.set_num_threads(1)
    height, width, channels = splits.train.pixels(slice(1)).shape[1:]
    images = torch.rand(128, channels, height, width).contiguous(memory_format=torch.channels_last)
    batch = Batch((images,), torch.arange(128) % len(splits.classes), torch.arange(128))
    steps = {}
    for name in rules:
        config = resolve(setting.configuration(name, 0), splits)
        method = build(config, splits).method.to(memory_format=torch.channels_last).train()
        rule = registry.build("rules", name)
        rule.setup(method, lambda module, config=config: make_optimizer(config, module), example=images[:2])
        steps[name] = (rule, method)
    seconds: dict[str, list[float]] = {name: [] for name in rules}
    for _ in range(rounds):
        for name, (rule, method) in steps.items():
            start = time.process_time()
            rule.step(method, batch)
            seconds[name].append(time.process_time() - start)
    peaks = {}
    for name, (rule, method) in steps.items():
        with Ledger() as ledger:
            rule.step(method, batch)
        peaks[name] = ledger.peak
    return {name: (statistics.median(values), peaks[name]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="file of finished runs, from which an interrupted benchmark goes on")
    parser.add_argument("--runs", type=Path, help="folder of run directories, in which interrupted runs go on")
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--size", type=int, help="side of the images in pixels, if not their own")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(given.data)
        root, about = f"{given.data}:count={given.images}", given.data
        if source.is_dir():
            about = source.resolve().name
            # Runs that are to go on find their images where they were.
            tree = Path(folder) if given.runs is None else given.runs / f"images-{about}-{given.images}"
            if not (tree / "test").exists():
                subset(source, given.images, tree)
            root = str(tree)
        splits = load(root, size=given.size)
        setting = Setting(about, root, given.backbone, given.images, given.epochs, given.size)
        cost = costs(setting, splits, given.rules)
        found = measured(setting, given.rules, seeds, given.keep, given.runs, given.processes)
    values = {rule: [value for job, value in found.items() if job[0] == rule] for rule in given.rules}
    mean = {rule: statistics.mean(each) for rule, each in values.items() if each}
    size = "" if given.size is None else f" of {given.size} pixels"
    first, weakest = given.rules[0], given.rules[1]
    print(
        f"{given.backbone}, {given.images:,} images of {setting.about}{size}, {given.epochs} epochs, batch 128, SGD, "
        f"{given.seeds} seed(s); speed is that of a step on one thread, memory what it holds at its peak beside weights"
        " and the state of the optimisers, both relative to the first row."
    )
    print()
    print("| rule | test accuracy, mean | each seed | gap closed | speed | memory |")
    print("|---|--:|---|--:|--:|--:|")
    for rule in given.rules:
        each = ", ".join(f"{value:.4f}" for value in values[rule])
        gap = mean[first] - mean[weakest] if mean else 0
        closed = "" if rule in (first, weakest) or gap <= 0 else f"{(mean[rule] - mean[weakest]) / gap:.2f}"
        speed, memory = cost[first][0] / cost[rule][0], cost[rule][1] / cost[first][1]
        average = f"{mean[rule]:.4f}" if mean else ""
        print(f"| `{rule}` | {average} | {each} | {closed} | {speed:.2f} | {memory:.2f} |")


if __name__ == "__main__":
    main()
