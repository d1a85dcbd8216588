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

import numpy as np
import torch
from torch import Tensor, nn

from repertoire import losses, registry
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import pixels, probe, probe_accuracy, train
from repertoire.data import load
from repertoire.diagnostics import effective_rank
from repertoire.losses import ViewsLoss

DISTURBED = "digits, shifted, unevenly lit and noisy: 10 classes, 8 pixels"
PROBE = "linear-probe test accuracy"
SIDE = 8
WIDTH = 128
DIMENSIONS = 32


class _Digits(NamedTuple):
    """Images `[N, 8, 8]` and labels `[N]` to learn from and to test on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class _Network(nn.Module):
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


def _disturbed(images: Tensor, generator: torch.Generator) -> Tensor:
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


def _digits(budget: Budget, seed: int) -> _Digits:
    """Disturbed digits; those for validation are test images here, to have more of them."""
    splits = load("digits", seed=seed)
    most = budget.pick(smoke=260, small=2000, full=2000)
    generator = torch.Generator().manual_seed(seed)
    parts = [pixels(part) for part in (splits.train, splits.val, splits.test)]
    images, test = parts[0][0], torch.cat([parts[1][0], parts[2][0]])
    return _Digits(
        _disturbed(images.view(-1, SIDE, SIDE)[:most], generator),
        parts[0][1][:most],
        _disturbed(test.view(-1, SIDE, SIDE)[:most], generator),
        torch.cat([parts[1][1], parts[2][1]])[:most],
    )


def _pretrained(
    loss: ViewsLoss,
    images: Tensor,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    views: int = 2,
    start: _Network | None = None,
    teacher: float | None = None,
    prior: Tensor | None = None,
) -> _Network:
    """A network trained on images without labels.

    Args:
        start: the network to go on from; a fresh one if None.
        teacher: share of its old weights that a slowly moving copy keeps in each step, which then embeds all views but
            the first; None for no such copy.
        prior: what is known of each image, for a loss that takes it.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(start) if start is not None else _Network()
    slow = copy.deepcopy(network).requires_grad_(False) if teacher is not None else network
    loss.prepare(DIMENSIONS)
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=2e-3)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images), generator=generator).split(batch_size):
            if len(index) < batch_size:
                continue
            made = [_disturbed(images[index], generator) for _ in range(views)]
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
            if teacher is not None:
                with torch.no_grad():
                    for old, new in zip(slow.parameters(), network.parameters(), strict=True):
                        old.lerp_(new, 1 - teacher)
    return network.eval()


@torch.no_grad()
def _features(network: _Network, images: Tensor) -> Tensor:
    return network.encoder(images)


def _probed(network: _Network, data: _Digits) -> float:
    """Accuracy of a linear probe of the network's features."""
    seen, held_out = (_features(network, images).numpy() for images in (data.images, data.test_images))
    return probe(seen, data.labels.numpy(), held_out, data.test_labels.numpy())


def _epochs(budget: Budget, small: int = 40) -> int:
    return budget.pick(smoke=1, small=small, full=10 * small)


def _probes(budget: Budget, seed: int, specs: Sequence[str]) -> list[float]:
    """Accuracy of a linear probe after training with each of the losses; on a GPU a residual network on shapes."""
    if budget.name == "full":
        splits = load("shapes:count=50000,classes=8", size=32, seed=seed)
        options = {"backbone": "resnet32", "augment": "simclr:scale=(0.5,1)", "seed": seed, "device": budget.device}
        return [probe_accuracy(train(splits, loss=spec, epochs=200, **options), splits) for spec in specs]
    data = _digits(budget, seed)
    built = [registry.build("losses", spec) for spec in specs]
    networks = [_pretrained(loss, data.images, epochs=_epochs(budget), seed=seed, views=loss.views) for loss in built]
    return [_probed(network, data) for network in networks]


@claim(
    "w-mse",
    statement=(
        "Whitening keeps the squared distance between views from collapsing: a linear probe of features learned with "
        "W-MSE is at least five percentage points more accurate than one learned with the same distance alone."
    ),
    metric=PROBE,
    method="W-MSE, two views",
    baseline="squared distance of unit vectors, no whitening",
    data=DISTURBED,
    threshold=0.05,
)
def w_mse(budget: Budget, seed: int) -> Measured:
    """Ermolov et al., *Whitening for Self-Supervised Representation Learning* (2020)."""
    specs = ["w-mse:size=64", "align-uniform:uniform_weight=0", "w-mse:size=64,views=4"]
    whitened, alone, four = _probes(budget, seed, specs)
    return Measured(whitened, alone, {"W-MSE, four views": four})


