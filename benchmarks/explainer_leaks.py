"""What explainers leave behind: memory of the process over thousands of calls, and over many models.

    python benchmarks/explainer_leaks.py [--calls 5000] [--models 100]

Each explainer explains one image of a small network over and over. The table has how much the process has grown (its
resident memory) between the first tenth of the calls and the last, hooks and gradients that are left on the network,
and, of as many fresh models, each explained once and dropped, how many are still in memory.
"""

from __future__ import annotations

import argparse
import gc
import weakref
from pathlib import Path

import torch
from torch import nn

from repertoire import backbones, heads, registry
from repertoire.methods import Classifier, Normalize

EXPLAINERS = (
    "grad-cam", "grad-cam-plus-plus", "layer-cam", "eigen-cam", "score-cam:channels=8", "ablation-cam:channels=8",
    "normgrad", "guided-backprop", "integrated-gradients:samples=2", "smooth-grad:samples=2", "lrp",
)  # fmt: skip


def new_model() -> Classifier:
    net = backbones.ConvNet(width=8, depth=3)
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 5)).train()


def resident() -> int:
    """Bytes of the process in memory."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["VmRSS"].split()[0])


def left_on(model: nn.Module) -> int:
    """Hooks of a model, and parameters with a gradient."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, name)) for module in model.modules() for name in hooks) + sum(
        parameter.grad is not None for parameter in model.parameters()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--models", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, a convnet in training mode, one image of 16 pixels a call\n")
    print(f"| explainer | grown over {given.calls:,} calls | left on it | of {given.models} models still there |")
    print("|---|--:|--:|--:|")
    image = torch.rand(1, 3, 16, 16)
    for spec in EXPLAINERS:
        torch.manual_seed(0)
        explainer, model = registry.build("explainers", spec), new_model()
        for call in range(given.calls):
            explainer(model, image)
            if call == given.calls // 10:
                gc.collect()
                before = resident()
        gc.collect()
        grown = resident() - before
        alive = []
        for _ in range(given.models):
            fresh = new_model()
            explainer(fresh, image)
            alive.append(weakref.ref(fresh))
            del fresh
        gc.collect()
        there = sum(reference() is not None for reference in alive)
        print(f"| {spec} | {grown / 2**20:+.1f} MiB | {left_on(model)} | {there} |", flush=True)


if __name__ == "__main__":
    main()
