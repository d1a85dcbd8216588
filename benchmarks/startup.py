"""How long it takes until something happens: `repertoire --help`, `import repertoire` beside `import torch`.

    python benchmarks/startup.py [--rounds 15] [--only "import torch" ...]

Whole processes, in turn, so that all see the same machine; modules are compiled before, as an installation does it,
whatever the environment says of writing bytecode. Processor time is told beside the clock, which other programs
disturb, and the ratio is of it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "python (nothing)": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import repertoire": ["-c", "import repertoire"],
    "import torch, repertoire.losses": ["-c", "import torch, repertoire; repertoire.losses"],
    "import torch, torch._dynamo": ["-c", "import torch, torch._dynamo"],
    "import what trains": ["-c", "import repertoire; repertoire.train.fit"],
    "import what trains and reports": [
        "-c",
        "import repertoire; repertoire.train.fit, repertoire.report.write_report, repertoire.explain.judge",
    ],
    "repertoire --help": ["-m", "repertoire", "--help"],
    "repertoire train --help": ["-m", "repertoire", "train", "--help"],
    "repertoire papers search noise": ["-m", "repertoire", "papers", "search", "noise"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="COMMAND")
    given = parser.parse_args()
    names = dict.fromkeys(["import torch", *given.only])
    clock: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = dict(os.environ, PYTHONPYCACHEPREFIX=bytecode)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(given.rounds + 1):
            for name in names:
                start, before = time.perf_counter(), os.times()
                subprocess.run([sys.executable, *COMMANDS[name]], capture_output=True, check=True, env=environment)
                after = os.times()
                if number:  # the first round compiles, and fills the disk's cache
                    clock[name].append(time.perf_counter() - start)
                    processor[name].append(sum(after[2:4]) - sum(before[2:4]))
    print("| command | processor seconds (median) | ratio to `import torch` | seconds on the clock (median) |")
    print("|---|---:|---:|---:|")
    base = processor["import torch"]
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(processor[name], base, strict=True))
        spent, waited = (statistics.median(values[name]) for values in (processor, clock))
        print(f"| `{name}` | {spent:.3f} | {ratio:.2f} | {waited:.3f} |")


if __name__ == "__main__":
    main()
