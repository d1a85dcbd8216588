"""Claims of papers on losses that compare the views of a sample.

Small data can show little of what these papers promise on ImageNet, so the setting is made to need an invariance:
digits of 8 pixels that are shifted round the edge, lit unevenly, scaled, and noisy, of which a linear probe of the
pixels gets half right. Views are made by disturbing an image once more, and a small perceptron learns from them without
labels in a second or two. How strongly images are disturbed, and for how long networks are trained, was chosen with
NT-Xent on a seed that is not among those of the claims, before any of the claims was measured.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.claims import Budget, arm
from repertoire.claims._training import pixels, probe, probe_accuracy, train
from repertoire.data import load
from repertoire.losses import ViewsLoss

DISTURBED = "digits, shifted, unevenly lit and noisy: 10 classes, 8 pixels"


PROBE = "linear-probe test accuracy"


SIDE = 8


WIDTH = 128


DIMENSIONS = 32


class DisturbedDigits(NamedTuple):
    """Images `[N, 8, 8]` and labels `[N]` to learn from and to test on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class Network(nn.Module):
    """An encoder, whose features are read out, and a projector, whose embeddings the loss sees."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(SIDE**2, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
        layers += [nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
        self.encoder = nn.Sequential(nn.Flatten(), *layers)
        self.projector = nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, DIMENSIONS))

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings `[N, 32]`."""
        return self.projector(self.encoder(images))


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to a pixel round the edge, scaled, lit from somewhere, and with noise."""
    count = len(images)
    shifts = torch.randint(-1, 2, (2, count, 1), generator=generator)
    gain = 0.5 + torch.rand(count, 1, 1, generator=generator)
    slopes = 0.2 * torch.randn(3, count, 1, 1, generator=generator)
    noise = 0.1 * torch.randn(images.shape, generator=generator)
    rows, columns = (torch.arange(SIDE) - shifts) % SIDE
    shifted = images[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    line = torch.linspace(-1, 1, SIDE)
    light = slopes[0] + slopes[1] * line[:, None] + slopes[2] * line
    return gain * shifted + light + noise


def disturbed_digits(budget: Budget, seed: int) -> DisturbedDigits:
    """Disturbed digits; those for validation are test images here, to have more of them."""
    splits = load("digits", seed=seed)
    most = budget.pick(smoke=260, small=2000, full=2000)
    generator = torch.Generator().manual_seed(seed)
    parts = [pixels(part) for part in (splits.train, splits.val, splits.test)]
    images, test = parts[0][0], torch.cat([parts[1][0], parts[2][0]])
    return DisturbedDigits(
        disturb(images.view(-1, SIDE, SIDE)[:most], generator),
        parts[0][1][:most],
        disturb(test.view(-1, SIDE, SIDE)[:most], generator),
        torch.cat([parts[1][1], parts[2][1]])[:most],
    )


def pretrained(
    loss: ViewsLoss,
    images: Tensor,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    views: int = 2,
    start: Network | None = None,
    teacher: float | None = None,
    prior: Tensor | None = None,
) -> Network:
    """A network trained on images without labels.

    Args:
        start: the network to go on from; a fresh one if None.
        teacher: share of its old weights that a slowly moving copy keeps in each step, which then embeds all views but
            the first; None for no such copy.
        prior: what is known of each image, for a loss that takes it.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(start) if start is not None else Network()
    slow = copy.deepcopy(network).requires_grad_(False) if teacher is not None else network
    loss.prepare(DIMENSIONS)
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=2e-3)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(batch_size):
            if len(index) < batch_size:
                continue
            made = [disturb(images[index], generator) for _ in range(views)]
            if teacher is None:
                embeddings = list(network(torch.cat(made)).chunk(views))
            else:
                with torch.no_grad():
                    targets = slow(torch.cat(made[1:])).chunk(views - 1)
                embeddings = [network(made[0]), *targets]
            known = {"index": index} if "index" in loss.wants else {} if prior is None else {"prior": prior[index]}
            optimizer.zero_grad()
            loss(*embeddings, **known).backward()
            optimizer.step()
            loss.after_update()
            if teacher is not None:
                with torch.no_grad():
                    for old, new in zip(slow.parameters(), network.parameters(), strict=True):
                        old.lerp_(new, 1 - teacher)
    return network.eval()


@torch.no_grad()
def encoded(network: Network, images: Tensor) -> Tensor:
    return network.encoder(images)


def probed_accuracy(network: Network, data: DisturbedDigits) -> float:
    """Accuracy of a linear probe of the network's features."""
    seen, held_out = (encoded(network, images).numpy() for images in (data.images, data.test_images))
    return probe(seen, data.labels.numpy(), held_out, data.test_labels.numpy())


def epochs_of(budget: Budget, small: int = 40) -> int:
    return budget.pick(smoke=1, small=small, full=10 * small)


@arm
def probed(budget: Budget, seed: int, *, spec: str) -> dict[str, float]:
    """Accuracy of a linear probe after training with a loss; on a GPU a residual network on shapes."""
    if budget.name == "full":
        splits = load("shapes:count=50000,classes=8", size=32, seed=seed)
        options = {"backbone": "resnet32", "augment": "simclr:scale=(0.5,1)", "seed": seed, "device": budget.device}
        return {"accuracy": probe_accuracy(train(splits, loss=spec, epochs=200, **options), splits)}
    data = disturbed_digits(budget, seed)
    loss = registry.build("losses", spec)
    network = pretrained(loss, data.images, epochs=epochs_of(budget), seed=seed, views=loss.views)
    return {"accuracy": probed_accuracy(network, data)}


def probe_each(budget: Budget, seed: int, specs: Sequence[str]) -> list[float]:
    """Accuracy of a linear probe after training with each of the losses, each of which is measured once."""
    return [probed(budget, seed, spec=spec)["accuracy"] for spec in specs]
