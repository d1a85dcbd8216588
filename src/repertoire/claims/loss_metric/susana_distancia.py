"""The claim of *SuSana Distancia is all you need: Enforcing class separability in metric learning via two novel
distance-based loss functions for few-shot image classification* (2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import perceptron
from repertoire.claims.beds.unseen_classes import UNSEEN, unseen_recall
from repertoire.estimators import NearestCentroid, evaluate_episodes


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
    inputs, labels, test_inputs, test_labels = unseen_recall(seed)
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
