"""The claim of *Stitchable Neural Networks* (2023)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import train
from repertoire.claims.beds._named import LETTERS_REDRAWN, get
from repertoire.claims.beds.handwriting import GARMENTS, split_images
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Loader, Samples, Splits
from repertoire.methods import Classifier
from repertoire.train import outputs
from repertoire.weights import Stitched, stitch, train_stitched

EPOCHS = 40
"""In which both networks are trained by themselves, and again in which all routes are trained together.

Layers of the large perceptron cost about the same each, so that routes are spread over the budgets; in small networks
of convolutions the last layers cost nearly all, and every route into the large one as much as that.
"""


def grown(
    budget: Budget, seed: int, splits: Splits, backbones: Sequence[str], epochs: int, rate: float
) -> list[Classifier]:
    """Networks, each trained by itself."""
    return [
        train(
            splits,
            backbone=backbone,
            epochs=epochs,
            optimizer="adamw",
            lr=rate,
            batch_size=64,
            augment="none",
            seed=3 * seed + number,
            device=budget.device,
        ).model
        for number, backbone in enumerate(backbones)
    ]


def joined(
    budget: Budget,
    seed: int,
    splits: Splits,
    models: Sequence[Classifier],
    initial: Literal["least-squares", "random"],
    epochs: int = 1,
) -> Stitched:
    """Copies of the networks, stitched and trained together."""
    fitted = Loader(splits.train, 128, shuffle=False, device=torch.device(budget.device))
    torch.manual_seed(seed)
    return together(budget, seed, splits, stitch(copy.deepcopy(list(models)), fitted.epoch(0), initial=initial), epochs)


def together(budget: Budget, seed: int, splits: Splits, net: Stitched, epochs: int) -> Stitched:
    """All routes of the network, trained together; a step takes one of them."""
    where = torch.device(budget.device)
    fitted = Loader(splits.train, 128, shuffle=False, device=where)
    seen = Loader(splits.train, 64, device=where, seed=seed)
    number = itertools.count()
    # The first call only counts the batches of an epoch.
    return train_stitched(
        net, lambda: seen.epoch(next(number)), epochs=epochs, seed=seed, statistics=lambda: fitted.epoch(0)
    )


def right(net: Stitched, samples: Samples, device: str) -> list[float]:
    """The accuracy of every route, by rising cost."""
    found = [outputs(net.use(n), samples, device=torch.device(device)) for n in range(len(net.routes))]  # type: ignore[arg-type]
    return [float((each.logits.argmax(1) == np.asarray(samples.labels)).mean()) for each in found]


def area(net: Stitched, values: Sequence[float], routes: Sequence[int]) -> float:
    """The mean accuracy over the costs from the cheapest route to the dearest, on the lines between routes."""
    costs = torch.tensor([float(net.routes[number].flops) for number in routes])
    under = torch.trapezoid(torch.tensor([values[number] for number in routes]), costs)
    return float(under / (costs[-1] - costs[0]))


def affordable(net: Stitched, budgets: Sequence[float], splits: Splits, device: str) -> float:
    """The mean test accuracy of the route that is taken at each budget: the best on validation images that fits."""
    net.scores = right(net, splits.val, device)
    tested = right(net, splits.test, device)
    return float(np.mean([tested[net.within(budget)] for budget in budgets]))


def raw_letters(budget: Budget, seed: int) -> float:
    """What the numbers of the letters give without a network."""
    return raw_accuracy(get("letters").splits(budget, seed))


@claim(
    "snnet",
    statement=(
        "Over the budgets between a small network and a large one, the best route through the two stitched together "
        "is on average more accurate, by two percentage points, than the best of the two that fits the budget."
    ),
    metric="test accuracy, mean over budgets of operations between those of the small and the large network",
    method="two networks stitched, and trained together",
    baseline="the two networks, trained as much longer",
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.02,
    learned=0.0,
    floor=raw_letters,
    ceiling=1.0,
)
def snnet(budget: Budget, seed: int) -> Measured:
    """Pan, Cai and Zhuang, *Stitchable Neural Networks* (2023): one network that interpolates between its anchors. Both
    arms begin with the same two networks and then see the same samples in as many steps, with the same teacher; one of
    the routes learns in each step. Which route is taken at a budget is said by validation samples. Where the stitched
    network were no better than the small one up to the cost of the large one, the difference would be none; were it to
    rise with the cost from one to the other, it would be half of what lies between them. `extra` has both by
    themselves, and the mean on the straight line between the two. Until the small network had 24 units in a layer (12
    before) and both were trained for twice as long, it was far below raw neighbours, and so was either arm. On pilot
    seed 1000 the arms have 0.88 and 0.87, the two networks 0.87 and 0.94, and the neighbours 0.85."""
    splits = get("letters").splits(budget, seed)
    networks = [f"mlp:hidden={width},depth=4" for width in budget.pick(smoke=(4, 16), small=(24, 160), full=(32, 256))]
    epochs = budget.pick(smoke=1, small=EPOCHS, full=100)
    models = grown(budget, seed, splits, networks, epochs, 7e-3)
    ours = joined(budget, seed, splits, models, "least-squares", epochs)
    routes = [route for route in ours.routes if route.join < 0]
    alone = together(budget, seed, splits, Stitched(copy.deepcopy(models), [], routes), epochs)
    budgets = np.linspace(routes[0].flops / routes[1].flops + 1e-9, 1, 200).tolist()
    own = right(alone, splits.test, budget.device)
    return Measured(
        affordable(ours, budgets, splits, budget.device),
        affordable(alone, budgets, splits, budget.device),
        {"the small network": own[0], "the large network": own[1], "the line between the two": (own[0] + own[1]) / 2},
    )


def garments(budget: Budget, seed: int) -> Splits:
    return split_images(budget, seed, budget.pick(smoke=200, small=3000, full=9000), bed="fashion-mnist")


def raw_garments(budget: Budget, seed: int) -> float:
    """What the pixels of the garments give without a network."""
    return raw_accuracy(garments(budget, seed))


@claim(
    "snnet",
    part="least-squares",
    statement=(
        "After one epoch of training together, routes through stitched networks whose stitching layers began as least "
        "squares are more accurate, by two percentage points over the range of costs, than those that began at random."
    ),
    metric="test accuracy, mean over the costs between the smallest and the largest network",
    method="least squares",
    baseline="random stitching layers",
    bed="fashion-mnist",
    data=GARMENTS,
    threshold=0.02,
    learned=0.0,
    learned_by="best",
    floor=raw_garments,
    guard="class means or neighbours by raw pixels; what random layers destroy is asked",
    ceiling=1.0,
)
def snnet_least_squares(budget: Budget, seed: int) -> Measured:
    """Pan, Cai and Zhuang, *Stitchable Neural Networks* (2023), section 3.2. Three networks that rise in width; costs
    are operations of convolutions and linear layers. `extra` has the same mean for the three networks alone, before
    they were stitched, with images shared out to two of them in between: after one epoch, no route need be better.
    Until the networks had three times the width and ten passes in the place of eight, both arms were below raw pixels;
    on pilot seed 1001 they have 0.82 and 0.47 now, and the pixels 0.80."""
    splits = garments(budget, seed)
    widths = budget.pick(smoke=(2, 4), small=(12, 24, 48), full=(16, 32, 64))
    networks = [f"convnet:width={width},depth=3" for width in widths]
    models = grown(budget, seed, splits, networks, budget.pick(smoke=1, small=10, full=60), 1e-2)
    nets = [joined(budget, seed, splits, models, initial) for initial in ("least-squares", "random")]
    ours, plain = (area(net, right(net, splits.test, budget.device), range(len(net.routes))) for net in nets)
    alone = Stitched(models, list(nets[0].stitches), nets[0].routes)
    parts = [number for number, route in enumerate(alone.routes) if route.join < 0]
    extra = {"the networks alone": area(alone, right(alone, splits.test, budget.device), parts)}
    return Measured(ours, plain, extra)
