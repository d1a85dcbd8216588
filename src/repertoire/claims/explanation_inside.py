"""Claims of papers on explanation from inside the network, by its parts or by examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, new_method, resolved, train
from repertoire.data import ImageSet, Loader, Splits, load, plain
from repertoire.explain import (
    Basis,
    GradCAM,
    LinearModel,
    PrototypeParts,
    activation_patching,
    energy_inside,
    estimated_patching,
    fit_linear,
    interaction_edges,
    local_interaction_basis,
    mask_intersection,
    representers,
)
from repertoire.methods import Classifier, Method
from repertoire.train._optim import learning_rate, make_optimizer, schedule


def _pieces(images: ImageSet, device: str, size: int = 256) -> list[tuple[Tensor, Tensor, Tensor]]:
    """All images in [0, 1], labels and object masks of a set, piece by piece."""
    found = []
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        arrays = (images.pixels(rows), images.labels[rows], images.object_masks(rows))
        pixels, labels, masks = (torch.from_numpy(array).to(device) for array in arrays)
        found.append((plain(pixels), labels, masks))
    return found


def _train_with_masks(splits: Splits, **fields: Any) -> Method:
    """As `train`, with masks in the batches for a method that wants them."""
    config = resolved(splits, **fields)
    method, rule = new_method(splits, config), registry.build("rules", config.rule)
    rule.setup(method, lambda module: make_optimizer(config, module), clip=config.clip)
    loader = Loader(
        splits.train,
        config.batch_size,
        augmentation=registry.build("augmentations", config.augment),
        masks=method.needs_masks,
        seed=config.seed,
        device=config.device,
    )
    method.train()
    for epoch in range(config.epochs):
        for step, batch in enumerate(loader.epoch(epoch), start=epoch * loader.steps_per_epoch):
            rate = learning_rate(config) * schedule(config, step, loader.steps_per_epoch)
            for optimizer in rule.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            rule.step(method, batch)
    return method.eval()


def _looks(model: Classifier, images: ImageSet, device: str) -> tuple[float, float]:
    """How Grad-CAM of the true class, and the attention of the last stage, overlap with the object."""
    cam, cams, attentions = GradCAM(), [], []
    for pixels, labels, masks in _pieces(images, device):
        cams.append(mask_intersection(cam(model, pixels, labels), masks))
        with torch.no_grad():
            attention = model.backbone.grid(model.backbone.forward_map(model.normalize(pixels))).mean(1)
        large = F.interpolate(attention[:, None], pixels.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        attentions.append(mask_intersection(large, masks))
    return torch.cat(cams).mean().item(), torch.cat(attentions).mean().item()


@claim(
    "au-guided-fer",
    statement=(
        "Aligning the attention of the last stage with the objects' masks while training makes Grad-CAM overlap with "
        "the object more than it does after plain training."
    ),
    metric="intersection over union of Grad-CAM and the object's mask",
    method="guided training",
    baseline="supervised training",
    data="shapes: 6 classes, 32 pixels, a background tied to the class in training only",
    threshold=0.0,
    seeds={"small": 3, "full": 3},
)
def guided(budget: Budget, seed: int) -> Measured:
    """Belharbi et al., *Guided Interpretable Facial Expression Recognition via Spatial Action Unit Cues* (2024).

    Grad-CAM decides because it is not what is trained. In `extra` are the attention that is trained, accuracy where the
    background is tied to the class as in training and where it is random, and, as a control, training with the masks of
    other images.
    """
    count = budget.pick(smoke=120, small=1500, full=20_000)
    splits = load(f"shapes:count={count},correlation=0.9", size=32, seed=seed)
    other = np.random.default_rng(seed).permutation(len(splits.train))
    shuffled = replace(splits, train=replace(splits.train, masks=splits.train.object_masks(other)))
    fields = {
        "backbone": budget.pick(smoke="convnet:width=2,depth=2", small="resnet20:width=8", full="resnet32"),
        "augment": "crop-flip",
        "epochs": budget.pick(smoke=1, small=10, full=60),
        "seed": seed,
        "device": budget.device,
    }
    methods = {
        "guided": _train_with_masks(splits, method="guided", **fields),
        "supervised": _train_with_masks(splits, method="supervised", **fields),
        "masks of others": _train_with_masks(shuffled, method="guided", **fields),
    }
    cams, extra = {}, {}
    for name, method in methods.items():
        cams[name], extra[f"{name}, attention"] = _looks(method.model, splits.test, budget.device)
        extra[f"{name}, accuracy, random background"] = accuracy(method, splits.test)
        extra[f"{name}, accuracy, tied background"] = accuracy(method, splits.val)
    return Measured(cams["guided"], cams["supervised"], {"masks of others": cams["masks of others"], **extra})


def _parts_inside(model: Classifier, images: ImageSet, name: str, device: str) -> float:
    """The share of the activation of one set of prototypes of the true class that falls on the object."""
    show = PrototypeParts(sets=name, normalize=False)  # type: ignore[arg-type]
    shares = [energy_inside(show(model, pixels, labels), masks) for pixels, labels, masks in _pieces(images, device)]
    return torch.cat(shares).mean().item()


@claim(
    "st-protopnet",
    statement=(
        "Support and trivial prototypes together classify better than either set by itself, whichever of the two is "
        "better."
    ),
    metric="test accuracy",
    method="support and trivial prototypes",
    baseline="support or trivial prototypes alone, the better",
    data="shapes: 6 classes, 32 pixels",
    threshold=0.0,
    seeds={"small": 3, "full": 3},
)
def support_trivial(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023).

    Each network takes as many steps. Trivial prototypes alone are a ProtoPNet with cosines, whose prototypes are driven
    apart. In `extra` is the share of the prototypes' activation that falls on the object, for either set of the whole.
    """
    splits = load(f"shapes:count={budget.pick(smoke=90, small=1000, full=20_000)}", size=32, seed=seed)
    accuracies, extra = {}, {}
    for sets in ("both", "support", "trivial"):
        method = train(
            splits,
            method="support-trivial",
            head=f"support-trivial:sets={sets}",
            backbone=budget.pick(smoke="convnet:width=2,depth=2", small="resnet20:width=8", full="resnet32"),
            augment="crop-flip",
            epochs=budget.pick(smoke=1, small=8, full=60),
            seed=seed,
            device=budget.device,
        )
        accuracies[sets] = accuracy(method, splits.test)
        for name in ("support", "trivial") if sets == "both" else ():
            extra[f"{name}, share inside the object"] = _parts_inside(method.model, splits.test, name, budget.device)
    alone = {f"{name} alone": accuracies[name] for name in ("support", "trivial")}
    return Measured(accuracies["both"], max(alone.values()), {**alone, **extra})


