"""Claims of papers on how features, networks and data are looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron, pixels, probe, rotated_digits
from repertoire.data import load
from repertoire.diagnostics import (
    activation_sparsity,
    fisher_ratio,
    hierarchy,
    label_mapping,
    lpntk,
    macro_std,
    merge_features,
    mixed_layout,
    orthogonal_frame,
    persistence_separability,
    rotation_probe,
    sensitivity_sample,
    stitching,
    weak_subgroups,
)
from repertoire.losses import NTXent

DIGITS = "digits"


def _digits(seed: int, device: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test digits as rows, with their labels."""
    splits = load("digits", seed=seed)
    seen, unseen = pixels(splits.train), pixels(splits.test)
    return (seen[0].to(device), seen[1].to(device)), (unseen[0].to(device), unseen[1].to(device))


def _fitted(seed: int, x: Tensor, y: Tensor, width: int, epochs: int, outputs: int = 10) -> nn.Module:
    """A perceptron trained with cross-entropy from weights that are a function of the seed."""
    torch.manual_seed(seed)
    return fit_tensors(perceptron(x.shape[1], outputs, width).to(x.device), x, y, F.cross_entropy, epochs=epochs)


@torch.no_grad()
def _accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((network(x).argmax(1) == y).float().mean())


@torch.no_grad()
def _hidden(network: nn.Module, x: Tensor) -> Tensor:
    """The features before the last layer of a chain."""
    assert isinstance(network, nn.Sequential)
    return network[:-1](x)


@claim(
    "neural-collapse-linear",
    statement=(
        "The class means of a network without biases, trained by the squared error on imbalanced classes, are nearer "
        "to an orthogonal frame whose lengths follow the sizes of the classes than to one of equal lengths."
    ),
    metric="distance of the normalised Gram matrix of the class means from the predicted one",
    method="lengths by the size of the class",
    baseline="equal lengths",
    data="digits, of which class k keeps a share of 0.75 to the power k",
    threshold=0.0,
    higher_is_better=False,
)
def imbalanced_frame(budget: Budget, seed: int) -> Measured:
    """Dang et al., *Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data* (2023)."""
    (x, y), _ = _digits(seed, budget.device)
    most = int(torch.bincount(y).min())
    kept = torch.cat([(y == k).nonzero().squeeze(1)[: max(2, round(most * 0.75**k))] for k in range(10)])
    x, y = x[kept], y[kept]
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(64, 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False), nn.ReLU(),
        nn.Linear(256, 10, bias=False),
    ).to(budget.device)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    targets = F.one_hot(y, 10).float()
    fit_tensors(network, x, targets, F.mse_loss, epochs=budget.pick(smoke=2, small=300, full=2000), optimizer=optimizer)
    h = _hidden(network, x).double()
    counts = torch.bincount(y, minlength=10)
    means = torch.stack([h[y == k].mean(0) for k in range(10)])
    gram = means @ means.T
    gram = gram / gram.norm()

    def distance(lengths: Tensor) -> float:
        return float((gram - torch.diag(lengths / lengths.norm())).norm())

    cosines = F.normalize(means) @ F.normalize(means).T
    off = cosines.abs().sum() - cosines.diagonal().sum()
    within = float((h - means[y]).square().sum() / (h - h.mean(0)).square().sum())
    lengths = orthogonal_frame(counts.cpu()).features.to(gram)
    extra = {"mean cosine of class means": float(off / 90), "share of variance within classes": within}
    return Measured(distance(lengths), distance(torch.ones_like(lengths)), extra)


