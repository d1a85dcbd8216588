"""Time and memory of losses that compare all pairs: Repertoire, the dense form and pytorch-metric-learning.

    python benchmarks/pair_losses.py                        # all that docs/numbers/pair_losses.md holds, two threads
    python benchmarks/pair_losses.py --losses supcon --sizes 512 --threads 1 --skip pytorch-metric-learning
    python benchmarks/pair_losses.py --losses supcon triplet --sizes 8192 16384 --load 2  # other work on both cores

Each way runs alone in a process of its own, forward and backward pass. Time is the median over the repetitions, memory
the peak of the process over what it held before the first pass, with the inputs made and the libraries loaded and
warm. `four products` is the bound: the four bare matrix products of the dense form (similarities forward; their
recomputation and two gradients backward), in a buffer that exists already. Sizes whose matrix of pairs fits nowhere are
measured for Repertoire alone, in one pass.

`--load` keeps so many other processes busy with matrix products of their own, one thread each, as on a machine that is
shared.

Cross-entropy over very many classes has a table of its own, against `F.cross_entropy(x @ weight.T)`: its memory
includes the weights, and is given over that of the weights and their gradient, which there is no way around.
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
MARGIN = 0.2
CLASSES = 100
WAYS = ("repertoire", "dense", "pytorch-metric-learning", "four products")
LOSSES = ("supcon", "triplet", "linear")
#: Rows from which only Repertoire is measured: the matrix of pairs would take 17 GB.
ALONE = 2**16

#: What other programs on the same cores do, until whoever started them is gone, however that ended.
BUSY = """
import os
import torch
torch.set_num_threads(1)
x = torch.randn(512, 512)
parent = os.getppid()
while os.getppid() == parent:
    x @ x
"""


def dense_supcon(embeddings: Tensor, labels: Tensor) -> Tensor:
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


def dense_triplet(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The batch-hard triplet loss as one would write it: a matrix of distances."""
    distances = torch.cdist(embeddings, embeddings)
    same = labels[:, None] == labels
    near = distances.masked_fill(same, torch.inf).amin(1)
    positive = same.clone().fill_diagonal_(False)
    far = distances.masked_fill(~positive, -torch.inf).amax(1)
    return F.relu(far - near + MARGIN)[positive.any(1)].mean()


def peer_triplet() -> Callable[[Tensor, Tensor], Tensor]:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner

    distance = LpDistance(normalize_embeddings=False)
    loss, miner = TripletMarginLoss(MARGIN, distance=distance), BatchHardMiner(distance=distance)
    return lambda x, labels: loss(x, labels, miner(x, labels))


def loss_of(loss: str, way: str) -> Callable[[Tensor, Tensor], Tensor]:
    if way == "repertoire":
        from repertoire.losses import SupCon, Triplet

        return SupCon(TEMPERATURE) if loss == "supcon" else Triplet(margin=MARGIN)
    if way == "dense":
        return dense_supcon if loss == "supcon" else dense_triplet
    if loss == "triplet":
        return peer_triplet()
    from pytorch_metric_learning.losses import SupConLoss

    return SupConLoss(TEMPERATURE)


def step_of(loss: str, way: str, rows: int, width: int) -> Callable[[], float]:
    """One measured pass; gives the loss, so that the ways can be compared."""
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(rows, width).normal_(generator=generator)
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
    function = loss_of(loss, way)
    x.requires_grad_()

    def step() -> float:
        x.grad = None
        value = function(x, labels)
        value.backward()
        return float(value.detach())

    return step


def linear_step_of(way: str, batch: int, classes: int, width: int) -> Callable[[], float]:
    from repertoire.ops import linear_cross_entropy

    generator = torch.Generator().manual_seed(0)
    x = torch.empty(batch, width).normal_(generator=generator)
    weight = torch.empty(classes, width).normal_(std=0.1, generator=generator).requires_grad_()
    targets = torch.randint(classes, (batch,), generator=generator)
    x.requires_grad_()

    def step() -> float:
        x.grad = weight.grad = None
        if way == "dense":
            value = F.cross_entropy(x @ weight.T, targets)
        else:
            value = linear_cross_entropy(x, weight, targets)
        value.backward()
        return float(value.detach())

    return step