def _sparse_problem(count: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Correlated features of which one in fifty matters, and the noisy label of two classes."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    mixing = torch.randn(10, width, generator=generator, dtype=torch.float64)
    own = torch.randn(count, width, generator=generator, dtype=torch.float64)
    features = 0.7 * own + 0.3 * (shared @ mixing)
    kept = torch.randperm(width, generator=generator)[: max(4, width // 50)]
    weights = torch.randn(len(kept), generator=generator, dtype=torch.float64)
    scores = features[:, kept] @ weights
    noise = 0.5 * scores.std() * torch.randn(count, generator=generator, dtype=torch.float64)
    return features, (scores + noise > scores.median()).long()


def _influence(model: LinearModel, features: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """What leaving a sample out takes from the logit of each query, to first order on the support: `[m, n]`."""
    kept = (model.coef[0] != 0).nonzero().flatten()
    rows = torch.cat([features[:, kept], features.new_ones(len(features), 1)], 1)
    asked = torch.cat([queries[:, kept], queries.new_ones(len(queries), 1)], 1)
    likely = model(features)[:, 0].sigmoid()
    curvature = (rows.T * (likely * (1 - likely))) @ rows
    curvature += 1e-6 * curvature.diagonal().mean() * torch.eye(len(curvature), dtype=rows.dtype)
    return -(asked @ torch.linalg.solve(curvature, rows.T)) * (likely - targets)


@claim(
    "high-dim-representers",
    statement=(
        "Without the twentieth of the training samples that high-dimensional representers rank first for a prediction, "
        "the refitted sparse model is less sure of it than without those that l2 representers rank first, or random "
        "ones, whichever is worse for the prediction."
    ),
    metric="fall of the predicted class's logit when the model is refitted without the samples",
    method="representers of the l1-regularised model",
    baseline="l2 representers or random samples, the larger fall",
    data="synthetic: 300 samples, 500 correlated features of which 10 matter",
    threshold=0.0,
)
def high_dim_representers(budget: Budget, seed: int) -> Measured:
    """Tsai et al., *Representer Point Selection for Explaining Regularized High-dimensional Models* (2023).

    Influence functions on the support, which ask directly what is measured here, are in `extra`; so is the largest
    difference between a logit and the sum of its shares.
    """
    count, width = budget.pick(smoke=(80, 40), small=(300, 500), full=(2000, 5000))
    asked, strength = budget.pick(smoke=2, small=20, full=50), 0.02
    features, targets = _sparse_problem(count + asked, width, seed)
    queries, features, targets = features[count:], features[:count], targets[:count]
    model = fit_linear(features, targets, strength=strength)
    ridge = fit_linear(features, targets, strength=strength, penalty="l2")
    logits = model(queries)[:, 0]
    towards = torch.where(logits >= 0, 1.0, -1.0)[:, None]
    sparse = representers(model, features, targets).contributions(queries, 0)
    generator = torch.Generator().manual_seed(seed)
    ranks = {
        "l1": sparse * towards,
        "l2": representers(ridge, features, targets).contributions(queries, 0) * towards,
        "random": torch.rand(asked, count, generator=generator),
        "influence": _influence(model, features, targets, queries) * towards,
    }
    falls = dict.fromkeys(ranks, 0.0)
    for name, values in ranks.items():
        for query in range(asked):
            kept = torch.ones(count, dtype=torch.bool)
            kept[values[query].topk(count // 20).indices] = False
            again = fit_linear(features[kept], targets[kept], strength=strength, start=model, tolerance=1e-4)
            moved = float((logits[query] - again(queries[query : query + 1])[0, 0]) * towards[query, 0])
            falls[name] += moved / asked
    gap = float((sparse.sum(1) + model.intercept[0] - logits).abs().max())
    ours = falls.pop("l1")
    extra = {**falls, "gap of the sum": gap, "features kept": float((model.coef != 0).sum())}
    return Measured(ours, max(falls["l2"], falls["random"]), extra)


def _correlation(estimates: dict[str, Tensor], effects: dict[str, Tensor]) -> float:
    """Pearson correlation over all components, their pieces and all samples."""
    found, true = (torch.cat([one.flatten() for one in some.values()]).double() for some in (estimates, effects))
    return float(torch.corrcoef(torch.stack([found, true]))[0, 1])


@claim(
    "relp",
    statement=(
        "Relevance patching is closer to activation patching of a transformer's MLP outputs than attribution patching, "
        "which uses the gradient."
    ),
    metric="Pearson correlation with activation patching, over layers, tokens and samples",
    method="relevance patching",
    baseline="attribution patching",
    data="digits: pairs of two classes; a transformer of 6 layers",
    threshold=0.0,
    seeds={"small": 3, "full": 3},
)
def relp(budget: Budget, seed: int) -> Measured:
    """Jafari et al., *RelP: Faithful and Efficient Circuit Discovery via Relevance Patching* (2025).

    An image's logit against that of the class of another image, which is patched in token by token. In `extra` are the
    correlations for the residual stream.
    """
    splits = load("digits", seed=seed)
    depth = budget.pick(smoke=2, small=6, full=12)
    method = train(
        splits,
        backbone=f"vit:patch=2,dim={budget.pick(smoke=16, small=32, full=96)},depth={depth},heads=2",
        optimizer="adamw",
        augment="none",
        batch_size=budget.pick(smoke=128, small=32, full=32),
        epochs=budget.pick(smoke=1, small=25, full=60),
        seed=seed,
        device=budget.device,
    )
    count = budget.pick(smoke=16, small=100, full=300)
    images = plain(torch.from_numpy(splits.test.pixels(np.arange(count)))).to(budget.device)
    labels = torch.from_numpy(splits.test.labels[:count]).to(budget.device)
    # The partner of each image is the next one of another class.
    order = torch.arange(count, device=labels.device)
    later = (order[None] - order[:, None] - 1) % count
    partner = torch.where(labels[None] != labels[:, None], later, count).argmin(1)

    def margin(logits: Tensor) -> Tensor:
        return (logits.gather(1, labels[:, None]) - logits.gather(1, labels[partner][:, None]))[:, 0]

    blocks = [f"backbone.blocks.{i}" for i in range(1, depth)] + [f"backbone.blocks.{depth}.0"]
    given = method.model, images, images[partner], margin
    found = {}
    for place, names in (("MLP outputs", [f"{name}.mlp" for name in blocks]), ("residual stream", blocks)):
        effects = activation_patching(*given, names, axis=1)
        for rule in ("relevance", "gradient"):
            estimates = estimated_patching(*given, names, axis=1, rule=rule)
            found[f"{rule}, {place}"] = _correlation(estimates, effects)
    ours, plainly = found.pop("relevance, MLP outputs"), found.pop("gradient, MLP outputs")
    return Measured(ours, plainly, {**found, "test accuracy": accuracy(method, splits.test)})


def _sums(modulus: int) -> tuple[Tensor, Tensor]:
    """All pairs of numbers as two ones in `[modulus ** 2, 2 * modulus]`, and their sums."""
    a, b = (part.flatten() for part in torch.meshgrid(torch.arange(modulus), torch.arange(modulus), indexing="ij"))
    return torch.cat([F.one_hot(a, modulus), F.one_hot(b, modulus)], 1).float(), (a + b) % modulus


def _accuracy_of_few(net: nn.Sequential, inputs: Tensor, targets: Tensor, bases: Sequence[Basis]) -> float:
    """Mean accuracy when a hidden layer is left with its first 1, 2, 4, ... directions; of layers and numbers."""
    found = []
    with torch.no_grad():
        for number in range(1, len(net)):
            f = net[:number](inputs)
            for count in (2**i for i in range(16) if 2**i <= f.shape[1]):
                y = net[number:](bases[number].kept(f.double(), count).float())
                found.append((y.argmax(1) == targets).float().mean())
    return float(torch.stack(found).mean())


def _edges_for(edges: Sequence[Tensor], share: float = 0.9) -> float:
    """The share of edges, mean over the layers, that hold so much of a layer's total weight."""
    kept = []
    for layer in edges:
        values = layer.flatten().sort(descending=True).values
        enough = int((values.cumsum(0) < share * values.sum()).sum()) + 1
        kept.append(enough / len(values))
    return sum(kept) / len(kept)


@claim(
    "local-interaction-basis",
    statement=(
        "A network that adds modulo a prime keeps more of its accuracy with a few directions of the local interaction "
        "basis in a hidden layer than with as many principal components."
    ),
    metric="accuracy with 1, 2, 4, ... directions left in one hidden layer, mean over these and layers",
    method="local interaction basis",
    baseline="principal components",
    data="all sums modulo 23",
    threshold=0.0,
)
def interaction_basis(budget: Budget, seed: int) -> Measured:
    """Bushnaq et al., *The Local Interaction Basis: Identifying Computationally-Relevant and Sparsely Interacting
    Features in Neural Networks* (2024).

    In `extra`, the share of the interactions that hold nine tenths of their total, in either basis: fewer is sparser.
    """
    inputs, targets = _sums(budget.pick(smoke=7, small=23, full=59))
    width = budget.pick(smoke=16, small=64, full=256)
    net = nn.Sequential(
        nn.Linear(inputs.shape[1], width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, inputs.shape[1] // 2),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(budget.pick(smoke=20, small=1500, full=10_000)):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    accuracies, extra = {}, {}
    for name in ("lib", "pca"):
        bases = local_interaction_basis(net, inputs, method=name)
        accuracies[name] = _accuracy_of_few(net, inputs, targets, bases)
        extra[f"{name}, share of edges"] = _edges_for(interaction_edges(net, bases, inputs))
    extra["accuracy"] = float((net(inputs).argmax(1) == targets).float().mean())
    return Measured(accuracies["lib"], accuracies["pca"], extra)