@claim(
    "intl",
    statement=(
        "The loss on the trace makes the spectrum of the embeddings flatter than iterative normalisation does alone: "
        "they use more dimensions."
    ),
    metric="effective rank of test embeddings, as a share of their width",
    method="INTL",
    baseline="iterative normalisation without the loss on the trace",
    data=DISTURBED,
    threshold=0.0,
)
def intl(budget: Budget, seed: int) -> Measured:
    """Weng et al., *Modulate Your Spectrum in Self-Supervised Learning* (2023)."""
    data = _digits(budget, seed)
    ranks, extra = [], {}
    for name, weight in (("INTL", None), ("no loss on the trace", 0.0)):
        network = _pretrained(losses.INTL(trace_weight=weight), data.images, epochs=_epochs(budget), seed=seed)
        with torch.no_grad():
            ranks.append(effective_rank(network(data.test_images)) / DIMENSIONS)
        extra[f"{name}: {PROBE}"] = _probed(network, data)
    return Measured(ranks[0], ranks[1], extra)


@claim(
    "tico",
    statement=(
        "With batches of 16, a linear probe of features learned with TiCo is more accurate than one of features "
        "learned with Barlow Twins for equally long."
    ),
    metric=PROBE,
    method="TiCo with its slowly moving teacher",
    baseline="Barlow Twins",
    data=DISTURBED,
    threshold=0.0,
)
def tico(budget: Budget, seed: int) -> Measured:
    """Zhu et al., *TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning* (2022)."""
    data = _digits(budget, seed)
    options = {"epochs": _epochs(budget, small=10), "seed": seed, "batch_size": 16}
    ours = _probed(_pretrained(losses.TiCo(), data.images, teacher=0.99, **options), data)  # type: ignore[arg-type]
    theirs = _probed(_pretrained(losses.BarlowTwins(), data.images, **options), data)  # type: ignore[arg-type]
    return Measured(ours, theirs)


@claim(
    "e2mc",
    statement=(
        "A few more epochs with entropy maximisation added to the loss give features with a more accurate linear probe "
        "than as many more epochs with the loss alone."
    ),
    metric=PROBE,
    method="VICReg, then VICReg plus entropy maximisation",
    baseline="VICReg, then VICReg",
    data=DISTURBED,
    threshold=0.0,
)
def e2mc(budget: Budget, seed: int) -> Measured:
    """Chakraborty et al., *Improving Pre-Trained Self-Supervised Embeddings Through Effective Entropy Maximization*
    (2024)."""
    data = _digits(budget, seed)
    start = _pretrained(losses.VICReg(), data.images, epochs=_epochs(budget), seed=seed)
    scores = [
        _probed(_pretrained(loss, data.images, epochs=_epochs(budget, small=10), seed=seed + 1, start=start), data)
        for loss in (losses.EntropyMaximization(), losses.VICReg())
    ]
    return Measured(scores[0], scores[1], {"before": _probed(start, data)})


@claim(
    "dcl",
    statement=(
        "With ten classes, and a prior that says so, a linear probe of features learned with the debiased contrastive "
        "loss is more accurate than one of features learned with the same loss without the correction."
    ),
    metric=PROBE,
    method="debiased contrastive loss, prior 0.1",
    baseline="prior 0, which is NT-Xent",
    data=DISTURBED,
    threshold=0.0,
)
def dcl(budget: Budget, seed: int) -> Measured:
    """Chuang et al., *Debiased Contrastive Learning* (2020)."""
    specs = [f"debiased-contrastive:class_prior={prior}" for prior in (0.1, 0.0)]
    debiased, plain, hard = _probes(budget, seed, [*specs, "debiased-contrastive:class_prior=0.1,hardness=1"])
    return Measured(debiased, plain, {"and hard negatives": hard})


@claim(
    "kernel-infonce",
    statement=(
        "A linear probe of features learned with a sum of a Gaussian and a Laplacian kernel in InfoNCE is more "
        "accurate than one of features learned with the Gaussian kernel alone."
    ),
    metric=PROBE,
    method="sum of Gaussian and Laplacian kernel",
    baseline="Gaussian kernel, which is NT-Xent",
    data=DISTURBED,
    threshold=0.0,
)
def kernel_info_nce(budget: Budget, seed: int) -> Measured:
    """Tan et al., *Contrastive Learning Is Spectral Clustering On Similarity Graph* (2023)."""
    mixture, gaussian, laplacian = _probes(
        budget, seed, [f"kernel-info-nce:kernel={kernel}" for kernel in ("sum", "gaussian", "laplacian")]
    )
    return Measured(mixture, gaussian, {"Laplacian kernel": laplacian})


#: Digits with a closed loop, round at the top, with a straight stroke, round at the bottom.
ATTRIBUTES = ((0, 6, 8, 9), (0, 2, 3, 8, 9), (1, 4, 5, 7), (0, 3, 5, 6, 8))


