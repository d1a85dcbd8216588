"""Training beside other work on the same cores, by how long PyTorch's threads spin while they wait for each other.

    python benchmarks/waiting.py [--data cifar10:count=640,tested=200] [--load 0 2] [--rounds 3]

An epoch of a resnet20, of SimCLR with a small convolutional network, and of a perceptron on digits, with as many
threads as there are cores, in a process of its own for each way to wait, in turn: as OpenMP does by itself, as the
`repertoire` command has it on a busy machine (GOMP_SPINCOUNT), and asleep at once (OMP_WAIT_POLICY=passive). On cores
that nothing else uses, and beside busy processes, one thread each. Prints a Markdown table of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from pair_losses import BUSY
from repertoire.cli import SPINS

WAYS = {"as it comes": {}, "soon asleep": {"GOMP_SPINCOUNT": SPINS}, "asleep": {"OMP_WAIT_POLICY": "passive"}}
RUNS = {
    "resnet20, 32 pixels": {"backbone": "resnet20", "augment": "crop-flip", "size": 32, "batch_size": 128},
    "SimCLR, 16 pixels": {
        "backbone": "convnet:width=16",
        "method": "simclr:batch_norm=true",
        "augment": "simclr:scale=(0.2,1),strength=0.5,blur=0",
        "size": 16,
        "batch_size": 128,
    },
    "perceptron, digits": {"data": "digits", "backbone": "mlp", "batch_size": 64},
}


def measured(data: str) -> dict[str, float]:
    """Seconds of an epoch of each run, in this process."""
    import torch

    from repertoire import train
    from repertoire.recipe import build, load_splits, make_config, resolve

    torch.set_num_threads(os.cpu_count() or 1)
    found = {}
    for name, options in RUNS.items():
        config = make_config(**{"data": data, "epochs": 1, "device": "cpu", "seed": 0, **options})
        splits = load_splits(config)
        built = build(resolve(config, splits), splits, device="cpu")
        start = time.perf_counter()
        train.in_memory(built, validate=False)
        found[name] = time.perf_counter() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10:count=640,tested=200", help="of the first two runs")
    parser.add_argument("--load", type=int, nargs="+", default=[0, 2], help="busy processes beside the measured one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.data)))
        return
    known = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    command = [sys.executable, __file__, "--one", "--data", given.data]
    print(f"Seconds of an epoch, {os.cpu_count()} threads, median of {given.rounds}; in brackets: over the first.\n")
    print("| run | beside | " + " | ".join(WAYS) + " |\n|---|---|" + "--:|" * len(WAYS))
    for load in given.load:
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(load)]
        times: dict[tuple[str, str], list[float]] = {}
        try:
            for _ in range(given.rounds):
                for way, environment in WAYS.items():
                    done = subprocess.run(
                        command, env=known | environment, check=True, capture_output=True, text=True
                    ).stdout
                    for run, seconds in json.loads(done.splitlines()[-1]).items():
                        times.setdefault((run, way), []).append(seconds)
        finally:
            for process in busy:
                process.kill()
        for run in RUNS:
            middle = {way: statistics.median(times[run, way]) for way in WAYS}
            first = middle["as it comes"]
            cells = " | ".join(f"{s:.2f} ({s / first:.2f})" for s in middle.values())
            print(f"| {run} | {f'{load} busy processes' if load else 'nothing'} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
