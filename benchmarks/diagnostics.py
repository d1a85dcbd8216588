"""Time and memory of the diagnostics of geometry on more features than fit into memory.

    python benchmarks/diagnostics.py                                  # 1,000,000 rows of 512 features
    python benchmarks/diagnostics.py --rows 100000

The features, 2 GB of float32 in a file that is mapped and never read whole, are classes with a spectrum that decays.
Every diagnostic runs in a process of its own, one after the other, and its peak memory is that of the process over what
it held before, the mapped file's own pages not counted (Linux keeps and drops them as it likes). What compares all
pairs looks at a sample, whose size is in the table. Beside each stands the bound: the product of the features with
themselves in double precision, block by block, which any of the streamed ones has to make.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, CLASSES, BLOCK = 512, 100, 8192


def write(path: Path, rows: int) -> None:
    """Features and labels, made and written in blocks."""
    rng = np.random.default_rng(0)
    features = np.lib.format.open_memmap(path / "x.npy", mode="w+", dtype=np.float32, shape=(rows, WIDTH))
    labels = rng.integers(CLASSES, size=rows)
    means = rng.standard_normal((CLASSES, WIDTH), dtype=np.float32)
    scale = (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)
    for start in range(0, rows, BLOCK):
        part = labels[start : start + BLOCK]
        noise = rng.standard_normal((len(part), WIDTH), dtype=np.float32)
        features[start : start + BLOCK] = (means[part] + noise) * scale
    features.flush()
    np.save(path / "y.npy", labels)


def product(x: np.ndarray, _: Any) -> None:
    """The bound: the second moments, block by block, and nothing else."""
    import torch

    total = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for start in range(0, len(x), 4096):
        part = torch.from_numpy(np.array(x[start : start + 4096])).double()
        total.addmm_(part.T, part)


def tasks() -> dict[str, tuple[str, Callable[[np.ndarray, Any], object]]]:
    from repertoire import diagnostics as d

    def sampled(function: Callable[..., object], count: int) -> Callable[[np.ndarray, Any], object]:
        def run(x: np.ndarray, y: Any) -> object:
            import torch

            index = np.sort(np.random.default_rng(0).choice(len(x), min(count, len(x)), replace=False))
            return function(torch.from_numpy(x[index]), y[torch.from_numpy(index)])

        return run

    return {
        "second moments alone (the bound)": ("all", product),
        "effective_rank": ("all", lambda x, y: d.effective_rank(x)),
        "eigenvalue_spectrum": ("all", lambda x, y: d.eigenvalue_spectrum(x)),
        "participation_ratio": ("all", lambda x, y: d.participation_ratio(x)),
        "neural_collapse": ("all", lambda x, y: d.neural_collapse(x, y)),
        "fisher_ratio": ("all", lambda x, y: d.fisher_ratio(x, y)),
        "linear_cka, with itself turned round": ("all", lambda x, y: d.linear_cka(x, x[:, ::-1])),
        "alignment": ("100,000", sampled(lambda x, y: d.alignment(x, y), 100_000)),
        "wasserstein_uniformity": ("100,000", sampled(lambda x, y: d.wasserstein_uniformity(x), 100_000)),
        "uniformity": ("10,000", sampled(lambda x, y: d.uniformity(x), 10_000)),
        "persistence_separability": ("2,000", lambda x, y: d.persistence_separability(x)),
        "class_overlap": ("20,000", lambda x, y: d.class_overlap(x, y)),
    }


def resident() -> int:
    """Bytes of memory that are the process's own, the pages of mapped files left out."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("RssAnon:")[2].split()[0])


def measure(folder: Path, name: str) -> dict[str, float]:
    """Seconds and peak bytes of one diagnostic; in a process of its own."""
    import torch

    x = np.load(folder / "x.npy", mmap_mode="r")
    y = torch.from_numpy(np.load(folder / "y.npy"))
    function = tasks()[name][1]
    function(x[:2000], y[:2000])  # what is allocated once, and imported
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    function(x, y)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "peak": max(0, peak[0] - before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="where features lie, or are written to; a temporary one if left out"
    )
    parser.add_argument("--only", nargs="*", help="names of diagnostics, or the start of them")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(measure(arguments.folder, arguments.task)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "x.npy").exists():
            write(folder, arguments.rows)
        size = (folder / "x.npy").stat().st_size / 2**30
        print(f"{arguments.rows:,} x {WIDTH} float32 ({size:.2f} GiB on disk), {arguments.threads} threads\n")
        print("| diagnostic | rows | seconds | ratio to the bound | peak memory, MiB |")
        print("|---|---|---|---|---|")
        bound = None
        for name, (rows, _) in tasks().items():
            if arguments.only and bound is not None and not name.startswith(tuple(arguments.only)):
                continue
            command = [sys.executable, __file__, "--task", name, "--folder", str(folder), "--rows", str(arguments.rows)]
            environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            bound = bound or found["seconds"]
            ratio = f"{found['seconds'] / bound:.2f}" if rows == "all" else ""
            print(f"| {name} | {rows} | {found['seconds']:.1f} | {ratio} | {found['peak'] / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
