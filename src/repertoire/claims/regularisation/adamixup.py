"""The claims of *MixUp as Locally Linear Out-Of-Manifold Regularization* (2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import backbones, heads, losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds import few_labels as bed
from repertoire.data import Batch
from repertoire.methods import AdaMixUp, Classifier, Normalize, Supervised


@arm
def digits_mixed(budget: Budget, seed: int, *, method: str, lr: float) -> dict[str, float]:
    """The test accuracy of a perceptron that learned from 100 digits of each class."""
    splits = bed.few(bed.digits(budget), seed, 100)
    fields = bed.perceptron(budget, seed, splits, steps=800, batch=50) | {"lr": lr}
    trained = train(splits, method=method, **fields)
    return {"accuracy": accuracy(trained, splits.test), "trivial": bed.trivial(splits)}


@claim(
    "adamixup",
    statement="Mixing digits in shares that are learned gives a more accurate classifier than mixup.",
    metric="test accuracy",
    method="AdaMixUp",
    baseline="mixup",
    data=bed.TITLE,
    tier="real, small",
    threshold=0.005,
    learned=0.0,
    guard="the nearest labelled image by raw pixels",
    ceiling=1.0,
)
def learned_shares(budget: Budget, seed: int) -> Measured:
    """Guo, Mao and Zhang (2018). Of alpha 0.2 and 1 the first was best for mixup on pilot seeds; the learning rate was
    tuned for neither."""
    ours = digits_mixed(budget, seed, method="adamixup", lr=0.003)
    mixed = digits_mixed(budget, seed, method="supervised:mix=mixup,alpha=0.2", lr=0.003)
    plain = digits_mixed(budget, seed, method="supervised", lr=0.003)
    return Measured(
        ours["accuracy"], mixed["accuracy"], {"accuracy: not mixed": plain["accuracy"]}, trivial=ours["trivial"]
    )


def _in_a_row(seed: int, each: int, between: int) -> tuple[Tensor, Tensor]:
    """Points of three classes on a line, the third between the two others, so that their mixtures look like it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(torch.tensor([each, each, between]))
    centres = torch.tensor([0.0, 2.0, 1.0])
    points = centres[labels] + 0.25 * torch.randn(len(labels), generator=generator)
    return points.view(-1, 1, 1, 1), labels


def _row_told(budget: Budget, seed: int, kind: str) -> tuple[float, float]:
    """Test accuracy on the line, and whether half and half lies in the learned interval of the two outer classes."""
    (x, y), (u, v) = _in_a_row(seed, 60, 15), _in_a_row(seed + 50_000, 400, 400)
    torch.manual_seed(seed)
    net = backbones.MLP(in_channels=1, image_size=1, hidden=32)
    model = Classifier(Normalize([1.0], [1.0]), net, heads.Linear(net.out_features, 3))
    loss = losses.CrossEntropy()
    method = AdaMixUp(model, loss) if kind == "learned" else Supervised(model, loss, mix="mixup")
    optimizer = torch.optim.Adam(method.train().parameters(), lr=1e-2)
    for _ in range(budget.pick(smoke=5, small=300, full=300)):
        optimizer.zero_grad()
        method.step(Batch((x,), y, torch.arange(len(y)))).loss.backward()
        optimizer.step()
    method.eval()
    with torch.no_grad():
        right = float((model(u).argmax(1) == v).float().mean())
        if not isinstance(method, AdaMixUp):
            return right, 1.0
        ends = model.embed(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1))
        low, high = method.interval(ends[:1], ends[1:])
    return right, float(low < 0.5 < high)


@claim(
    "adamixup",
    part="intrusion",
    statement=(
        "Where mixtures of two classes look like a third, rarer one, mixing in shares that are learned is more "
        "accurate than mixup, by two percentage points."
    ),
    metric="test accuracy",
    method="AdaMixUp",
    baseline="mixup",
    data="three classes in a row on a line, the one in the middle a quarter as frequent",
    threshold=0.02,
    learned=0.2,
    trivial=1 / 3,
    guard="one class of three: on a line, the nearest class mean is the best answer there is",
    ceiling=0.97,
    draws=2,
)
def between_two_classes(budget: Budget, seed: int) -> Measured:
    """Guo, Mao and Zhang (2018), section 4; `extra` says for how many seeds half and half may still be mixed. No
    classifier has more than 0.97 of equally frequent classes here. With as many points of each class there was no room:
    mixup had 0.954 then. On pilot seeds 1000 to 1002 it has 0.77 to 0.83 now."""
    ours, inside = _row_told(budget, seed, "learned")
    mixed, _ = _row_told(budget, seed, "mixup")
    return Measured(ours, mixed, {"half and half is in the learned interval": inside})
