"""How much of the processor a comparison of 8 configurations uses.

    python benchmarks/compare.py [--seeds 2]

`repertoire compare` as a user would type it, as a process of its own: start, the look at all configurations, the runs,
and the report. Four losses by two rules, one of which takes about twice as long, on generated images of 32 pixels, so
that the runs do not end together. Prints a Markdown table: wall-clock time, processor time of the process and its
workers, and the share of all cores that this is.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

LOSSES = "cross-entropy,squentropy,focal,supcon"
RULES = "backprop,sam"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "repertoire", "compare", f"shapes:count={options.images}", "--size", "32",
            "--backbone", "resnet20:width=8", "--epochs", str(options.epochs), "--device", "cpu",
            "--vary", f"loss={LOSSES}", "--vary", f"rule={RULES}", "--seeds", str(options.seeds),
            "-o", os.path.join(folder, "comparison"),
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        before, start = _processor_time(), time.perf_counter()
        subprocess.run(command, env=environment, stdout=sys.stderr, check=True)
        wall, used = time.perf_counter() - start, _processor_time() - before
    runs = 8 * options.seeds
    print("| configurations | runs | cores | wall clock, s | processor time, s | share of the cores |")
    print("|---:|---:|---:|---:|---:|---:|")
    print(f"| 8 | {runs} | {cores} | {wall:.1f} | {used:.1f} | {used / (cores * wall):.1%} |")


def _processor_time() -> float:
    """Of all processes that were started here, and that these started, and are over."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