@claim(
    "mixup-neural-collapse",
    statement=(
        "Features of mixed images deviate more from the blend of their two class means when mixup is trained with "
        "cross-entropy than when it is trained with the squared error."
    ),
    metric="distance of mixed features from the blend, relative to that of the class means",
    method="mixup with cross-entropy",
    baseline="mixup with the squared error",
    data=DIGITS,
    threshold=0.0,
)
def mixed_features(budget: Budget, seed: int) -> Measured:
    """Fisher, Meng and Papyan, *Pushing Boundaries: Mixup's Influence on Neural Collapse* (2024)."""
    (x, y), (u, v) = _digits(seed, budget.device)
    epochs = budget.pick(smoke=1, small=60, full=500)
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cross-entropy": F.cross_entropy,
        "squared error": F.mse_loss,
    }
    found, extra = {}, {}
    for name, loss in losses.items():
        network = _mixed_up(seed, x, y, loss, epochs)
        found[name] = _deviation(network, x, y, seed)
        extra[f"test accuracy, {name}"] = _accuracy(network, u, v)
    plain = _fitted(seed, x, y, 128, epochs)
    extra["deviation without mixup"] = _deviation(plain, x, y, seed)
    return Measured(found["cross-entropy"], found["squared error"], extra)


def _mixed_up(seed: int, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    network = perceptron(x.shape[1], 10).to(x.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5)
    targets = F.one_hot(y, 10).float()
    for _ in range(epochs):
        for index in torch.randperm(len(x), device=x.device).split(64):
            other, share = index[torch.randperm(len(index))], torch.rand(len(index), 1, device=x.device)
            mixed = share * x[index] + (1 - share) * x[other]
            optimizer.zero_grad()
            loss(network(mixed), share * targets[index] + (1 - share) * targets[other]).backward()
            optimizer.step()
    return network.eval()


def _deviation(network: nn.Module, x: Tensor, y: Tensor, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(len(x), (4000,), generator=generator).to(x.device) for _ in range(2))
    differ = y[first] != y[second]
    first, second = first[differ], second[differ]
    share = torch.rand(len(first), generator=generator).to(x.device)
    h = _hidden(network, x)
    means = torch.stack([h[y == k].mean(0) for k in range(10)])
    mixed = _hidden(network, share[:, None] * x[first] + (1 - share[:, None]) * x[second])
    assert isinstance(network, nn.Sequential)
    weight = network[-1].weight
    assert isinstance(weight, Tensor)
    return mixed_layout(mixed, share, y[first], y[second], means, weight.detach()).deviation


@claim(
    "lazy-neuron",
    statement="Training makes units silent: fewer are active for an image, by a tenth of all units, than before it.",
    metric="share of active units behind the last ReLU",
    method="trained network",
    baseline="the same network before training",
    data=DIGITS,
    threshold=0.1,
    higher_is_better=False,
)
def lazy_neurons(budget: Budget, seed: int) -> Measured:
    """Li et al., *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022)."""
    (x, y), (u, _) = _digits(seed, budget.device)
    epochs, width = budget.pick(smoke=1, small=60, full=300), budget.pick(smoke=64, small=512, full=2048)
    before = activation_sparsity(_fitted(seed, x, y, width, 0), u)[-1].active
    after = activation_sparsity(_fitted(seed, x, y, width, epochs), u)[-1].active
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)]
    random = activation_sparsity(_fitted(seed, x, shuffled, width, epochs), u)[-1].active
    narrow = activation_sparsity(_fitted(seed, x, y, width // 8, epochs), u)[-1].active
    return Measured(after, before, {"random labels": random, "an eighth of the width": narrow})


@claim(
    "ifm",
    statement=(
        "When half of the channels of each layer are merged by their incoming weights, without data, more test "
        "accuracy is left than when the half with the smallest incoming weights is cut out."
    ),
    metric="test accuracy with half of the channels",
    method="iterative feature merging",
    baseline="pruning by magnitude",
    data=DIGITS,
    threshold=0.0,
)
def merged_channels(budget: Budget, seed: int) -> Measured:
    """Chen, Zhou and Yan, *Going Beyond Neural Network Feature Similarity: The Network Feature Complexity and Its
    Interpretation Using Category Theory* (2023)."""
    (x, y), (u, v) = _digits(seed, budget.device)
    width = budget.pick(smoke=32, small=256, full=1024)
    network = _fitted(seed, x, y, width, budget.pick(smoke=1, small=40, full=200))
    assert isinstance(network, nn.Sequential)
    extra = {"test accuracy of the whole": _accuracy(network, u, v)}
    for share in (0.75, 0.25):
        extra[f"merged to {share:.0%}"] = _accuracy(merge_features(network, share=share), u, v)
        extra[f"pruned to {share:.0%}"] = _accuracy(_pruned(network, share), u, v)
    return Measured(_accuracy(merge_features(network, share=0.5), u, v), _accuracy(_pruned(network, 0.5), u, v), extra)


@torch.no_grad()
def _pruned(network: nn.Sequential, share: float) -> nn.Sequential:
    """The network with the channels of least incoming weights switched off, their share as `merge_features` has it."""
    modules = []
    silent = torch.zeros(0, dtype=torch.int64)
    layers = [i for i, module in enumerate(network) if isinstance(module, nn.Linear)]
    for i, module in enumerate(network):
        if not isinstance(module, nn.Linear):
            modules.append(module)
            continue
        copy = nn.Linear(module.in_features, module.out_features).to(module.weight)
        copy.load_state_dict(module.state_dict())
        copy.weight[:, silent] = 0
        if i != layers[-1]:
            size = module.weight.square().sum(1) + module.bias.square()
            keep = max(1, round(share * len(size)))
            silent = size.argsort()[: len(size) - keep]
        modules.append(copy)
    return nn.Sequential(*modules).eval()


@claim(
    "relative-representations",
    statement=(
        "A classifier of one network's relative representations is more accurate, by 0.3, on those of a network "
        "trained from another seed than a classifier of the representations as they are."
    ),
    metric="test accuracy of a classifier of the first network on the second",
    method="relative to 100 anchors",
    baseline="features as they are",
    data=DIGITS,
    threshold=0.3,
)
def relative(budget: Budget, seed: int) -> Measured:
    """Moschella et al., *Relative Representations Enable Zero-Shot Latent Space Communication* (2022)."""
    (x, y), (u, v) = _digits(seed, budget.device)
    epochs = budget.pick(smoke=1, small=30, full=200)
    networks = [_fitted(2 * seed + k, x, y, 128, epochs) for k in range(2)]
    first, second = (tuple(_hidden(network, rows).cpu() for network in networks) for rows in (x, u))
    found = stitching((first[0], first[1]), y.cpu(), (second[0], second[1]), v.cpu(), anchors=100, seed=seed)
    assert found.absolute is not None
    return Measured(found.relative, found.absolute, {"within one network": found.own, "chance": found.chance})


@claim(
    "persistence-separability",
    statement=(
        "Over the epochs of training, the label-free score of separability follows Fisher's ratio of the classes more "
        "closely than the silhouette of a k-means clustering does."
    ),
    metric="rank correlation with Fisher's ratio over training",
    method="mean normalised persistence, negated",
    baseline="silhouette of k-means",
    data=DIGITS,
    threshold=0.0,
)
def persistence(budget: Budget, seed: int) -> Measured:
    """Ghalyan et al., *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs
    Fine-Tuning* (2023)."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    (x, y), (u, v) = _digits(seed, budget.device)
    torch.manual_seed(seed)
    network = perceptron(64, 10).to(budget.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    truth, scores, silhouettes, accuracies = [], [], [], []
    for _ in range(budget.pick(smoke=3, small=16, full=40)):
        h = F.normalize(_hidden(network, u)).cpu()
        truth.append(fisher_ratio(h, v.cpu()))
        scores.append(-persistence_separability(h))
        clusters = KMeans(10, n_init=1, random_state=seed).fit_predict(h.numpy())
        silhouettes.append(float(silhouette_score(h.numpy(), clusters)))
        accuracies.append(_accuracy(network, u, v))
        fit_tensors(network, x, y, F.cross_entropy, epochs=1, optimizer=optimizer)
    extra = {"with test accuracy": float(spearmanr(scores, accuracies).statistic)}
    method, baseline = (float(spearmanr(values, truth).statistic) for values in (scores, silhouettes))
    return Measured(method, baseline, extra)


@claim(
    "selfaugment",
    statement=(
        "Over augmentation policies, the accuracy of a rotation probe ranks encoders trained without labels more as "
        "a probe with labels does than their contrastive loss does."
    ),
    metric="rank correlation with the accuracy of a probe with labels",
    method="rotation probe",
    baseline="contrastive loss, negated",
    data="digits, eight policies of shifts, noise and erasing",
    threshold=0.0,
)
def rotation(budget: Budget, seed: int) -> Measured:
    """Reed et al., *SelfAugment: Automatic Augmentation Policies for Self-Supervised Learning* (2021)."""
    (x, y), (u, v) = _digits(seed, budget.device)
    policies = [(shift, noise, erase) for shift in (0, 1) for noise in (0.05, 0.4) for erase in (0.0, 0.4)]
    policies = policies[: budget.pick(smoke=3, small=8, full=8)]
    epochs = budget.pick(smoke=1, small=8, full=50)
    turned, losses, labelled = [], [], []
    for policy in policies:
        network, loss = _contrastive(seed, x, policy, epochs)

        def embed(images: Tensor, network: nn.Sequential = network) -> Tensor:
            return network[:-1](images.flatten(1))

        turned.append(rotation_probe(embed, x.view(-1, 1, 8, 8), seed=seed))
        losses.append(-loss)
        rows = [_hidden(network, part).cpu().numpy() for part in (x, u)]
        labelled.append(probe(rows[0], y.cpu().numpy(), rows[1], v.cpu().numpy()))
    method, baseline = (float(np.nan_to_num(spearmanr(values, labelled).statistic)) for values in (turned, losses))
    return Measured(method, baseline, {"best probe": max(labelled), "worst probe": min(labelled)})


def _contrastive(seed: int, x: Tensor, policy: tuple[int, float, float], epochs: int) -> tuple[nn.Sequential, float]:
    """An encoder with a projection as its last layer, trained on pairs of views, and its loss in the last epoch."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 32))
    network = network.to(x.device)
    criterion = NTXent(temperature=0.2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    total, steps = 0.0, 0
    for epoch in range(epochs):
        for index in torch.randperm(len(x), device=x.device).split(128):
            loss = criterion(network(_view(x[index], *policy)), network(_view(x[index], *policy)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if epoch == epochs - 1:
                total, steps = total + float(loss.detach()), steps + 1
    return network.eval(), total / max(1, steps)


def _view(rows: Tensor, shift: int, noise: float, erase: float) -> Tensor:
    square = rows.view(-1, 8, 8)
    if shift:
        by = torch.randint(-shift, shift + 1, (2,)).tolist()
        square = torch.roll(square, by, (1, 2))
    kept = torch.rand(len(rows), 8, 8, device=rows.device) >= erase
    return ((square + noise * torch.randn_like(square)) * kept).flatten(1)


@claim(
    "dendromap",
    statement=(
        "The worst subgroup of a tree over embeddings covers a planted group of corrupted images of one class "
        "better, by 0.1 in F1, than the class with the most errors does."
    ),
    metric="F1 of the images that are shown for the planted ones",
    method="worst node of the tree",
    baseline="worst class",
    data="digits, of which 40% of the test images of one class are turned by 90 degrees",
    threshold=0.1,
)
def planted_group(budget: Budget, seed: int) -> Measured:
    """Bertucci et al., *DendroMap: Visual Exploration of Large-Scale Image Datasets for Machine Learning with Treemaps*
    (2022)."""
    (x, y), (u, v) = _digits(seed, budget.device)
    network = _fitted(seed, x, y, 128, budget.pick(smoke=1, small=30, full=100))
    members = (v == 7).nonzero().squeeze(1)
    planted = members[: max(5, round(0.4 * len(members)))]
    u = u.clone()
    u[planted] = torch.rot90(u[planted].view(-1, 8, 8), 1, (1, 2)).flatten(1)
    with torch.no_grad():
        wrong = (network(u).argmax(1) != v).cpu().numpy()
    truth = np.zeros(len(v), dtype=bool)
    truth[planted.cpu().numpy()] = True
    tree = hierarchy(F.normalize(_hidden(network, u)).cpu(), leaf=4)
    weak = weak_subgroups(tree, wrong, smallest=5)
    shown = np.zeros(len(v), dtype=bool)
    if weak:
        shown[weak[0].members] = True
    labels = v.cpu().numpy()
    rates = [wrong[labels == k].sum() for k in range(10)]
    return Measured(
        _f1(shown, truth), _f1(labels == int(np.argmax(rates)), truth), {"test errors": float(wrong.mean())}
    )


def _f1(shown: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (shown & truth).sum() / max(1, shown.sum() + truth.sum()))


@claim(
    "cifar-b",
    statement=(
        "Over models trained with more or less change of the background colour, how evenly a model treats the "
        "colours of a class on biased test images ranks their accuracy on unbiased ones better than their accuracy "
        "on the biased ones."
    ),
    metric="rank correlation with the accuracy on unbiased colours",
    method="MacroStd, negated",
    baseline="accuracy on biased colours",
    data="digits on backgrounds of four colours, of which one goes with the class in 80% of the images",
    threshold=0.0,
)
def coloured(budget: Budget, seed: int) -> Measured:
    """Chiu, Chen and Ma, *Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification* (2023)."""
    (x, y), (u, v) = _digits(seed, budget.device)
    generator = torch.Generator().manual_seed(seed)
    seen, biased, even = (_colours(labels, share, generator) for labels, share in ((y, 0.8), (v, 0.8), (v, 0.25)))
    rates = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)[:: budget.pick(smoke=3, small=1, full=1)]
    spread, known, truth = [], [], []
    for rate in rates:
        changed = torch.rand(len(y), generator=generator) < rate
        colour = torch.where(
            changed.to(seen.device), torch.randint(4, (len(y),), generator=generator).to(seen.device), seen
        )
        rows = _painted(x, colour)
        network = _fitted(seed, rows, y, 64, budget.pick(smoke=1, small=8, full=50))
        with torch.no_grad():
            right = (network(_painted(u, biased)).argmax(1) == v).cpu().numpy()
        spread.append(-macro_std(right, v.cpu().numpy(), biased.cpu().numpy()))
        known.append(float(right.mean()))
        truth.append(_accuracy(network, _painted(u, even), v))
    method, baseline = (float(np.nan_to_num(spearmanr(values, truth).statistic)) for values in (spread, known))
    return Measured(method, baseline, {"best unbiased accuracy": max(truth), "worst unbiased accuracy": min(truth)})


def _colours(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A colour of four for each image, that of its class with this probability."""
    other = (labels.cpu() + torch.randint(1, 4, (len(labels),), generator=generator)) % 4
    own = torch.rand(len(labels), generator=generator) < share
    return torch.where(own, labels.cpu() % 4, other).to(labels.device)


def _painted(rows: Tensor, colour: Tensor) -> Tensor:
    """The digits on backgrounds of a colour: the pixels once for each of four channels, brightened in one of them."""
    channels = rows[:, None].repeat(1, 4, 1)
    channels[torch.arange(len(rows)), colour] += 0.7 * (1 - rows)
    return channels.flatten(1)


@claim(
    "lpntk",
    statement=(
        "The labelled pseudo neural tangent kernel ranks how a step on one image changes the loss of another better, "
        "by 0.1, than the kernel without labels does."
    ),
    metric="rank correlation with the fall of the loss",
    method="labelled pseudo neural tangent kernel",
    baseline="pseudo neural tangent kernel without labels",
    data=DIGITS,
    threshold=0.1,
)
def sample_relations(budget: Budget, seed: int) -> Measured:
    """Guo et al., *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024)."""
    (x, y), _ = _digits(seed, budget.device)
    network = _fitted(seed, x, y, 64, budget.pick(smoke=1, small=2, full=2))
    count = budget.pick(smoke=12, small=80, full=400)
    x, y = x[:count], y[:count]
    labelled = lpntk(network, x, y)
    # A class of its own whose logit is constant: all signs of the others are then alike.
    padded = nn.Sequential(network, nn.ConstantPad1d((0, 1), 0.0))
    plain = lpntk(padded, x, torch.full_like(y, 10))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        before = F.cross_entropy(network(x), y, reduction="none")
    fall = torch.zeros(count, count)
    for j in range(count):
        gradients = torch.autograd.grad(
            F.cross_entropy(network(x[j : j + 1]), y[j : j + 1]), list(network.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(0.01 * gradient)
            fall[:, j] = before - F.cross_entropy(network(x), y, reduction="none")
        network.load_state_dict(start)
    other = ~torch.eye(count, dtype=torch.bool)
    method, baseline = (
        float(spearmanr(kernel.cpu()[other].numpy(), fall.cpu()[other].numpy()).statistic)
        for kernel in (labelled, plain)
    )
    return Measured(method, baseline)


@claim(
    "dp4tl",
    statement=(
        "Pretraining on the quarter of the source classes that label mapping chooses gives features that a linear "
        "probe of the target makes more of than a quarter chosen at random does."
    ),
    metric="target accuracy of a linear probe fitted to 50 images",
    method="classes by label mapping",
    baseline="classes at random",
    data="digits in four rotations as 40 source classes; other digits, upright, as target",
    threshold=0.0,
)
def source_classes(budget: Budget, seed: int) -> Measured:
    """Zhang et al., *Selectivity Drives Productivity: Efficient Dataset Pruning for Enhanced Transfer Learning* "
    "(2023)."""
    splits = load("digits", seed=seed)
    rows, digit, turn = (part.to(budget.device) for part in rotated_digits(splits.train))
    source = digit * 4 + turn
    u, v = (part.to(budget.device) for part in pixels(splits.test))
    few, rest = slice(0, 50), slice(50, None)
    epochs = budget.pick(smoke=1, small=8, full=50)
    surrogate = _fitted(seed, rows, source, 64, max(1, epochs // 2), 40)
    with torch.no_grad():
        chosen = label_mapping(surrogate(u[few])).keep(0.25)
    random = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[: len(chosen)].to(chosen.device)

    def score(classes: Tensor) -> float:
        kept = torch.isin(source, classes)
        _, targets = source[kept].unique(return_inverse=True)
        # As many steps however many classes are kept.
        network = _fitted(
            seed, rows[kept], targets, 128, max(1, round(epochs * len(rows) / max(1, int(kept.sum())))), 40
        )
        features, target = _hidden(network, u).cpu().numpy(), v.cpu().numpy()
        return probe(features[few], target[few], features[rest], target[rest])

    return Measured(score(chosen), score(random), {"all classes": score(torch.arange(40, device=chosen.device))})


@claim(
    "cluster-sensitivity-sampling",
    statement=(
        "The mean loss over all data is estimated with a smaller error from a sensitivity sample, which asks for 40 "
        "losses beforehand, than from a uniform sample as large as both together."
    ),
    metric="root mean squared error of the estimate, relative to the mean loss",
    method="sensitivity sampling, 40 clusters and 60 samples",
    baseline="100 samples drawn evenly",
    data=DIGITS,
    threshold=0.0,
    higher_is_better=False,
)
def sensitivity(budget: Budget, seed: int) -> Measured:
    """Axiotis et al., *Data-Efficient Learning via Clustering-Based Sensitivity Sampling: Foundation Models and Beyond*
    (2024)."""
    (x, y), _ = _digits(seed, budget.device)
    network = _fitted(seed, x, y, 128, budget.pick(smoke=1, small=3, full=10))
    with torch.no_grad():
        losses = F.cross_entropy(network(x), y, reduction="none").double()
    h = _hidden(network, x)
    generator = torch.Generator().manual_seed(seed)
    truth, ours, even = float(losses.mean()), [], []
    # How much the loss changes with the distance, so that both parts of the probability are of one size.
    smoothness = truth / float((h - h.mean(0)).square().sum(1).mean())
    for _ in range(budget.pick(smoke=5, small=200, full=2000)):
        found = sensitivity_sample(
            h, lambda index: losses[index], 60, clusters=40, smoothness=smoothness, generator=generator
        )
        ours.append(float((found.weight * losses[found.index]).sum()))
        even.append(float(losses[torch.randint(len(x), (100,), generator=generator).to(x.device)].mean()))
    method, baseline = (float(np.sqrt(np.mean((np.array(values) - truth) ** 2))) / truth for values in (ours, even))
    return Measured(method, baseline)
