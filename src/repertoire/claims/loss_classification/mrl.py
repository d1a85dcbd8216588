"""The claim of *Matryoshka Representation Learning* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import heads
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import body, descend, epochs_for, photographs, shares, shuffled
from repertoire.claims.beds.raw import raw_accuracy_of_rows

SIZE = 8


def raw(budget: Budget, seed: int) -> float:
    """What the features give as they come, all of them."""
    return raw_accuracy_of_rows(photographs(budget, seed, 400))


@claim(
    "mrl",
    statement=(
        "The first eight coordinates of an embedding of 128 trained with nested heads classify as well as an embedding "
        "of eight that was trained by itself: they are no more than a point less accurate."
    ),
    metric="test accuracy with eight coordinates",
    method="Matryoshka heads, eight coordinates of 128",
    baseline="an embedding of eight",
    bed="cifar10-lite0",
    threshold=-0.01,
    strict=False,
    learned=0.0,
    draws=8,
    floor=raw,
    own_data=True,
)
def mrl(budget: Budget, seed: int) -> Measured:
    """Kusupati et al., *Matryoshka Representation Learning* (2022).

    `extra` has the whole embedding against one trained with a single head, which nesting is not to harm either, and the
    first eight coordinates of that, read out anew.
    """
    rows = photographs(budget, seed, 400)
    known, inputs = int(rows.y.max()) + 1, rows.x.shape[1]
    epochs = epochs_for(budget, len(rows.x))

    def trained(sizes: tuple[int, ...]) -> tuple[nn.Module, heads.Matryoshka]:
        torch.manual_seed(seed)
        network = body(inputs, outputs=sizes[-1]).to(rows.x.device)
        head = heads.Matryoshka(sizes[-1], known, sizes=sizes).to(rows.x.device)

        def objective(index: Tensor) -> Tensor:
            pairs = head.outputs(network(rows.x[index]))
            return torch.stack([c * F.cross_entropy(logits, rows.y[index]) for c, logits in pairs]).sum()

        parameters = [*network.parameters(), *head.parameters()]
        descend(parameters, objective, shuffled(len(rows.x)), epochs=epochs, rate=3e-4)
        return network, head

    def accuracy(network: nn.Module, head: heads.Matryoshka, size: int) -> float:
        with torch.no_grad():
            return shares(head.logits_at(network(rows.test_x), size), rows.test_y)["accuracy"]

    nested, separate, plain = (trained(sizes) for sizes in (heads.nested_sizes(128), (SIZE,), (128,)))
    extra = {
        "Matryoshka heads, all 128": accuracy(*nested, 128),
        "one head, all 128": accuracy(*plain, 128),
        "one head, truncated": _read_out(plain[0], rows.x, rows.y, rows.test_x, rows.test_y),
    }
    return Measured(accuracy(*nested, SIZE), accuracy(*separate, SIZE), extra)


@torch.no_grad()
def _read_out(network: nn.Module, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor) -> float:
    """Test accuracy of the nearest class mean in the first coordinates."""
    z, queries = network(x)[:, :SIZE], network(test_x)[:, :SIZE]
    means = torch.stack([z[y == c].mean(0) for c in y.unique()])
    return float((torch.cdist(queries, means).argmin(1) == test_y).float().mean())
