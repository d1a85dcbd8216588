"""The claim of *Scaling Laws for Neural Language Models* (2020)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.teachers import INPUTS, TEACHER, parameters_of, random_teacher, student_of
from repertoire.diagnostics import fit_joint_power_law, fit_power_law
from repertoire.errors import DataError


def _best_loss(teacher: nn.Module, width: int, samples: int, steps: int, seed: int, device: str) -> tuple[int, float]:
    """Number of parameters, and the lowest test loss on the way, of a network trained on some samples of a teacher."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, INPUTS, generator=generator).to(device)
    x_test = torch.randn(2000, INPUTS, generator=torch.Generator().manual_seed(77)).to(device)
    y, y_test = teacher(x), teacher(x_test)
    torch.manual_seed(seed)
    network = student_of(width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best = math.inf
    for step in range(steps):
        index = torch.randint(samples, (64,), generator=generator).to(device)
        optimizer.zero_grad()
        F.mse_loss(network(x[index]), y[index]).backward()
        optimizer.step()
        rate.step()
        if (step + 1) % max(steps // 20, 1) == 0:
            with torch.no_grad():
                best = min(best, float(F.mse_loss(network(x_test), y_test)))
    return parameters_of(network), best


@claim(
    "lm-scaling-laws",
    statement=(
        "Power laws in the number of samples and of parameters, fitted to small runs, predict the loss of runs that "
        "are four to eight times as large with less error than lines in the logarithm."
    ),
    metric="relative error of the predicted loss of larger runs",
    method="power law",
    baseline="line in the logarithm",
    data=TEACHER,
    threshold=0.0,
    higher_is_better=False,
)
def scaling_laws(budget: Budget, seed: int) -> Measured:
    """Kaplan et al., *Scaling Laws for Neural Language Models* (2020), with small networks in place of language
    models: the loss of early-stopped runs in the number of samples D for a large network, and in the number of
    parameters N for many samples."""
    teacher = random_teacher(seed, budget.device)
    steps = budget.pick(smoke=20, small=1000, full=20_000)
    scale = budget.pick(smoke=1, small=1, full=8)
    large, many = 64 * scale, 30_000 * scale
    sizes, larger = [60, 120, 240, 480, 960], [3840, 7680]
    widths, wider = [2, 3, 5, 8, 12], [28, 40]
    data = [_best_loss(teacher, large, d, steps, seed, budget.device)[1] for d in (*sizes, *larger)]
    nets = [_best_loss(teacher, w, many, steps, seed, budget.device) for w in (*widths, *wider)]
    counts, losses = [count for count, _ in nets], [loss for _, loss in nets]
    results: dict[str, list[float]] = {"law": [], "line": []}
    extra = {}
    for name, x, y in (("D", [*sizes, *larger], data), ("N", counts, losses)):
        known = len(x) - 2
        try:
            law = fit_power_law(x[:known], y[:known], floor=False)
            predicted = law(x[known:])
            extra[f"exponent of {name}"] = law.exponent
        except DataError:  # too short a run falls nowhere: the law then predicts that it goes on so
            predicted = np.full(2, float(np.mean(y[:known])))
        slope, level = np.polyfit(np.log(x[:known]), y[:known], 1)
        line = level + slope * np.log(x[known:])
        truth = np.array(y[known:])
        results["law"] += list(np.abs(predicted / truth - 1))
        results["line"] += list(np.abs(line / truth - 1))
    n = [*[parameters_of(student_of(large))] * 5, *counts[:5]]
    joint = fit_joint_power_law(n, [*sizes, *[many] * 5], [*data[:5], *losses[:5]])
    apart = joint([counts[5], parameters_of(student_of(large))], [many, larger[1]])
    extra["joint law, relative error"] = float(np.mean(np.abs(apart / [losses[5], data[6]] - 1)))
    return Measured(float(np.mean(results["law"])), float(np.mean(results["line"])), extra)
