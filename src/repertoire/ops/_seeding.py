"""Seeding torch once a step, at the price of a seeding."""

from __future__ import annotations

import torch

__all__ = ["seed_torch"]


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds torch's random state of the processor and of one kind of device, with the numbers of `torch.manual_seed`.

    `torch.manual_seed` formats a stack trace for each kind of device that is not there, in case that it comes later:
    on a processor alone that takes longer than a step of a linear classifier.

    Args:
        seed: in [0, 2**64).
        device: where random numbers will be drawn, besides the processor.

    Example:
        >>> seed_torch(1, torch.device("cpu"))
        >>> first = torch.rand(2)
        >>> _ = torch.manual_seed(1)
        >>> bool((first == torch.rand(2)).all())
        True
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
