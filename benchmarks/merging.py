"""Networks of several tasks merged into one, networks made smaller, and the memory that merging takes.

    python tools/small_sets.py small/
    python benchmarks/merging.py small/clothes small/handwritten-digits small/emoji small/cifar10-5 [--work FOLDER]
                                 [--only tasks,pairs,sizes,cost,memory] [--operators SPEC,SPEC]
                                 [--compressors SPEC,SPEC] [--size 96]

`tasks` fine-tunes lite0 on each folder (`train/CLASS/*` and `test/CLASS/*`), merges the runs into one that knows the
classes of all, and says how it does on the test images of each, asked for the classes of that folder only, relative to
the run of that folder alone. Options of an operator that are given as several values are tried, and the one with the
best validation accuracy over all classes stays. `pairs` does the same with the first two folders, for operators that
take two networks. `sizes` compresses the run on the first folder by each compressor. `cost` counts operations and
weights of lite0 and of the longest merges. `memory` merges two files of 100 MB and samples how much more the process
holds at most.
Runs that are in the work folder already are not trained again. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from repertoire import registry, train
from repertoire.errors import RepertoireError
from repertoire.weights import count_flops

SIZE = 96
"""Pixels of a side, by default."""

MOST_TESTED = 20
"""Test images of each class."""

TRIED: dict[str, tuple[str, ...]] = {
    "uniform-soup": ("uniform-soup",),
    "linear": ("linear",),
    "wise-ft": tuple(f"wise-ft:alpha={a}" for a in (0.7, 1.0, 2.0)),
    "task-arithmetic": tuple(f"task-arithmetic:scale={s}" for s in (0.25, 0.4, 0.7)),
    "ties": tuple(f"ties:scale={s}" for s in (0.4, 0.7, 1.0)),
    "dare": tuple(f"dare:scale={s}" for s in (0.25, 0.4, 0.7)),
    "regmean": tuple(f"regmean:off_diagonal={a}" for a in (0.9,)),
    "fisher": ("fisher:samples=48",),
    "git-rebasin": ("git-rebasin",),
    "anisotropic": tuple(f"anisotropic:rate={r}" for r in (0.01, 0.03, 0.1)),
    "twin": ("twin",),
}
"""Specs of each operator, of which the best on validation images stays."""

OF_TWO: dict[str, tuple[str, ...]] = {
    "uniform-soup": ("uniform-soup",),
    "slerp": tuple(f"slerp:t={t}" for t in (0.3, 0.5, 0.7)),
    "task-arithmetic": tuple(f"task-arithmetic:scale={s}" for s in (0.5, 0.7, 1.0)),
    "wise-ft": tuple(f"wise-ft:alpha={a}" for a in (0.7, 1.0, 1.4)),
    "git-rebasin": ("git-rebasin",),
    "permute-least-squares": ("permute-least-squares:samples=128",),
    "permute-least-squares:width=1.3": ("permute-least-squares:width=1.3,samples=128",),
    "twin": ("twin",),
}
"""The same where two networks are merged: some take no more."""

SMALLER = (
    "half",
    "int8",
    "prune:0.5",
    "prune:0.8",
    "codebook:bits=4",
    "codebook:bits=3",
    "codebook:bits=2",
    "ternary",
    "lowrank",
    "lowrank:error=0.1",
    "lowrank:share=0.5",
    "lowrank:share=0.25",
    "dynamic",
    "dynamic:mass=0.95",
    "dynamic:mass=0.8",
)


def prepare(folders: list[Path], work: Path) -> list[Path]:
    """Each folder once more with RGB images and the classes named after it, and one folder of all."""
    made = []
    for folder in folders:
        own = work / "data" / folder.name
        made.append(own)
        taken: Counter[tuple[str, str]] = Counter()
        for file in sorted(folder.glob("*/*/*")):
            part, label = file.relative_to(folder).parts[:2]
            taken[part, label] += 1
            if part == "test" and taken[part, label] > MOST_TESTED:
                continue
            for root in (own, work / "data" / "all"):
                target = root / part / f"{folder.name}-{label}" / f"{folder.name}-{file.stem}.png"
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with Image.open(file) as image:
                        image.convert("RGB").save(target)
    return made


def together(runs: list[train.Run], work: Path) -> Path:
    """One folder of the images of some of the sets."""
    folders = [Path(run.config.data) for run in runs]
    made = work / "data" / "-and-".join(folder.name for folder in folders)
    for folder in folders:
        for file in folder.glob("*/*/*.png"):
            target = made / file.relative_to(folder)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, target)
    return made


def experts(folders: list[Path], work: Path, size: int) -> list[train.Run]:
    """A run of lite0 on each folder, all layers learned."""
    found = []
    for folder in folders:
        out = work / f"run-{folder.name}"
        if (out / "metrics.json").exists():
            found.append(train.load(out))
            continue
        begun = time.process_time()
        options: dict[str, Any] = {"backbone": "lite0", "tune": "all", "size": size, "device": "cpu", "seed": 0}
        found.append(train.fit(str(folder), out=out, quiet=True, **options))
        print(f"{folder.name}: {time.process_time() - begun:.0f} processor seconds", file=sys.stderr)
    return found


def tasks(runs: list[train.Run], data: Path, work: Path, chosen: list[str], tried: dict[str, tuple[str, ...]]) -> None:
    """A row for each operator."""
    names = [Path(run.config.data).name for run in runs]
    print(f"\n### {len(runs)} tasks fine-tuned from lite0 at {runs[0].size} pixels, merged into one network\n")
    print("| operator | " + " | ".join(names) + " | mean share of the runs' own | all classes at once | validation | ")
    print("| --- |" + " --: |" * (len(names) + 3))
    own = [run.evaluate()["accuracy"] for run in runs]
    counts = [sum(run.splits.test.counts().tolist()) for run in runs]
    print(f"| the run of each by itself | {' | '.join(f'{a:.3f}' for a in own)} | 1.000 | | |", flush=True)
    errors = [(a * (1 - a) / n) ** 0.5 for a, n in zip(own, counts, strict=True)]
    print("standard errors: " + ", ".join(f"{e:.3f}" for e in errors), file=sys.stderr)
    for name in chosen or tried:
        best: tuple[float, str, list[dict[str, Any]], float] | None = None
        refused = ""
        for spec in tried.get(name, (name,)):
            with tempfile.TemporaryDirectory(dir=work) as folder:
                try:
                    run = train.merge([r.path for r in runs], Path(folder) / "m", operator=spec, data=str(data))
                except RepertoireError as error:
                    refused = refused or str(error).split(":")[0]
                    continue
                made = run.info["merged"]
                print(f"{spec}: validation {made['after']:.4f}", file=sys.stderr, flush=True)
                if best is None or made["after"] > best[0]:
                    best = (made["after"], spec, made["parts"], run.metrics["accuracy"])
        if best is None:
            print(f"| {name} | " + " | ".join("" for _ in names) + f" | refused: {refused} | | |", flush=True)
            continue
        after, spec, parts, whole = best
        share = sum(part["merged"] / part["alone"] for part in parts) / len(parts)
        row = " | ".join(f"{part['merged']:.3f}" for part in parts)
        print(f"| {spec} | {row} | {share:.3f} | {whole:.3f} | {after:.3f} |", flush=True)


def sizes(run: train.Run, work: Path, chosen: list[str]) -> None:
    known = set(registry.names("compressors"))
    data = Path(run.config.data).name
    print(f"\n### Bytes of the weights against accuracy, lite0 on {data} at {run.size} pixels\n")
    print("| compressor | bytes | of those before | multiplications an image | test accuracy | seconds |")
    print("| --- | --: | --: | --: | --: | --: |")
    first = True
    for spec in chosen or SMALLER:
        if spec.partition(":")[0] not in known:
            continue
        begun = time.process_time()
        with tempfile.TemporaryDirectory(dir=work) as folder:
            made = train.compress(run.path, Path(folder) / "small", by=spec).info["compressed"]
        before, after = made["bytes"]
        whole, left = (f"{count / 1e6:.0f} M" for count in made["multiplications"])
        if first:
            print(f"| as it is | {before:,} | 1.000 | {whole} | {made['test'][0]:.3f} | |")
            first = False
        seconds = time.process_time() - begun
        row = f"{after:,} | {after / before:.3f} | {left} | {made['test'][1]:.3f} | {seconds:.0f}"
        print(f"| {spec} | {row} |", flush=True)


def cost(size: int) -> None:
    """What a step of the longest merges computes, counted and not measured."""
    network = registry.build("backbones", "lite0", in_channels=3, image_size=size, pretrained=False)
    pass_ = count_flops(network, torch.zeros(1, 3, size, size))
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    print(f"\n### What merging computes, lite0 at {size} pixels\n")
    print("| | operations |")
    print("| --- | --: |")
    print(f"| an image through lite0 | {pass_ / 1e9:.2f} G |")
    for images in (128, 16):
        learned = 300 * images * pass_ / 1e12
        print(f"| `anisotropic`, 100 steps of {images} images, forward and backward | {learned:.1f} T |")
    print(f"\nWeights: {weights / 1e6:.1f} MB. `anisotropic` holds those of the base, of each run, and of the merge.")


MEMORY = """
import gc, sys, threading, time
import torch
from repertoire import registry
from repertoire.weights import LazyState, save_state
torch.set_num_threads(1)
spec, folder = sys.argv[1:]
def resident():
    # Of its own: pages of the files that are read belong to the system, which takes them back when it needs them.
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon"))
states = [LazyState(f"{folder}/{i}.safetensors") for i in range(2)]
context = {"base": LazyState(f"{folder}/base.safetensors")}
small = [{"w": torch.zeros(4)} for _ in range(2)]
registry.build("weight-operators", spec, states=small, base=small[0])
gc.collect()
before, most, done = resident(), 0, threading.Event()
def watch():
    global most
    while not done.is_set():
        most = max(most, resident())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
