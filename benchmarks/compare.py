"""How much of the processor a comparison of 8 configurations uses.

    python benchmarks/compare.py [--seeds 2]

`repertoire compare` as a user would type it, as a process of its own: start, the look at all configurations, the runs,
and the report. Four losses by two rules, one of which takes about twice as long, on generated images of 32 pixels, so
that the runs do not end together. Prints a Markdown table: wall-clock time, processor time of the process and its
workers, the share of all cores that this is, and, on Linux, how long the cores had nothing to do: a machine has other
processes too.
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
    parser.add_argument("--epochs", type=int, default=3)
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
        idle, before, start = _idle_time(), _processor_time(), time.perf_counter()
        subprocess.run(command, env=environment, stdout=sys.stderr, check=True)
        wall, used = time.perf_counter() - start, _processor_time() - before
        unused = "–" if idle is None else f"{((_idle_time() or 0.0) - idle) / (cores * wall):.1%}"
    runs = 8 * options.seeds
    print("| configurations | runs | cores | wall clock, s | processor time, s | share of the cores | cores idle |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(f"| 8 | {runs} | {cores} | {wall:.1f} | {used:.1f} | {used / (cores * wall):.1%} | {unused} |")


def _processor_time() -> float:
    """Of all processes that were started here, and that these started, and are over."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _idle_time() -> float | None:
    """Seconds in which a core of this machine had nothing to do, or waited for the disk; None where nobody counts."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = file.readline().split()
    except OSError:
        return None
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
