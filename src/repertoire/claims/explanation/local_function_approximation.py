"""The claim of *Which Explanation Should I Choose? A Function Approximation Perspective to Characterizing Post Hoc
Explanations* (2022).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from repertoire.claims import Budget, Measured, claim
from repertoire.explain import (
    CLIME,
    LIME,
    Gradient,
    GradientXInput,
    IntegratedGradients,
    KernelSHAP,
    LocalApproximation,
    Occlusion,
    SmoothGrad,
    choose_explainer,
)

#: The same linear function in other units: neither can be nearer than the other.
TWINS = ("gradient", "gradient x input")


def _network(rows: Tensor, labels: Tensor, hidden: int, steps: int) -> nn.Module:
    """A network with one hidden layer, trained on all rows at once."""
    net = nn.Sequential(nn.Linear(rows.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, int(labels.max()) + 1))
    net.to(rows.device)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(rows), labels).backward()
        optimiser.step()
    return net


def _eight(samples: int, seed: int) -> dict[str, LocalApproximation]:
    """The explainers, with noise of half a standard deviation of the features."""
    return {
        "LIME": LIME(samples, seed=seed, batch_size=4096),
        "C-LIME": CLIME(samples, sigma=0.5, seed=seed, batch_size=4096),
        "KernelSHAP": KernelSHAP(samples, seed=seed, batch_size=4096),
        "occlusion": Occlusion(batch_size=4096),
        "gradient": Gradient(batch_size=4096),
        "gradient x input": GradientXInput(batch_size=4096),
        "SmoothGrad": SmoothGrad(samples, sigma=0.5, seed=seed, batch_size=4096),
        "integrated gradients": IntegratedGradients(64, batch_size=4096),
    }


@claim(
    "local-function-approximation",
    statement=(
        "In the neighbourhood that is its own, each of eight explainers has, at points it was not fitted to, a lower "
        "error than the best of the others has there, on average over the eight."
    ),
    metric="squared error over that of a constant, mean of eight neighbourhoods",
    method="the explainer whose neighbourhood it is",
    baseline="the best of the other explainers",
    data="breast cancer and wine of scikit-learn, a network with one hidden layer",
    threshold=0.0,
    higher_is_better=False,
    learned=0.5,
    trivial=1.0,
    guard="a constant in the place of an explainer, whose error is the unit",
)
def local_function_approximation(budget: Budget, seed: int) -> Measured:
    """Han, Srinivas and Lakkaraju, *Which Explanation Should I Choose? A Function Approximation Perspective to
    Characterizing Post Hoc Explanations* (2022). As functions, gradient and gradient times input are the same, and do
    not count as each other's rivals. `extra` has both errors of each neighbourhood, and in how many of the sixteen the
    own explainer is the best: always in 14, C-LIME being a hair behind in its own. Occlusion, gradient and gradient
    times input are exact there by construction, and make half of the gap."""
    samples = budget.pick(smoke=80, small=1000, full=5000)
    explained = budget.pick(smoke=4, small=40, full=200)
    torch.manual_seed(seed)
    own: dict[str, list[float]] = {}
    others: dict[str, list[float]] = {}
    for fetch in (load_breast_cancer, load_wine):
        if budget.name == "smoke" and fetch is load_breast_cancer:
            continue
        x, y = fetch(return_X_y=True)
        seen, rest, labels, _ = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
        scaler = StandardScaler().fit(seen)
        rows, held_out = (
            torch.from_numpy(scaler.transform(part)).float().to(budget.device) for part in (seen, rest[:explained])
        )
        labels = torch.from_numpy(labels).to(budget.device)
        net = _network(rows, labels, hidden=64, steps=budget.pick(smoke=20, small=200, full=200))
        explainers = _eight(samples, seed)
        for name, home in explainers.items():
            errors = dict(choose_explainer(net, held_out, home, explainers, seed=1000 + seed).errors)
            own.setdefault(name, []).append(errors.pop(name))
            if name in TWINS:
                errors.pop(next(twin for twin in TWINS if twin != name))
            others.setdefault(name, []).append(min(errors.values()))
    extra = {}
    for name in own:
        extra[f"{name} at home"], extra[f"best other where {name} is at home"] = (
            float(np.mean(values[name])) for values in (own, others)
        )
    extra["neighbourhoods where the own is best, of 16"] = float(
        sum(a < b for name in own for a, b in zip(own[name], others[name], strict=True))
    )
    means = [float(np.mean([np.mean(values) for values in errors.values()])) for errors in (own, others)]
    return Measured(means[0], means[1], extra)
