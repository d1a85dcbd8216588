"""Claims of papers on how features, networks and data are looked at."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._perceptrons import digit_rows, fitted_perceptron, hidden_features, share_right
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.diagnostics import (
    activation_sparsity,
    fisher_ratio,
    hierarchy,
    lpntk,
    macro_std,
    merge_features,
    persistence_separability,
    weak_subgroups,
)


@claim(
    "lazy-neuron",
    statement="Training makes units silent: fewer are active for an image, by a tenth of all units, than before it.",
    metric="share of active units behind the last ReLU",
    method="trained network",
    baseline="the same network before training",
    data="digits",
    threshold=0.1,
    higher_is_better=False,
)
def lazy_neurons(budget: Budget, seed: int) -> Measured:
    """Li et al., *The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers* (2022)."""
    (x, y), (u, _) = digit_rows(seed, budget.device)
    epochs, width = budget.pick(smoke=1, small=60, full=300), budget.pick(smoke=64, small=512, full=2048)
    before = activation_sparsity(fitted_perceptron(seed, x, y, width, 0), u)[-1].active
    after = activation_sparsity(fitted_perceptron(seed, x, y, width, epochs), u)[-1].active
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).to(y.device)]
    random = activation_sparsity(fitted_perceptron(seed, x, shuffled, width, epochs), u)[-1].active
    narrow = activation_sparsity(fitted_perceptron(seed, x, y, width // 8, epochs), u)[-1].active
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
    data="digits",
    threshold=0.0,
)
def merged_channels(budget: Budget, seed: int) -> Measured:
    """Chen, Zhou and Yan, *Going Beyond Neural Network Feature Similarity: The Network Feature Complexity and Its
    Interpretation Using Category Theory* (2023)."""
    (x, y), (u, v) = digit_rows(seed, budget.device)
    width = budget.pick(smoke=32, small=256, full=1024)
    network = fitted_perceptron(seed, x, y, width, budget.pick(smoke=1, small=40, full=200))
    assert isinstance(network, nn.Sequential)
    extra = {"test accuracy of the whole": share_right(network, u, v)}
    for share in (0.75, 0.25):
        extra[f"merged to {share:.0%}"] = share_right(merge_features(network, share=share), u, v)
        extra[f"pruned to {share:.0%}"] = share_right(_pruned(network, share), u, v)
    return Measured(
        share_right(merge_features(network, share=0.5), u, v), share_right(_pruned(network, 0.5), u, v), extra
    )


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
    "persistence-separability",
    statement=(
        "Over the epochs of training, the label-free score of separability follows Fisher's ratio of the classes more "
        "closely than the silhouette of a k-means clustering does."
    ),
    metric="rank correlation with Fisher's ratio over training",
    method="mean normalised persistence, negated",
    baseline="silhouette of k-means",
    data="digits",
    threshold=0.0,
)
def persistence(budget: Budget, seed: int) -> Measured:
    """Ghalyan et al., *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs
    Fine-Tuning* (2023)."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    (x, y), (u, v) = digit_rows(seed, budget.device)
    torch.manual_seed(seed)
    network = perceptron(64, 10).to(budget.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    truth, scores, silhouettes, accuracies = [], [], [], []
    for _ in range(budget.pick(smoke=3, small=16, full=40)):
        h = F.normalize(hidden_features(network, u)).cpu()
        truth.append(fisher_ratio(h, v.cpu()))
        scores.append(-persistence_separability(h))
        clusters = KMeans(10, n_init=1, random_state=seed).fit_predict(h.numpy())
        silhouettes.append(float(silhouette_score(h.numpy(), clusters)))
        accuracies.append(share_right(network, u, v))
        fit_tensors(network, x, y, F.cross_entropy, epochs=1, optimizer=optimizer)
    extra = {"with test accuracy": float(spearmanr(scores, accuracies).statistic)}
    method, baseline = (float(spearmanr(values, truth).statistic) for values in (scores, silhouettes))
    return Measured(method, baseline, extra)


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
    (x, y), (u, v) = digit_rows(seed, budget.device)
    network = fitted_perceptron(seed, x, y, 128, budget.pick(smoke=1, small=30, full=100))
    members = (v == 7).nonzero().squeeze(1)
    planted = members[: max(5, round(0.4 * len(members)))]
    u = u.clone()
    u[planted] = torch.rot90(u[planted].view(-1, 8, 8), 1, (1, 2)).flatten(1)
    with torch.no_grad():
        wrong = (network(u).argmax(1) != v).cpu().numpy()
    truth = np.zeros(len(v), dtype=bool)
    truth[planted.cpu().numpy()] = True
    tree = hierarchy(F.normalize(hidden_features(network, u)).cpu(), leaf=4)
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
    (x, y), (u, v) = digit_rows(seed, budget.device)
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
        network = fitted_perceptron(seed, rows, y, 64, budget.pick(smoke=1, small=8, full=50))
        with torch.no_grad():
            right = (network(_painted(u, biased)).argmax(1) == v).cpu().numpy()
        spread.append(-macro_std(right, v.cpu().numpy(), biased.cpu().numpy()))
        known.append(float(right.mean()))
        truth.append(share_right(network, _painted(u, even), v))
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
    data="digits",
    threshold=0.1,
)
def sample_relations(budget: Budget, seed: int) -> Measured:
    """Guo et al., *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024)."""
    (x, y), _ = digit_rows(seed, budget.device)
    network = fitted_perceptron(seed, x, y, 64, budget.pick(smoke=1, small=2, full=2))
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