save_state(registry.build("weight-operators", spec, states=states, **context), f"{folder}/out.safetensors")
done.set()
thread.join()
print((most - before) / 1e6)
"""


def memory(work: Path) -> None:
    """Two files of 100 MB in twenty tensors, the largest of which has 20 MB."""
    print(
        "\n### Memory of merging two files of 100 MB, the largest tensor 20 MB, beyond what the process held before\n"
    )
    print("| operator | MB at most | aim: 1.3 largest tensors and 100 MB |")
    print("| --- | --: | --: |")
    from repertoire.weights import save_state

    with tempfile.TemporaryDirectory(dir=work) as folder:
        generator = torch.Generator().manual_seed(0)
        lengths = [5_000_000] + [20_000_000 // 19] * 19
        for name in ("base", "0", "1"):
            state = {f"layer{i}": torch.randn(n, generator=generator) for i, n in enumerate(lengths)}
            save_state(state, Path(folder) / f"{name}.safetensors")
            del state
        for spec in ("uniform-soup", "linear", "slerp", "task-arithmetic", "ties", "dare"):
            command = [sys.executable, "-c", MEMORY, spec, folder]
            # The C library keeps large pieces that were given back, and would count them: here it returns them at once.
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            print(f"| {spec} | {float(done.stdout):.0f} | 126 |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--only", default="tasks,pairs,sizes,cost,memory")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--operators", default="")
    parser.add_argument("--compressors", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = arguments.only.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if {"tasks", "pairs", "sizes"} & set(wanted):
            runs = experts(prepare(arguments.folders, work), work, arguments.size)
            operators = registry.split(arguments.operators) if arguments.operators else []
            if "tasks" in wanted:
                tasks(runs, work / "data" / "all", work, operators, TRIED)
            if "pairs" in wanted:
                tasks(runs[:2], together(runs[:2], work), work, operators, OF_TWO)
            if "sizes" in wanted:
                sizes(runs[0], work, registry.split(arguments.compressors) if arguments.compressors else [])
        if "cost" in wanted:
            cost(arguments.size)
        if "memory" in wanted:
            memory(work)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
