"""What a GPU is asked, in order of value, within a time limit: pair losses, local learning at 224 pixels, CIFAR-10.

    python benchmarks/_gpu.py --out gpu.jsonl [--minutes 14] [--cifar10 FOLDER]
    python benchmarks/_gpu.py --out gpu.jsonl --table
    python benchmarks/_gpu.py --out try.jsonl --device cpu --quick     # every question once, small, to see that it runs

1. Supervised contrastive and batch-hard triplet losses of 65,536 and 262,144 embeddings of width 128 in bfloat16, a
   forward and a backward pass, beside the dense form and pytorch-metric-learning; cross-entropy over a million classes.
2. A training step of a ResNet-50 at 224 pixels, 128 images, bfloat16: back-propagation, activation checkpointing, and
   local learning with 4 and 8 blocks.
3. resnet20 on FOLDER (train/CLASS/*.jpg, test/CLASS/*.jpg), 30 epochs: back-propagation and local learning.

Each question is a process of its own, so that one that runs out of memory or hangs takes nothing with it; it is stopped
when the time is over. Answers are lines of the output, and what is there already is not asked again: another call, with
another fifteen minutes, goes on. Memory is the allocator's peak over what was held before; time is the median of the
passes, synchronised. A page of docs/numbers holds what came out, once there was a GPU to ask; there is none so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Answer = dict[str, float]


@dataclass(frozen=True)
class Question:
    """One process: what it measures, with which way, and how large."""

    topic: str
    way: str
    size: int

    @property
    def key(self) -> dict[str, Any]:
        return {"topic": self.topic, "way": self.way, "size": self.size}


PAIRS = ("repertoire", "dense", "pytorch-metric-learning")
STEPS = ("back-propagation", "checkpoint per block")
RULES = (
    "backprop",
    "local:blocks=4,auxiliary=(conv:depth=1)",
    "local:blocks=4,auxiliary=patches",
    "local:blocks=4,auxiliary=patches,overlap=1",
)
EPOCHS = 30


def questions(quick: bool, cifar10: bool) -> list[Question]:
    """All of them, the most valuable first. Who would need more than a matrix of pairs fits is asked at one size."""
    small, large = (256, 512) if quick else (65_536, 262_144)
    found = [Question(loss, way, small) for loss in ("supcon", "triplet") for way in PAIRS]
    found += [Question(loss, "repertoire", large) for loss in ("supcon", "triplet")]
    found += [Question("linear", way, 1000 if quick else 1_000_000) for way in ("repertoire", "dense")]
    batch = 2 if quick else 128
    found += [Question("step", way, batch) for way in (*STEPS, "4 linear", "8 linear", "8 conv:depth=1,channels=64")]
    return found + [Question("cifar10", rule, 1 if quick else EPOCHS) for rule in RULES if cifar10]


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def timed(step: Callable[[], object], device: str, seconds: float) -> Answer:
    """Median time of passes that take as long as was said together, three at least, and the peak of memory."""
    step()  # loads, compiles and tunes what is loaded, compiled and tuned once
    synchronise(device)
    before = 0
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 100):
        start = time.perf_counter()
        step()
        synchronise(device)
        times.append(time.perf_counter() - start)
    peak = 0 if device == "cpu" else torch.cuda.max_memory_allocated() - before
    return {"seconds": statistics.median(times), "bytes": float(peak), "passes": float(len(times))}


def pairs(loss: str, way: str, rows: int, device: str, seconds: float) -> Answer:
    """A forward and a backward pass of a loss over all pairs, bfloat16 in."""
    from pair_losses import CLASSES, loss_of

    generator = torch.Generator().manual_seed(0)
    x = torch.empty(rows, 128).normal_(generator=generator).to(device, torch.bfloat16).requires_grad_()
    labels = torch.randint(CLASSES, (rows,), generator=generator).to(device)
    function = loss_of(loss, way)
    if isinstance(function, torch.nn.Module):
        function.to(device)
    values: list[torch.Tensor] = []

    def step() -> None:
        x.grad = None
        value = function(x, labels)
        value.backward()
        values[:] = [value.detach()]

    return timed(step, device, seconds) | {"value": float(values[0])}


def linear(way: str, classes: int, device: str, seconds: float) -> Answer:
    """Cross-entropy of a head over very many classes, which need not hold the logits."""
    from repertoire.ops import linear_cross_entropy

    generator = torch.Generator().manual_seed(0)
    x = torch.empty(1024, 128).normal_(generator=generator).to(device, torch.bfloat16).requires_grad_()
    weight = torch.empty(classes, 128).normal_(std=0.1, generator=generator).to(device, torch.bfloat16).requires_grad_()
    targets = torch.randint(classes, (1024,), generator=generator).to(device)
    values: list[torch.Tensor] = []

    def step() -> None:
        x.grad = weight.grad = None
        if way == "dense":
            value = torch.nn.functional.cross_entropy(x @ weight.T, targets)
        else:
            value = linear_cross_entropy(x, weight, targets)
        value.backward()
        values[:] = [value.detach()]

    return timed(step, device, seconds) | {"value": float(values[0])}


def training_step(way: str, batch: int, device: str, seconds: float, quick: bool) -> Answer:
    """A step of a ResNet-50 in bfloat16, the optimiser's included."""
    import local_learning

    local_learning.DEVICE = device
    network, side = ("resnet20", 32) if quick else ("timm:resnet50", 224)
    found, _ = local_learning.steps(network, side, batch, [] if way in STEPS else [way])
    ((_, step),) = [
        (title, step) for title, step in found.items() if title == way or (way not in STEPS and title not in STEPS)
    ]

    def half() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            step()

    return timed(half, device, seconds)


