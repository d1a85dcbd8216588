"""The planner beside the truth: predicted and measured peak memory of a training step, and relative time.

    python benchmarks/planner.py [--rounds 3] [--quick] [--fit]

Peak memory is measured on the CPU as what PyTorch's allocator reports to the profiler while a step runs, on top of
weights, optimiser state and images; on a GPU it is the allocator's own peak. Time is the median over rounds in which
all settings take turns: processor time on the CPU, where other programs would disturb a clock. `--fit` also prints the
rates that would have predicted these times best. Prints Markdown.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.optimize import nnls
from torch.profiler import ProfilerActivity, profile

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods import Method
from repertoire.plan import Footprint, Work, dry_step, seconds
from repertoire.recipe import (
    Facts,
    TrainConfig,
    build_classifier,
    build_loss,
    build_method,
    make_config,
    make_fabric,
    make_optimizer,
)
from repertoire.tasks import Classes

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

#: network, image size, batch
NETWORKS = [
    ("resnet20", 32, 64),
    ("resnet32", 32, 32),
    ("resnet110", 32, 8),
    ("vit:patch=4,dim=128,depth=8,heads=4", 32, 32),
    ("timm:resnet18", 224, 4),
    ("timm:resnet50", 224, 4),
]

SETTINGS = [
    ("backprop", 1),
    ("backprop", 2),
    ("checkpoint", 1),
    *((f"local:blocks={blocks},auxiliary={auxiliary}", 1)
      for auxiliary in ("auglocal", "(conv:depth=1)") for blocks in (2, 4, 8, "all")),
]  # fmt: skip


def new_method(config: TrainConfig, size: int) -> Method:
    torch.manual_seed(0)
    facts = Facts(Classes(tuple("0123456789")), "images", 3, size, [0.5] * 3, [0.25] * 3)
    model = build_classifier(config, facts)
    method = build_method(config, model, build_loss(config, facts))
    return method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def new_config(backbone: str, size: int, batch: int, rule: str, accumulate: int, **options: object) -> TrainConfig:
    return make_config(
        data="images", backbone=backbone, size=size, batch_size=batch, rule=rule, accumulate=accumulate,
        method="supervised", loss="cross-entropy", head="linear", tune="all", device=str(DEVICE), **options,
    )  # fmt: skip


def new_step(config: TrainConfig, method: Method) -> Callable[[], object]:
    """A real step of training, as the loop takes it."""
    method = copy.deepcopy(method).to(DEVICE).train()
    images = torch.rand(config.batch_size, 3, config.size, config.size, device=DEVICE)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(config.batch_size, device=DEVICE) % 10
    rule = registry.build("rules", config.rule)
    rule.setup(
        method,
        lambda module: make_optimizer(config, module),
        fabric=make_fabric(config),
        clip=config.clip,
        accumulate=config.accumulate,
        example=images[:2],
    )
    return partial(rule.step, method, Batch((images,), labels, torch.arange(len(labels), device=DEVICE)))


def measured_peak(step: Callable[[], object]) -> int:
    """Bytes that a step takes from the allocator at its peak, on top of what is there before. The step is not the first
    one, which makes the optimiser's state."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in record.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    return int(max(0, np.cumsum([change for _, change in sorted(changes, key=lambda item: item[0])]).max()))


def clock() -> float:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def compare(
    backbone: str, size: int, batch: int, rounds: int
) -> tuple[list[float], list[float], list[tuple[Work, float]]]:
    """Prints the table of a network; gives relative errors of memory and of time, and work with its time."""
    method = new_method(new_config(backbone, size, batch, "backprop", 1), size)
    predicted: dict[str, Footprint] = {}
    measured: dict[str, int] = {}
    steps: dict[str, Callable[[], object]] = {}
    for rule, accumulate in SETTINGS:
        config = new_config(backbone, size, batch, rule, accumulate)
        title = rule + (f", {accumulate} pieces" if accumulate > 1 else "")
        try:
            found = dry_step(config, method, (3, size, size), device=DEVICE)
        except ConfigError:
            continue  # more blocks than the network has
        steps[title] = new_step(config, method)
        predicted[title] = found
        steps[title]()
        measured[title] = found.resident + found.images + measured_peak(steps[title])
    taken: dict[str, list[float]] = {title: [] for title in steps}
    for _ in range(rounds):
        for title, step in steps.items():
            start = clock()
            step()
            taken[title].append(clock() - start)
    times = {title: statistics.median(values) for title, values in taken.items()}
    first = next(iter(steps))
    expected = {title: seconds(found.work, DEVICE, "32") for title, found in predicted.items()}
    print(f"### {backbone}, {size} pixels, batch {batch}\n")
    print("| setting | predicted peak, MiB | measured peak, MiB | error | predicted time | measured time |")
    print("|---|--:|--:|--:|--:|--:|")
    memory_errors, time_errors = [], []
    for title, found in predicted.items():
        memory_errors.append(found.peak / measured[title] - 1)
        relative, true = expected[title] / expected[first], times[title] / times[first]
        time_errors.append(relative / true - 1)
        print(
            f"| `{title}` | {found.peak / 2**20:.1f} | {measured[title] / 2**20:.1f} | {memory_errors[-1]:+.1%} | "
            f"{relative:.2f} | {true:.2f} |"
        )
    print()
    return memory_errors, time_errors, [(predicted[title].work, times[title]) for title in steps]


def fitted(samples: list[tuple[Work, float]]) -> str:
    """Rates whose predictions have the least relative error, squared and summed."""
    features = np.array([[w.flops, w.product_bytes, w.bytes, w.calls] for w, _ in samples])
    times = np.array([t for _, t in samples])
    costs = nnls(features / times[:, None], np.ones(len(times)))[0]
    names = ("operations", "bytes of products", "other bytes", "calls")
    return ", ".join(
        f"{name} {1 / cost:.3g}/s" if cost else f"{name} free" for name, cost in zip(names, costs, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small network and one round, to see that it runs")
    parser.add_argument("--fit", action="store_true", help="print the rates that fit these times best")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU, one thread"
    print(f"SGD with momentum, channels last, float32; {where}, PyTorch {torch.__version__}.\n")
    memory: list[float] = []
    times: list[float] = []
    samples: list[tuple[Work, float]] = []
    networks, rounds = ([("resnet20", 16, 8)], 1) if options.quick else (NETWORKS, options.rounds)
    for backbone, size, batch in networks:
        a, b, c = compare(backbone, size, batch, rounds)
        memory, times, samples = memory + a, times + b, samples + c
    for what, errors, digits in (("peak", memory, 1), ("relative time", times, 0)):
        sizes = [abs(error) for error in errors]
        most, middle = max(sizes), statistics.median(sizes)
        print(f"Error of the predicted {what}: at most {most:.{digits}%}, median {middle:.{digits}%}.")
    if options.fit:
        print(f"\nRates that fit best: {fitted(samples)}.")


if __name__ == "__main__":
    main()
