"""Time and memory of the supervised contrastive loss: Repertoire, the dense form and pytorch-metric-learning.

    python benchmarks/pair_losses.py                        # N = 512 and 16384, d = 128, two threads
    python benchmarks/pair_losses.py --sizes 512 --threads 1 --skip pytorch-metric-learning

Each way runs alone in a process of its own, forward and backward pass. Time is the median over the repetitions, memory
the peak of the process over what it held before the first pass, with the embeddings made and the libraries loaded and
warm. `four products` is the bound: the four bare matrix products of the dense form (similarities forward; their
recomputation and two gradients backward), in a buffer that exists already.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.1
CLASSES = 100
WAYS = ("repertoire", "dense", "pytorch-metric-learning", "four products")


def dense(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The loss as one would write it: a matrix of similarities, masks of the same size."""
    z = F.normalize(embeddings, dim=1)
    similarities = z @ z.T / TEMPERATURE
    same = labels[:, None] == labels
    same.fill_diagonal_(False)
    diagonal = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = similarities - similarities.masked_fill(diagonal, -torch.inf).logsumexp(1, keepdim=True)
    positives = same.sum(1)
    losses = -(log_p * same).sum(1) / positives.clamp_min(1)
    return losses[positives > 0].mean()


def loss_of(way: str) -> Callable[[Tensor, Tensor], Tensor]:
    if way == "repertoire":
        from repertoire.losses import SupCon

        return SupCon(TEMPERATURE)
    if way == "dense":
        return dense
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(TEMPERATURE)


def step_of(way: str, rows: int, width: int) -> Callable[[], float]:
    """One measured pass; gives the loss, so that the ways can be compared."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    if way == "four products":
        matrix, out = torch.empty(rows, rows), torch.empty(rows, width)

        def products() -> float:
            torch.mm(x, x.T, out=matrix)
            torch.mm(x, x.T, out=matrix)
            torch.mm(matrix, x, out=out)
            torch.mm(matrix.T, x, out=out)
            return float("nan")

        return products
    loss = loss_of(way)
    x.requires_grad_()

    def step() -> float:
        x.grad = None
        value = loss(x, labels)
        value.backward()
        return float(value.detach())

    return step


def peak() -> int:
    """Peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def measure(way: str, rows: int, width: int, repetitions: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    step_of(way, 64, width)()  # loads what is loaded lazily, so that it does not count
    step = step_of(way, rows, width)
    before = peak()
    value, times = step(), []
    for _ in range(repetitions):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return {"loss": value, "seconds": statistics.median(times), "bytes": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 16384], help="numbers of embeddings")
    parser.add_argument("--width", type=int, default=128, help="width of an embedding")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, help="timed passes; chosen by size if not given")
    parser.add_argument("--skip", nargs="+", choices=WAYS, default=[])
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.sizes[0], given.width, given.repetitions, given.threads)))
        return
    print(f"torch {torch.__version__}, {given.threads} threads, d = {given.width}, float32, forward and backward\n")
    print("| N | way | loss | time | over four products | peak memory |\n|--:|---|--:|--:|--:|--:|")
    for rows in given.sizes:
        repetitions = given.repetitions or max(1, min(200, 2**26 // rows**2))
        results = {way: _alone(way, rows, repetitions, given) for way in WAYS if way not in given.skip}
        bound = results.get("four products", {}).get("seconds", float("nan"))
        for way, result in results.items():
            print(
                f"| {rows:,} | {way} | {result['loss']:.6f} | {result['seconds'] * 1e3:,.1f} ms "
                f"| {result['seconds'] / bound:.2f} | {result['bytes'] / 1e6:,.0f} MB |"
            )


def _alone(way: str, rows: int, repetitions: int, given: argparse.Namespace) -> dict[str, float]:
    arguments = ["--one", way, "--sizes", rows, "--width", given.width, "--repetitions", repetitions]
    command = [sys.executable, __file__, *map(str, arguments), "--threads", str(given.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
