"""Claims of papers on losses that compare embeddings with each other, or with what was seen before.

Most use digits turned by 0, 90, 180 and 270 degrees, which makes 40 classes. Where classes are to be unseen, a digit is
unseen in all its turns, and the perceptron is trained on the classes of the other digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import (
    accuracy,
    fit_embedding,
    perceptron,
    probe_accuracy,
    recall_at_one,
    rotated_digits,
    train,
)
from repertoire.data import ImageSet, load
from repertoire.estimators import NearestCentroid, evaluate_episodes
from repertoire.losses import EmbeddingLoss
from repertoire.methods import Method

UNSEEN = "40 classes: digits in four turns; those of four digits are unseen"
RECALL = "recall at 1 among test images of 16 unseen classes"


def _unseen(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and classes of six digits' training images and of the other four digits' test images."""
    splits = load("digits", seed=seed)
    known = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:6]
    parts = []
    for images, keep_known in ((splits.train, True), (splits.test, False)):
        rows, digits, turns = rotated_digits(images)
        kept = torch.isin(digits, known) == keep_known
        parts += [rows[kept], (4 * digits + turns)[kept]]
    inputs, labels, test_inputs, test_labels = parts
    return inputs, labels, test_inputs, test_labels


def _retrieves(seed: int, budget: Budget, *kinds: Callable[[], EmbeddingLoss], **options: Any) -> list[float]:
    """Recall at 1 on unseen classes of a network trained with each loss."""
    inputs, labels, test_inputs, test_labels = _unseen(seed)
    epochs = budget.pick(smoke=1, small=20, full=100)
    return [
        recall_at_one(
            fit_embedding(kind(), inputs, labels, epochs=epochs, seed=seed, **options), test_inputs, test_labels
        )
        for kind in kinds
    ]


