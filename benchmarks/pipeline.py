"""A pipeline of two processes with one thread each, beside one process with one thread.

    python benchmarks/pipeline.py [--rounds 5] [--quick]

Both train the same network by local learning, with the same steps; rounds of the two alternate. Speed is that of a
filled pipeline: filling takes one step of the first stage in each epoch. What bounds it is how evenly the work lies on
the two: the processor time of one process, over that of the busier of two, sending and receiving included. Processor
time hardly depends on what else the machine does; the speed does.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time

import torch
from torch import Tensor, distributed, nn

from repertoire import heads, registry
from repertoire.local import LocalLearning, Pipeline
from repertoire.methods import Classifier, Normalize

NETWORKS = [("resnet32", 128, 8, "conv:depth=1", 12), ("resnet110", 64, 8, "conv:depth=1", 8)]
"""Network, batch, blocks (which take about as long: `balance=time`), auxiliary network, steps of a round."""


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


def learner_of(name: str, blocks: int, auxiliary: str, images: Tensor, pipeline: Pipeline | None) -> LocalLearning:
    torch.manual_seed(0)
    net = registry.build("backbones", name, in_channels=3, image_size=32)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = LocalLearning(model, blocks, auxiliary, sgd, example=images[:2], balance="time", pipeline=pipeline)
    learner.auxiliaries.to(memory_format=torch.channels_last)
    return learner


def measure(name: str, batch: int, blocks: int, auxiliary: str, steps: int, rounds: int) -> None:
    """One row of the table, printed by the first process."""
    rank = distributed.get_rank()
    images = torch.rand(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    pipeline = Pipeline()
    shared = learner_of(name, blocks, auxiliary, images, pipeline)
    alone = learner_of(name, blocks, auxiliary, images, None) if rank == 0 else None
    ratios, speeds, bounds, shares = [], [], [], []
    for number in range(rounds + 1):  # the first warms up
        single = (0.0, 0.0)
        distributed.barrier()
        if alone is not None:
            wall, work = time.perf_counter(), time.process_time()
            for _ in range(steps):
                alone.step(images, labels)
            single = ((time.perf_counter() - wall) / steps, (time.process_time() - work) / steps)
        distributed.barrier()
        work, ends = time.process_time(), []
        for _ in range(steps):
            if rank == 0:
                shared.step(images, labels)
            else:
                shared.step()
            ends.append(time.perf_counter())
        mine = ((ends[-1] - ends[0]) / (steps - 1), (time.process_time() - work) / steps)
        found: list[tuple[float, float]] = [mine, mine]
        distributed.all_gather_object(found, mine)
        if rank == 0 and number:
            (_, first), (seconds, second) = found
            speeds.append((batch / single[0], batch / seconds))
            ratios.append(single[0] / seconds)
            bounds.append(single[1] / max(first, second))
            shares.append((first / single[1], second / single[1]))
    shared.gather()
    if rank == 0:
        one, two = (statistics.median(values) for values in zip(*speeds, strict=True))
        first, second = (statistics.median(values) for values in zip(*shares, strict=True))
        print(
            f"| {name}, {blocks} blocks, {auxiliary}, batch {batch} | {one:.0f} | {two:.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {first:.2f} + {second:.2f} | "
            f"{statistics.median(bounds):.2f} |",
            flush=True,
        )


def work(rounds: int, networks: list[tuple[str, int, int, str, int]]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    if distributed.get_rank() == 0:
        print(
            f"SGD with momentum, channels last, float32, one thread a process, messages by gloo; "
            f"{len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}. Medians of {rounds} rounds.\n"
        )
        print("| network | one process, images/s | two, images/s | ratio | processor time of the two | bound |")
        print("|---|--:|--:|--:|--:|--:|")
    for name, batch, blocks, auxiliary, steps in networks:
        measure(name, batch, blocks, auxiliary, steps, rounds)
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small network and one round, to see that it runs")
    options = parser.parse_args()
    if "RANK" in os.environ:
        networks = [("resnet20", 16, 4, "linear", 3)] if options.quick else NETWORKS
        work(1 if options.quick else options.rounds, networks)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *sys.argv]
    running = [subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank)}) for rank in range(2)]
    sys.exit(max(abs(process.wait()) for process in running))


if __name__ == "__main__":
    main()
