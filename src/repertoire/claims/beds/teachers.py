"""Values of a random teacher network, and students of several widths."""

from __future__ import annotations

import torch
from torch import nn

#: Variables that the teacher reads.
INPUTS = 6


TEACHER = "values of a random network of three layers on Gaussian inputs"


def random_teacher(seed: int, device: str) -> nn.Module:
    torch.manual_seed(1000 + seed)
    layers = [nn.Linear(INPUTS, 32), nn.Linear(32, 32), nn.Linear(32, 1)]
    for layer in layers:
        nn.init.normal_(layer.weight, 0, 1.5 / layer.in_features**0.5)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2]).to(device).requires_grad_(False)


def student_of(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def parameters_of(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