@claim(
    "metrix",
    statement="Mixed embeddings beside multi-similarity make better embeddings of unseen classes than it does alone.",
    metric=RECALL,
    method="multi-similarity and Metrix",
    baseline="multi-similarity",
    data=UNSEEN,
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def metrix(budget: Budget, seed: int) -> Measured:
    """Venkataramanan et al., *It Takes Two to Tango: Mixup for Deep Metric Learning* (2021): mixed embeddings."""
    mixed, plain = _retrieves(seed, budget, losses.Metrix, losses.MultiSimilarity)
    return Measured(mixed, plain)


@claim(
    "ecaml",
    statement="Energy confusion beside multi-similarity makes better embeddings of unseen classes than it does alone.",
    metric=RECALL,
    method="multi-similarity and a tenth of energy confusion",
    baseline="multi-similarity",
    data=UNSEEN,
    threshold=0.0,
    seeds={"small": 10, "full": 10},
)
def ecaml(budget: Budget, seed: int) -> Measured:
    """Chen and Deng, *Energy Confused Adversarial Metric Learning for Zero-Shot Image Retrieval and Clustering*
    (2019)."""
    confused, plain = _retrieves(seed, budget, losses.EnergyConfusion, losses.MultiSimilarity)
    return Measured(confused, plain)


@claim(
    "contextual-metric",
    statement=(
        "With every fifth training label wrong, comparing neighbours beside a contrastive loss makes better embeddings "
        "of unseen classes than the contrastive loss alone."
    ),
    metric=RECALL,
    method="contextual loss",
    baseline="its contrastive part alone",
    data=f"{UNSEEN}; a fifth of the training labels is drawn at random",
    threshold=0.0,
)
def contextual_metric(budget: Budget, seed: int) -> Measured:
    """Liao, Tsiligkaridis and Kulis, *Supervised Metric Learning to Rank for Retrieval via Contextual Similarity
    Optimization* (2022), in batches of four samples a class. `extra` has the same with all labels right."""
    inputs, labels, test_inputs, test_labels = _unseen(seed)
    generator = torch.Generator().manual_seed(seed)
    classes = labels.unique()
    wrong = torch.rand(len(labels), generator=generator) < 0.2
    drawn = classes[torch.randint(len(classes), (len(labels),), generator=generator)]
    noisy = torch.where(wrong, drawn, labels)
    epochs = budget.pick(smoke=1, small=20, full=100)

    def recall(loss: EmbeddingLoss, targets: Tensor) -> float:
        network = fit_embedding(loss, inputs, targets, epochs=epochs, seed=seed, per_class=4)
        return recall_at_one(network, test_inputs, test_labels)

    def plain() -> EmbeddingLoss:
        return losses.Contextual(contextual=0.0, regularisation=0.0)

    extra = {
        "no label wrong: contextual": recall(losses.Contextual(), labels),
        "no label wrong: contrastive": recall(plain(), labels),
    }
    return Measured(recall(losses.Contextual(), noisy), recall(plain(), noisy), extra)


@claim(
    "look",
    statement=(
        "A network trained to have neighbours of the same coarse class keeps the finer classes inside it apart better "
        "than one trained with the supervised contrastive loss."
    ),
    metric="test accuracy of the turn and the digit together, by the five nearest training images",
    method="LOOK",
    baseline="supervised contrastive loss",
    data="digits in four turns, labelled by digit only",
    threshold=0.0,
)
def look(budget: Budget, seed: int) -> Measured:
    """Feng et al., *Rethinking Supervised Pre-training for Better Downstream Transferring* (2021).

    `extra` has the accuracy of the digit alone, which is what both were trained for.
    """
    splits = load("digits", seed=seed)
    inputs, digits, turns = rotated_digits(splits.train)
    test_inputs, test_digits, test_turns = rotated_digits(splits.test)
    fine, test_fine = 4 * digits + turns, 4 * test_digits + test_turns
    epochs = budget.pick(smoke=1, small=20, full=100)
    found, extra = [], {}
    for name, loss in (("LOOK", losses.LOOK(queue=2048)), ("supcon", losses.SupCon())):
        network = fit_embedding(loss, inputs, digits, epochs=epochs, seed=seed)
        found.append(_neighbours(network, inputs, fine, test_inputs, test_fine))
        extra[f"digit alone: {name}"] = _neighbours(network, inputs, digits, test_inputs, test_digits)
    return Measured(found[0], found[1], extra)


@torch.no_grad()
def _neighbours(network: nn.Module, inputs: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy of a vote of the five nearest rows by cosine."""
    similarities = F.normalize(network(queries)) @ F.normalize(network(inputs)).T
    votes = F.one_hot(labels[similarities.topk(5, dim=1).indices], 40).sum(1)
    return float((votes.argmax(1) == truth).float().mean())


@claim(
    "dialog2flow",
    statement=(
        "An embedding trained with the soft contrastive loss, which is told what classes are alike, puts unseen "
        "classes beside those that they are like more often than one trained with the supervised contrastive loss."
    ),
    metric="share of the test images of unseen classes whose nearest training image is of the same digit",
    method="soft contrastive loss, turns of a digit half alike",
    baseline="supervised contrastive loss",
    data="40 classes: digits in four turns; of each digit one turn is unseen",
    threshold=0.0,
)
def dialog2flow(budget: Budget, seed: int) -> Measured:
    """Burdisso et al., *Dialog2Flow* (2024): the loss, with turns for the actions and digits for what they have in
    common. Both temperatures are the released code's. `extra` has the recall at 1 of the seen classes."""
    splits = load("digits", seed=seed)
    inputs, digits, turns = rotated_digits(splits.train)
    test_inputs, test_digits, test_turns = rotated_digits(splits.test)
    left_out = torch.randint(4, (10,), generator=torch.Generator().manual_seed(seed))
    seen, unseen = turns != left_out[digits], test_turns == left_out[test_digits]
    epochs = budget.pick(smoke=1, small=20, full=100)
    groups = [c // 4 for c in range(40)]
    found, extra = [], {}
    for name, loss in (("soft", losses.SoftContrastive(groups=groups)), ("hard", losses.SupCon(temperature=0.05))):
        network = fit_embedding(loss, inputs[seen], (4 * digits + turns)[seen], epochs=epochs, seed=seed)
        with torch.no_grad():
            queries, gallery = F.normalize(network(test_inputs[unseen])), F.normalize(network(inputs[seen]))
        nearest = (queries @ gallery.T).argmax(1)
        found.append(float((digits[seen][nearest] == test_digits[unseen]).float().mean()))
        extra[f"{name}: recall at 1 of seen classes"] = recall_at_one(
            network, test_inputs[~unseen], (4 * test_digits + test_turns)[~unseen]
        )
    return Measured(found[0], found[1], extra)


@claim(
    "spcl",
    statement=(
        "With uneven classes and batches of 16, prototypes of all classes in every batch make an embedding in which "
        "the nearest class mean is right more often than the supervised contrastive loss does."
    ),
    metric="mean of the classes' test accuracies, by the nearest class mean",
    method="SPCL",
    baseline="supervised contrastive loss",
    data="digits, of which the rarest class has a twentieth of the images of the commonest",
    threshold=0.0,
)
def spcl(budget: Budget, seed: int) -> Measured:
    """Song et al., *Supervised Prototypical Contrastive Learning for Emotion Recognition in Conversation* (2022),
    without the curriculum. The temperature of both is 0.16 on cosines. `extra` has the same with batches of 256."""
    splits = load("digits", seed=seed)
    images = _thinned(splits.train, seed, [round(100 * 20 ** (-c / 9)) for c in range(10)])
    rows, labels, _ = rotated_digits(images)
    rows, labels = rows[: len(images)], labels[: len(images)]
    test_rows, test_labels, _ = rotated_digits(splits.test)
    test_rows, test_labels = test_rows[: len(splits.test)], test_labels[: len(splits.test)]
    epochs = budget.pick(smoke=1, small=40, full=100)

    def score(loss: EmbeddingLoss, batch_size: int) -> float:
        network = fit_embedding(loss, rows, labels, epochs=epochs, seed=seed, batch_size=batch_size)
        with torch.no_grad():
            z, queries = F.normalize(network(rows)), F.normalize(network(test_rows))
        members = F.one_hot(labels, 10).float()
        guess = (queries @ F.normalize(members.T @ z).T).argmax(1)
        return float(torch.stack([(guess[test_labels == c] == c).float().mean() for c in range(10)]).mean())

    extra = {
        "batches of 256: SPCL": score(losses.SPCL(num_classes=10), 256),
        "batches of 256: supcon": score(losses.SupCon(temperature=0.16), 256),
    }
    return Measured(score(losses.SPCL(num_classes=10), 16), score(losses.SupCon(temperature=0.16), 16), extra)


def _thinned(images: ImageSet, seed: int, counts: list[int]) -> ImageSet:
    """So many images of each class, drawn at random; the classes are put in a random order first."""
    generator = np.random.default_rng(seed)
    kept = []
    for label, count in zip(generator.permutation(len(counts)), counts, strict=True):
        members = np.flatnonzero(images.labels == label)
        kept.append(generator.choice(members, min(count, len(members)), replace=False))
    return images.subset(np.sort(np.concatenate(kept)))


@claim(
    "susana-distancia",
    statement=(
        "Trained episode by episode, Proto-Triplet and ICNN together give an embedding in which unseen classes are "
        "told apart from one example each better than the cross-entropy over distances to prototypes does."
    ),
    metric="5-way 1-shot accuracy on unseen classes",
    method="mean of Proto-Triplet and ICNN",
    baseline="prototypical network",
    data=UNSEEN,
    threshold=0.0,
)
def susana_distancia(budget: Budget, seed: int) -> Measured:
    """Mendez-Ruiz et al., *SuSana Distancia is all you need* (2023): the losses alone, in episodes of 12 classes with
    five examples and five queries each. `extra` has either loss alone, and five shots."""
    inputs, labels, test_inputs, test_labels = _unseen(seed)
    steps = budget.pick(smoke=5, small=400, full=4000)
    triplet, icnn = losses.ProtoTriplet(), losses.ICNN(neighbours=5)

    def prototypical(x: Tensor, y: Tensor, support: Tensor, support_y: Tensor) -> Tensor:
        prototypes = support.view(12, 5, -1).mean(1)
        return F.cross_entropy(-torch.cdist(x, prototypes).square(), y)

    def both(*episode: Tensor) -> Tensor:
        return (triplet(*episode) + icnn(*episode)) / 2

    def shots(objective: Callable[..., Tensor]) -> tuple[float, float]:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 32)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        members = [(labels == c).nonzero().flatten() for c in labels.unique()]
        for _ in range(steps):
            chosen = torch.randperm(len(members))[:12].tolist()
            index = torch.stack([members[c][torch.randperm(len(members[c]))[:10]] for c in chosen])
            z = network(inputs[index.flatten()]).view(12, 10, -1)
            y = torch.arange(12).repeat_interleave(5)
            optimizer.zero_grad()
            objective(z[:, 5:].flatten(0, 1), y, z[:, :5].flatten(0, 1), y).backward()
            optimizer.step()
        with torch.no_grad():
            features = network.eval()(test_inputs).numpy()
        one, five = (
            evaluate_episodes(
                features,
                test_labels.numpy(),
                NearestCentroid(normalize=False),
                ways=5,
                shots=count,
                queries=10,
                count=budget.pick(smoke=10, small=200, full=600),
                seed=seed,
            ).mean
            for count in (1, 5)
        )
        return one, five

    (found, five), (plain, plain_five) = shots(both), shots(prototypical)
    extra = {
        "Proto-Triplet alone": shots(triplet)[0],
        "ICNN alone": shots(icnn)[0],
        "5 shots: both": five,
        "5 shots: prototypical network": plain_five,
    }
    return Measured(found, plain, extra)


@claim(
    "supcl-seq",
    statement=(
        "With ten labelled images a class, a linear probe of features trained with the supervised contrastive loss on "
        "views made by dropout is more accurate than the same network trained with cross-entropy."
    ),
    metric="test accuracy",
    method="supervised contrastive loss on views with four dropout rates",
    baseline="cross-entropy",
    data="digits, ten labelled images a class",
    threshold=0.0,
)
def supcl_seq(budget: Budget, seed: int) -> Measured:
    """Sedghamiz et al., *SupCL-Seq* (2021), on images, which are not augmented. Cross-entropy trains for four times the
    epochs. `extra` has a probe of it, and of the contrastive loss on equal views."""
    splits = load("digits", seed=seed)
    splits = replace(splits, train=_thinned(splits.train, seed, [10] * 10))
    epochs = budget.pick(smoke=1, small=60, full=200)
    options: dict[str, Any] = {
        "backbone": "mlp:hidden=128",
        "augment": "none",
        "batch_size": 50,
        "seed": seed,
        "device": budget.device,
    }
    loss = "supcon:temperature=0.05"
    views = train(splits, method="dropout-views", loss=loss, epochs=epochs, **options)
    equal = train(splits, method="dropout-views:rates=(0,0)", loss=loss, epochs=2 * epochs, **options)
    plain = train(splits, loss="cross-entropy", epochs=4 * epochs, **options)
    extra = {"equal views": probe_accuracy(equal, splits), "probe of cross-entropy": probe_accuracy(plain, splits)}
    return Measured(probe_accuracy(views, splits), accuracy(plain, splits.test), extra)


@claim(
    "scl-relu-geometry",
    statement=(
        "Where half of the classes have a tenth of the images of the others, embeddings with a ReLU and a fixed "
        "example of each class in every batch end up with class means at more nearly the same angle to each other."
    ),
    metric="standard deviation of the cosines between class means of the training embeddings",
    method="supervised contrastive loss, ReLU and batch binding",
    baseline="supervised contrastive loss",
    data="digits, five classes with 100 images and five with 10",
    threshold=0.0,
    higher_is_better=False,
)
def scl_relu_geometry(budget: Budget, seed: int) -> Measured:
    """Kini et al., *Symmetric Neural-Collapse Representations with Supervised Contrastive Loss* (2023).

    `extra` has the ReLU without binding, the mean cosine, which is to be zero with the ReLU, and accuracies.
    """
    splits = load("digits", seed=seed)
    splits = replace(splits, train=_thinned(splits.train, seed, [100] * 5 + [10] * 5))
    options: dict[str, Any] = {
        "backbone": "mlp:hidden=128",
        "loss": "supcon",
        "augment": "none",
        "batch_size": 50,
        "epochs": budget.pick(smoke=1, small=60, full=300),
        "seed": seed,
        "device": budget.device,
    }
    found, extra = {}, {}
    for name, method in (("bound", "relu-embedding"), ("relu", "relu-embedding:bind=false"), ("plain", "embedding")):
        trained = train(splits, method=method, **options)
        cosines = _class_cosines(trained, splits.train)
        found[name] = float(cosines.std())
        extra[f"{name}: mean cosine"] = float(cosines.mean())
        extra[f"{name}: test accuracy"] = accuracy(trained, splits.test)
    return Measured(found["bound"], found["plain"], {"ReLU without binding": found["relu"], **extra})


@torch.no_grad()
def _class_cosines(method: Method, images: ImageSet) -> Tensor:
    """Cosines between the means of different classes' unit embeddings, as the loss saw them."""
    device = next(method.parameters()).device
    inputs = torch.from_numpy(images.pixels(slice(None))).to(device).permute(0, 3, 1, 2).float() / 255
    z = F.normalize(method.projector(method.embed(inputs)))  # type: ignore[operator]
    members = F.one_hot(torch.from_numpy(images.labels).to(device), len(images.classes)).float()
    means = F.normalize(members.T @ z)
    return (means @ means.T)[~torch.eye(len(means), dtype=torch.bool, device=device)]