def _weak_attributes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Four attributes of each digit, 1 or -1, a tenth of them wrong: float `[N, 4]`."""
    true = torch.stack([torch.isin(labels, torch.tensor(digits)) for digits in ATTRIBUTES], 1)
    wrong = torch.rand(true.shape, generator=generator) < 0.1
    return 2.0 * (true ^ wrong) - 1.0


@claim(
    "decoupled-uniformity",
    statement=(
        "Weak attributes, a tenth of them wrong, smooth the mean views of decoupled uniformity so that a linear probe "
        "of the features is more accurate than without them."
    ),
    metric=PROBE,
    method="decoupled uniformity with a kernel on weak attributes",
    baseline="decoupled uniformity",
    data=DISTURBED,
    threshold=0.0,
)
def decoupled_uniformity(budget: Budget, seed: int) -> Measured:
    """Dufumier et al., *Integrating Prior Knowledge in Contrastive Learning with Kernel* (2023)."""
    data = _digits(budget, seed)
    generator = torch.Generator().manual_seed(seed)
    attributes = _weak_attributes(data.labels, generator)
    shuffled = attributes[torch.randperm(len(attributes), generator=generator)]
    options = {"epochs": _epochs(budget), "seed": seed}
    scores = [
        _probed(_pretrained(losses.DecoupledUniformity(), data.images, prior=prior, **options), data)  # type: ignore[arg-type]
        for prior in (attributes, None, shuffled)
    ]
    return Measured(scores[0], scores[1], {"attributes of other images": scores[2]})


def _neighbours_agree(network: _Network, data: _Digits, count: int = 5) -> float:
    """Accuracy of the majority among the nearest training images, by the cosine of features."""
    seen, held_out = (
        nn.functional.normalize(_features(network, images), dim=1) for images in (data.images, data.test_images)
    )
    nearest = data.labels[(held_out @ seen.T).topk(count, 1).indices]
    return float((nearest.mode(1).values == data.test_labels).float().mean())


@claim(
    "groco",
    statement=(
        "The five nearest neighbours of a test image, by features learned with group ordering constraints, name its "
        "class more often than by features learned with NT-Xent."
    ),
    metric="accuracy of five nearest neighbours",
    method="GroCo, two views",
    baseline="NT-Xent at temperature 0.2",
    data=DISTURBED,
    threshold=0.0,
)
def groco(budget: Budget, seed: int) -> Measured:
    """Shvetsova et al., *Learning by Sorting: Self-supervised Learning with Group Ordering Constraints* (2023)."""
    data = _digits(budget, seed)
    networks = {
        name: _pretrained(loss, data.images, epochs=_epochs(budget), seed=seed)
        for name, loss in (("GroCo", losses.GroCo()), ("NT-Xent", losses.NTXent(0.2)))
    }
    scores = [_neighbours_agree(network, data) for network in networks.values()]
    probed = {f"{name}: {PROBE}": _probed(network, data) for name, network in networks.items()}
    return Measured(scores[0], scores[1], probed)


def _long_tail(labels: Tensor, seed: int) -> Tensor:
    """Which images to keep so that, in a random order, each digit is two thirds as frequent as the one before."""
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for rank, digit in enumerate(torch.randperm(10, generator=generator).tolist()):
        members = (labels == digit).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        kept.append(members[: max(3, round(len(members) * (2 / 3) ** rank))])
    return torch.cat(kept)


@claim(
    "isogclr",
    statement=(
        "On a long tail of classes, a linear probe of features learned with a temperature for every sample is more "
        "accurate than one of features learned with NT-Xent at the best of three temperatures."
    ),
    metric=PROBE,
    method="individual temperatures, batches of 64",
    baseline="NT-Xent at 0.1, 0.2 or 0.5, whichever is best",
    data="digits as a long tail, shifted, unevenly lit and noisy; probe and test of all digits",
    threshold=0.0,
)
def isogclr(budget: Budget, seed: int) -> Measured:
    """Qiu et al., *Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
    Individualization* (2023)."""
    data = _digits(budget, seed)
    kept = _long_tail(data.labels, seed)
    options = {"epochs": _epochs(budget, small=60), "seed": seed, "batch_size": 64}
    individual = losses.IndividualTemperatures(len(kept), temperature=0.2)
    ours = _probed(_pretrained(individual, data.images[kept], **options), data)  # type: ignore[arg-type]
    theirs = [_probed(_pretrained(losses.NTXent(t), data.images[kept], **options), data) for t in (0.1, 0.2, 0.5)]  # type: ignore[arg-type]
    frequency = data.labels[kept].bincount(minlength=10)[data.labels[kept]].double().log()
    correlation = np.corrcoef(frequency.numpy(), individual.temperatures.double().numpy())[0, 1]
    # Without a step taken all temperatures are the same, and nothing correlates with them.
    extra = {"correlation of temperature and log frequency": float(np.nan_to_num(correlation))}
    extra.update({f"NT-Xent at {t}": score for t, score in zip((0.1, 0.2, 0.5), theirs, strict=True)})
    return Measured(ours, max(theirs), extra)
