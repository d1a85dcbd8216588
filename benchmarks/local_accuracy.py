"""What local learning costs in accuracy on CIFAR-10 images, and how much of it better auxiliary networks give back.

    python benchmarks/local_accuracy.py FOLDER [--images 10000] [--epochs 12] [--seeds 3] [--keep FILE]

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg. A resnet20 is trained by each rule with each seed, in as many
processes as there are cores, one thread each; order, augmentation and first weights of the network are the same for
all rules. Speed is measured before, one rule after the other in one process and one thread, as processor time of a
step. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from repertoire import registry, train
from repertoire.data import Batch, Splits, load
from repertoire.recipe import TrainConfig, build, make_config, make_optimizer, resolve

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


def configuration(root: str, rule: str, epochs: int, seed: int) -> TrainConfig:
    return make_config(
        data=root, device="cpu", backbone="resnet20", rule=rule, epochs=epochs, seed=seed, augment="crop-flip"
    )


def run(job: tuple[str, str, int, int]) -> float:
    root, rule, epochs, seed = job
    torch.set_num_threads(1)
    loop = train.in_memory(configuration(root, rule, epochs, seed), validate=False)
    result = loop.evaluate("test")
    return float((result.logits.argmax(1) == result.labels).mean())


def measured(root: str, rules: list[str], epochs: int, seeds: int, keep: Path | None) -> dict[tuple[str, int], float]:
    """Test accuracy of each rule with each seed. What is in the file already is not measured again."""
    lines = keep.read_text().splitlines() if keep is not None and keep.exists() else []
    found = {(row["rule"], row["seed"]): row["accuracy"] for row in map(json.loads, lines) if row["epochs"] == epochs}
    wanted = [(rule, seed) for seed in range(seeds) for rule in rules]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        left = [one for one in wanted if one not in found]
        futures = {pool.submit(run, (root, rule, epochs, seed)): (rule, seed) for rule, seed in left}
        for future in as_completed(futures):
            rule, seed = futures[future]
            found[rule, seed] = future.result()
            row = json.dumps({"rule": rule, "seed": seed, "epochs": epochs, "accuracy": found[rule, seed]})
            print(row, file=sys.stderr, flush=True)
            if keep is not None:
                with keep.open("a") as file:
                    file.write(f"{row}\n")
    return {one: found[one] for one in wanted}


def speeds(splits: Splits, rules: list[str], rounds: int = 9) -> dict[str, float]:
    """Seconds of processor time of a step of each rule, the median over interleaved rounds."""
    torch.set_num_threads(1)
    images = torch.rand(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    batch = Batch((images,), torch.arange(128) % 10, torch.arange(128))
    steps = {}
    for name in rules:
        config = resolve(configuration(splits.source, name, 1, 0), splits)
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
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="file of finished runs, from which an interrupted benchmark goes on")
    parser.add_argument("--rules", nargs="+", default=list(RULES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        subset(given.folder, given.images, root)
        splits = load(str(root))
        seconds = speeds(splits, given.rules)
        found = measured(str(root), given.rules, given.epochs, given.seeds, given.keep)
    mean = {rule: statistics.mean(value for job, value in found.items() if job[0] == rule) for rule in given.rules}
    first, weakest = given.rules[0], given.rules[1]
    print(
        f"resnet20, {given.images:,} training images, {given.epochs} epochs, batch 128, SGD, {given.seeds} seed(s); "
        "speed is that of a step on one thread, relative to the first row."
    )
    print()
    print("| rule | test accuracy, mean | each seed | gap closed | speed |")
    print("|---|--:|---|--:|--:|")
    for rule in given.rules:
        each = ", ".join(f"{value:.4f}" for job, value in found.items() if job[0] == rule)
        gap = mean[first] - mean[weakest]
        closed = "" if rule in (first, weakest) or gap == 0 else f"{(mean[rule] - mean[weakest]) / gap:.2f}"
        print(f"| `{rule}` | {mean[rule]:.4f} | {each} | {closed} | {seconds[first] / seconds[rule]:.2f} |")


if __name__ == "__main__":
    main()