def peak() -> int:
    """Peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def measure(given: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(given.threads)
    (loss,), (rows,), width = given.losses, given.sizes, given.width
    if loss == "linear":
        linear_step_of(given.one, 8, 64, width)()
        before = peak()
        step = linear_step_of(given.one, given.batch, rows, width)
    else:
        step_of(loss, given.one, 64, width)()  # loads what is loaded lazily, so that it does not count
        step = step_of(loss, given.one, rows, width)
        before = peak()
    start = time.perf_counter()
    value, times = step(), []
    first = time.perf_counter() - start
    for _ in range(given.repetitions):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return {"loss": value, "seconds": statistics.median(times or [first]), "bytes": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 16384, 131072], help="numbers of embeddings")
    parser.add_argument("--classes", type=int, default=1_000_000, help="classes of the cross-entropy")
    parser.add_argument("--batch", type=int, default=256, help="samples of the cross-entropy")
    parser.add_argument("--width", type=int, default=128, help="width of an embedding")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, help="timed passes; chosen by size if not given")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside the measured one")
    parser.add_argument("--skip", nargs="+", choices=WAYS, default=[])
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given)))
        return
    beside = f", beside {given.load} busy processes" if given.load else ""
    print(
        f"torch {torch.__version__}, {given.threads} threads, d = {given.width}, float32, forward and backward{beside}"
    )
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(given.load)]
    try:
        for loss in given.losses:
            if loss == "linear":
                linear_table(given)
            else:
                pair_table(loss, given)
    finally:
        for process in busy:
            process.kill()


def pair_table(loss: str, given: argparse.Namespace) -> None:
    name = "Supervised contrastive loss" if loss == "supcon" else "Batch-hard triplet loss"
    print(f"\n{name}:\n\n| N | way | loss | time | over four products | over repertoire | peak memory |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    for rows in given.sizes:
        repetitions = given.repetitions or max(1, min(200, 2**26 // rows**2))
        ways = [way for way in WAYS if way not in given.skip]
        if rows >= ALONE:
            ways, repetitions = ["repertoire"], 0
        results = {way: _alone(loss, way, rows, repetitions, given) for way in ways}
        bound = results.get("four products", {}).get("seconds")
        ours = results.get("repertoire", {}).get("seconds")
        for way, result in results.items():
            seconds = result["seconds"]
            shown = f"{result['loss']:.6f}" if way != "four products" else ""
            over, times = (f"{seconds / other:.2f}" if other else "" for other in (bound, ours))
            print(
                f"| {rows:,} | {way} | {shown} | {seconds * 1e3:,.1f} ms | {over} | {times} "
                f"| {result['bytes'] / 1e6:,.0f} MB |",
                flush=True,
            )


def linear_table(given: argparse.Namespace) -> None:
    least = 2 * 4 * given.classes * given.width
    print(f"\nCross-entropy over {given.classes:,} classes, a batch of {given.batch}:\n")
    print("| way | loss | time | peak memory with weights | over weights and their gradient |\n|---|--:|--:|--:|--:|")
    for way in ("repertoire", "dense"):
        if way not in given.skip:
            result = _alone("linear", way, given.classes, given.repetitions or 1, given)
            print(
                f"| {way} | {result['loss']:.6f} | {result['seconds'] * 1e3:,.1f} ms | {result['bytes'] / 1e6:,.0f} MB "
                f"| {result['bytes'] / least:.2f} |",
                flush=True,
            )


def _alone(loss: str, way: str, rows: int, repetitions: int, given: argparse.Namespace) -> dict[str, float]:
    arguments = ["--one", way, "--losses", loss, "--sizes", rows, "--width", given.width, "--batch", given.batch]
    arguments += ["--repetitions", repetitions, "--threads", given.threads]
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
