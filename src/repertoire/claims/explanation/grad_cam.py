"""The claim of *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.data import load, plain
from repertoire.explain import GradCAM, energy_inside, pointing_game
from repertoire.methods import Classifier


def _gradient_saliency(model: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    """Size of the gradient of the target's score in the input, largest over the channels, `[N, H, W]`."""
    images = images.clone().requires_grad_(True)
    scores = model(images).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(scores, images)
    return gradient.abs().amax(1)


def _centre_prior(images: Tensor) -> Tensor:
    """A Gaussian about the centre, of a quarter of the side, `[N, H, W]`: knows nothing of image or network."""
    height, width = images.shape[-2:]
    y = torch.linspace(-2, 2, height, device=images.device)
    x = torch.linspace(-2, 2, width, device=images.device)
    return torch.exp(-0.5 * (y[:, None] ** 2 + x**2)).expand(len(images), height, width)


@claim(
    "grad-cam",
    statement=(
        "Grad-CAM of the true class puts a larger share of its energy on the object than the gradient of the input or "
        "a prior for the centre, whichever of the two is better."
    ),
    metric="share of energy inside the object's mask",
    method="Grad-CAM",
    baseline="input gradient or centre prior, the better",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
)
def grad_cam(budget: Budget, seed: int) -> Measured:
    """Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (2016).

    The energy decides; how often a map is largest on the object is in `extra`.
    """
    count = budget.pick(smoke=300, small=2500, full=50_000)
    splits = load(f"shapes:count={count},classes=8", size=32, seed=seed)
    method = train(
        splits,
        backbone=budget.pick(smoke="resnet20:width=4", small="resnet20:width=8", full="resnet32"),
        augment="crop-flip",
        epochs=budget.pick(smoke=1, small=10, full=60),
        seed=seed,
        device=budget.device,
    )
    model = method.model
    explain = GradCAM(normalize=False)
    maps: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "Grad-CAM": lambda images, targets: explain(model, images, targets),
        "input gradient": lambda images, targets: _gradient_saliency(model, images, targets),
        "centre prior": lambda images, targets: _centre_prior(images),
    }
    energy: dict[str, list[Tensor]] = {name: [] for name in maps}
    pointing: dict[str, list[Tensor]] = {name: [] for name in maps}
    for start in range(0, len(splits.test), 256):
        rows = range(start, min(start + 256, len(splits.test)))
        images = plain(torch.from_numpy(splits.test.pixels(rows)).to(budget.device))
        targets = torch.from_numpy(splits.test.labels[rows]).to(budget.device)
        masks = torch.from_numpy(splits.test.object_masks(rows)).to(budget.device)
        for name, make in maps.items():
            heat = make(images, targets)
            energy[name].append(energy_inside(heat, masks))
            pointing[name].append(pointing_game(heat, masks))
    shares = {name: torch.cat(parts).mean().item() for name, parts in energy.items()}
    ours = shares.pop("Grad-CAM")
    hits = {f"{name}, pointing game": torch.cat(parts).mean().item() for name, parts in pointing.items()}
    return Measured(ours, max(shares.values()), {**shares, **hits, "test accuracy": accuracy(method, splits.test)})
