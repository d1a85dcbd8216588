"""The claims of *Billion-scale semi-supervised learning for image classification* (2019).

Frozen features of photographs: a teacher with 512 hidden units, a student with 32, four labels of each class, and a
pool of 396. Every student takes as many steps, the last fifth of them on labels alone. Of 25, 50, 100 and 200 samples
of each class, 50 were chosen on pilot seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import frozen
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.select import top_k_per_class

LABELS = 4
TOP = 50
RATE = 1e-3


def raw(budget: Budget, seed: int) -> float:
    """What the features of the labelled photographs give as they come."""
    return raw_accuracy_of_rows(frozen.photographs(budget, seed, LABELS))


def _student(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 10))


def _trained(
    network: nn.Module, x: Tensor, y: Tensor, steps: int, rate: float = RATE, weight: float = 1e-3
) -> nn.Module:
    """So many steps of AdamW on batches of 64 that are drawn with replacement."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        index = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(network(x[index]), y[index]).backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def _accuracy(network: nn.Module, rows: frozen.Rows) -> float:
    return float((network(rows.test_x).argmax(1) == rows.test_y).float().mean())


@arm
def taught(budget: Budget, seed: int, *, top: int = 50) -> dict[str, float]:
    """A teacher with few labels, and students of its answers to a pool, with as many steps each.

    Returns:
        Test accuracies of the `teacher`, of a student of the labels alone (`labels`), and of students that were
        pretrained on as many samples of every class (`class`), or on as many of the whole pool by their scores
        (`global`), and then fine-tuned on the labels; and how often the answers were right.
    """
    whole = frozen.photographs(budget, seed, budget.pick(smoke=12, small=400, full=450))
    count = len(whole.y) // 10
    place = torch.arange(len(whole.y)) % count
    x, y = whole.x[place < LABELS], whole.y[place < LABELS]
    pool, truth = whole.x[place >= LABELS], whole.y[place >= LABELS]
    steps = budget.pick(smoke=2, small=400, full=2000)
    inputs = x.shape[1]

    def student(first: Callable[[nn.Module], object]) -> float:
        torch.manual_seed(seed)
        network = _student(inputs)
        first(network)
        # Labels alone come last, whatever came first.
        return _accuracy(_trained(network, x, y, steps // 4, RATE / 3), whole)

    torch.manual_seed(seed)
    teacher = nn.Sequential(nn.Linear(inputs, 512), nn.ReLU(), nn.Linear(512, 10))
    _trained(teacher, x, y, steps)
    with torch.no_grad():
        scores = teacher(pool).softmax(1)
    top = min(top, len(pool) // 10)
    chosen = top_k_per_class(scores, top)
    most, answers = scores.max(1)
    surest = most.topk(len(chosen.index)).indices

    def on(rows: Tensor, labels: Tensor) -> Callable[[nn.Module], object]:
        return lambda network: _trained(network, pool[rows], labels, steps)

    return {
        "teacher": _accuracy(teacher, whole),
        "labels": student(lambda network: _trained(network, x, y, steps)),
        "class": student(on(chosen.index, chosen.labels)),
        "global": student(on(surest, answers[surest])),
        "class: right": float((truth[chosen.index] == chosen.labels).float().mean()),
        "global: right": float((truth[surest] == answers[surest]).float().mean()),
        "global: least of a class": float(torch.bincount(answers[surest], minlength=10).min()),
    }


@claim(
    "billion-scale-ssl",
    statement=(
        "A small network is more accurate when it is pretrained on those samples of an unlabelled pool that a teacher "
        "scores highest for each class, and fine-tuned on four labels a class, than when it learns from the labels "
        "alone for as many steps."
    ),
    metric="test accuracy",
    method="pretrained on the highest scores of each class, then fine-tuned",
    baseline="labels alone",
    bed="cifar10-lite0",
    threshold=0.03,
    learned=0.0,
    learned_by="best",
    floor=raw,
    guard="class means or neighbours of the labelled features; that labels alone leave it below is the claim",
    ceiling=1.0,
)
def billion_scale(budget: Budget, seed: int) -> Measured:
    """Yalniz et al., *Billion-scale Semi-supervised Learning for Image Classification* (2019), on frozen features.

    The teacher has 512 hidden units, the student 32, and the pool 396 photographs a class. `extra` has the teacher,
    which is the larger network, and how often its answers were right.
    """
    found = taught(budget, seed, top=TOP)
    extra = {"teacher": found["teacher"], "answers that were right": found["class: right"]}
    return Measured(found["class"], found["labels"], extra)


@claim(
    "billion-scale-ssl",
    part="each-class",
    statement=(
        "A student of the samples that a teacher scores highest for each class is more accurate than one of as many "
        "samples with the highest scores of all."
    ),
    metric="test accuracy",
    method="as many samples of each class",
    baseline="as many samples by their scores",
    bed="cifar10-lite0",
    threshold=0.005,
    learned=0.0,
    learned_by="best",
    floor=raw,
    guard="class means or neighbours of the labelled features; that the best of all leave classes out is the claim",
    ceiling=1.0,
)
def each_class(budget: Budget, seed: int) -> Measured:
    """Yalniz et al., *Billion-scale Semi-supervised Learning for Image Classification* (2019), on frozen features.

    `extra` says how often the answers of each choice were right, and how many samples the rarest class has in the
    choice over all.
    """
    found = taught(budget, seed, top=TOP)
    extra = {name: found[name] for name in ("class: right", "global: right", "global: least of a class")}
    return Measured(found["class"], found["global"], extra)


@claim(
    "billion-scale-ssl",
    part="how-many",
    statement=(
        "As more samples of each class are taken from the pool, a student that is pretrained on them becomes more "
        "accurate first, and then less so."
    ),
    metric="test accuracy",
    arms=("10 of each class", "100 of each class", "396 of each class, as many as there are"),
    kind="optimum",
    bed="cifar10-lite0",
    threshold=0.0,
    learned=0.0,
    learned_by="best",
    floor=raw,
    guard="class means or neighbours of the labelled features; that too few or too many samples fail is the claim",
)
def how_many(budget: Budget, seed: int) -> Measured:
    """Yalniz et al., *Billion-scale Semi-supervised Learning for Image Classification* (2019), on frozen features."""
    return Measured.of([taught(budget, seed, top=top)["class"] for top in (10, 100, 396)])
