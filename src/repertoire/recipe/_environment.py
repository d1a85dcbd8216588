"""Where a run happens: devices, ranks, versions."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric

import repertoire
from repertoire.errors import ConfigError, option, plural
from repertoire.recipe._config import TrainConfig

__all__ = ["describe", "emulated", "find_device", "forget_peak_memory", "layout", "make_fabric", "peak_memory"]

_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


def layout(config: TrainConfig) -> tuple[int, int]:
    """Into how many stages the processes cut a network, and how many replicas of it share each batch.

    Raises:
        ConfigError: the stages do not divide the processes.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    if config.pipeline is None:
        return 1, ranks
    stages = ranks if config.pipeline == "all" else config.pipeline
    if ranks % stages:
        raise ConfigError(
            f"pipeline is {stages}, and {plural(ranks, 'process', 'processes')} cannot be divided into pipelines of "
            f"{stages}: start with "
            f"torchrun --nproc-per-node {stages} -m repertoire train ..., or a multiple of it"
        )
    return stages, ranks // stages


def find_device(config: TrainConfig) -> torch.device:
    """The device asked for; without a number, if it is to be the current one.

    Raises:
        ConfigError: it is unknown or absent, or float16 is asked of a CPU.
    """
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device is {config.device!r}; it must be auto, cpu, cuda or cuda:N") from None
    if parsed.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {config.device!r}; it must be auto, cpu, cuda or cuda:N")
    if parsed.type == "cuda" and (parsed.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {config.device!r}, but there are {torch.cuda.device_count()} CUDA devices here")
    if parsed.type == "cpu" and config.precision == "16":
        raise ConfigError("precision 16 needs a GPU; on a CPU use bf16 or 32")
    return parsed


def emulated(config: TrainConfig, device: torch.device) -> list[str]:
    """What to say where bfloat16 is asked of a processor that has no instructions for it."""
    from repertoire.backbones import fast_bfloat16

    # Of processors other than these, `fast_bfloat16` cannot tell.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if config.precision != "bf16" or device.type != "cpu" or not x86 or fast_bfloat16(device):
        return []
    return [
        "this processor has no instructions for bfloat16 and takes several times longer than in float32: use "
        + option("precision", "32")
    ]


def make_fabric(config: TrainConfig) -> Fabric:
    """One process on the device asked for; or, under `torchrun`, this rank of a group.

    Raises:
        ConfigError: the device is unknown or absent, float16 is asked of a CPU or of a pipeline, or the ranks do not
            divide the batch.
    """
    parsed = find_device(config)
    stages, replicas = layout(config)
    ranks = stages * replicas
    if config.pipeline is not None and config.precision == "16":
        raise ConfigError(
            f"a pipeline does not work in float16, whose loss scale all blocks share: use {option('precision', 'bf16')}"
        )
    if config.batch_size < 2 * replicas * config.accumulate:
        raise ConfigError(
            f"batch_size is {config.batch_size}; in {config.accumulate} pieces on {replicas} ranks it must be at least "
            f"{2 * replicas * config.accumulate}, two images each"
        )
    if config.batch_size % replicas:
        raise ConfigError(f"batch_size is {config.batch_size}, which {replicas} ranks cannot share evenly")
    if ranks > 1:
        fabric = Fabric(
            accelerator=parsed.type,
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", ranks)),
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
            strategy=_sharded(ranks) if config.strategy == "fsdp" else "ddp",
            precision=_PRECISION[config.precision],
        )
    else:
        fabric = Fabric(
            accelerator=parsed.type,
            devices=[parsed.index] if parsed.type == "cuda" and parsed.index is not None else 1,
            precision=_PRECISION[config.precision],
        )
    fabric.launch()
    return fabric


def _sharded(ranks: int) -> Any:
    from lightning_fabric.strategies import ModelParallelStrategy

    from repertoire.rules import shard

    return ModelParallelStrategy(shard, data_parallel_size=ranks, tensor_parallel_size=1)


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, commit and machine, for the record of a run."""
    return {
        "repertoire": repertoire.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": machine(device),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def machine(device: torch.device) -> str:
    """The machine in words, such as "2 cores, 24 GiB, CPU"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return f"{cores} cores, {memory:.0f} GiB, {what}"


def commit() -> str | None:
    """Commit of the checkout that Repertoire runs from; None when it was installed from a package."""
    root = Path(repertoire.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory(device: torch.device) -> int:
    """Largest memory so far in bytes: what the allocator gave on a GPU, the resident set of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        # Not that of `getrusage`, which never falls, and which a process starts with that of the one it came from.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory` start anew, where the system can: a process may train one network after the other."""
    if device.type == "cuda":
        torch.cuda.init()  # before which there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
