"""How long it takes until something happens: `repertoire --help`, `import repertoire` beside `import torch`.

    python benchmarks/startup.py [--rounds 15]

Whole processes, in turn, so that all see the same machine. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python (nothing)": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import repertoire": ["-c", "import repertoire"],
    "import torch, repertoire.losses": ["-c", "import torch, repertoire; repertoire.losses"],
    "repertoire --help": ["-m", "repertoire", "--help"],
    "repertoire train --help": ["-m", "repertoire", "train", "--help"],
    "repertoire papers search noise": ["-m", "repertoire", "papers", "search", "noise"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            if number:  # the first round fills the disk's cache
                times[name].append(time.perf_counter() - start)
    print("| command | seconds (median) | ratio to `import torch` |")
    print("|---|---:|---:|")
    torch_times = times["import torch"]
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, torch_times, strict=True))
        print(f"| `{name}` | {statistics.median(values):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