def trained(rule: str, epochs: int, folder: str, device: str, quick: bool) -> Answer:
    """Test accuracy of the last weights, and the time that training took."""
    from repertoire import train
    from repertoire.recipe import load_splits, make_config

    config = make_config(
        data=folder,
        device=device,
        backbone="resnet20",
        rule=rule,
        epochs=epochs,
        seed=0,
        augment="crop-flip",
        batch_size=512 if quick else 128,
    )
    splits = load_splits(config)
    start = time.perf_counter()
    result = train.in_memory(config, splits, validate=False)
    seconds = time.perf_counter() - start
    test = result.evaluate("test")
    return {"accuracy": float((test.logits.argmax(1) == test.labels).mean()), "seconds": seconds, "bytes": 0.0}


def answer(question: Question, given: argparse.Namespace) -> Answer:
    seconds = 0.1 if given.quick else 5.0
    if question.topic == "step":
        return training_step(question.way, question.size, given.device, seconds, given.quick)
    if question.topic == "cifar10":
        return trained(question.way, question.size, given.cifar10, given.device, given.quick)
    if question.topic == "linear":
        return linear(question.way, question.size, given.device, seconds)
    return pairs(question.topic, question.way, question.size, given.device, seconds)


def stored(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ask(question: Question, given: argparse.Namespace, left: float) -> dict[str, Any]:
    """What a process of its own says, or why it says nothing."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", json.dumps(question.key)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": "out of time"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


TITLES = {
    "supcon": "Supervised contrastive loss",
    "triplet": "Batch-hard triplet loss",
    "linear": "Cross-entropy over very many classes, a batch of 1,024",
    "step": "A training step, bfloat16",
    "cifar10": "resnet20 on CIFAR-10",
}
SIZES = {"step": "images", "cifar10": "epochs", "linear": "classes"}


def table(rows: list[dict[str, Any]]) -> str:
    """All answers as Markdown, time and memory beside those of the first way of each topic and size."""
    lines = [f"{rows[0]['where']}, PyTorch {rows[0]['torch']}." if rows else "Nothing has been asked yet."]
    for topic, title in TITLES.items():
        own = [row for row in rows if row["topic"] == topic]
        if not own:
            continue
        lines += [
            "",
            f"{title}:",
            "",
            f"| {SIZES.get(topic, 'rows')} | way | time | memory | over the first | result |",
        ]
        lines.append("|--:|---|--:|--:|--:|---|")
        for row in own:
            if "failed" in row:
                lines.append(f"| {row['size']:,} | `{row['way']}` | | | | {row['failed']} |")
                continue
            first = next(other for other in own if other["size"] == row["size"])
            over = f"{row['seconds'] / first['seconds']:.2f}" if "seconds" in first else ""
            if first.get("bytes"):
                over += f", memory {row['bytes'] / first['bytes']:.2f}"
            result = "".join(f"{row[name]:.4f}" for name in ("value", "accuracy") if name in row)
            spent = f"{1000 * row['seconds']:,.1f} ms" if row["seconds"] < 60 else f"{row['seconds']:,.0f} s"
            memory = f"{row['bytes'] / 2**20:,.0f} MiB"
            lines.append(f"| {row['size']:,} | `{row['way']}` | {spent} | {memory} | {over} | {result} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of answers, one a line")
    parser.add_argument("--minutes", type=float, default=14.0)
    parser.add_argument("--cifar10", default="", help="folder of images for the last topic, which is left out without")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="all of it small, to see that it runs")
    parser.add_argument("--table", action="store_true", help="print what has been answered, and ask nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(answer(Question(**json.loads(given.one)), given)))
        return
    if given.table:
        print(table(stored(given.out)))
        return
    if given.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --quick tries the script")
    where = "CPU" if given.device == "cpu" else torch.cuda.get_device_name()
    end = time.monotonic() + 60 * given.minutes
    for question in questions(given.quick, bool(given.cifar10)):
        # What ran out of time is asked again, by itself and from the beginning.
        known = [row for row in stored(given.out) if row.get("failed") != "out of time"]
        left = end - time.monotonic()
        if left < 1 or any(row.items() >= question.key.items() for row in known):
            continue
        row = question.key | ask(question, given, left) | {"where": where, "torch": torch.__version__}
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


if __name__ == "__main__":
    main()
