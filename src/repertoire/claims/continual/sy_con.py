"""The claim of *Sy-CON: Symmetric Contrastive Loss for Continual Self-Supervised Representation Learning* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._stages import through
from repertoire.claims.beds.ssl_photographs import BED, NEIGHBOURS, options_of, photographs, raw, told, untrained

PHOTOGRAPHS = "CIFAR-10, 5,000 photographs at 16 pixels, whose classes come in two stages of five"

TEMPERATURES = {"sy-con": 0.1, "cassle": 0.1}
RATE = 5e-3
"""Both were tried at temperatures of 0.2 and 0.1 with a learning rate of 0.005, on pilot seeds 1000 and 1001, and at
0.2 with 0.01 on the first of them. In this order, Sy-CON gave 0.409 and 0.414, 0.407 and 0.428, and 0.404; CaSSLe 0.404
and 0.418, 0.411 and 0.426, and 0.409. Of random weights it is 0.350 on seed 1000, of raw pixels 0.280. Neither method
has a weight between learning and keeping."""


@arm
def in_stages(budget: Budget, seed: int, *, keep: str, temperature: float, rate: float) -> dict[str, float]:
    """A network that learned photographs without labels in two stages, and what its features tell of all classes.

    Args:
        keep: "sy-con", "cassle" or "nothing".
        temperature: of all terms.
        rate: learning rate.

    Returns:
        `linear`, `neighbours` and `rank` after the last stage, as of `ssl_photographs.learned`, and `state_bytes`, what
        is kept beside the network.
    """
    splits = photographs(budget, seed)
    fields = options_of(budget, seed, share=1.0) | {"lr": rate}
    for passed in ("seed", "device"):
        del fields[passed]
    method, protocol = f"sy-con:keep={keep},temperature={temperature}", "classes:step=5,memory=0"
    *_, (_, trained, _, _) = through(budget, seed, splits=splits, method=method, protocol=protocol, **fields)
    own = [value for name, value in trained.state_dict().items() if not name.startswith("model.")]
    kept = sum(value.numel() * value.element_size() for value in own)
    return {**told(trained, splits), "state_bytes": float(kept)}


@claim(
    "sy-con",
    statement=(
        "From photographs without labels, whose classes come in two stages, Sy-CON learns features by which nearest "
        "neighbours tell all classes apart more accurately, by a percentage point or more, than by those that CaSSLe "
        "learns."
    ),
    metric=NEIGHBOURS,
    method="Sy-CON",
    baseline="CaSSLe",
    data=PHOTOGRAPHS,
    bed=BED,
    threshold=0.01,
    strict=False,
    learned=0.03,
    guard="neighbours by raw pixels, or by features of random weights, whichever is better",
    ceiling=1.0,
)
def sy_con(budget: Budget, seed: int) -> Measured:
    """Cha and Moon, *Sy-CON: Symmetric Contrastive Loss for Continual Self-Supervised Representation Learning* (2023),
    in the form for SimCLR, with half of the epochs of one stage in each.

    `extra` has linear probes, and bytes kept beside the network.
    """
    ours, theirs = (
        in_stages(budget, seed, keep=keep, temperature=temperature, rate=RATE)
        for keep, temperature in TEMPERATURES.items()
    )
    random, pixels = untrained(budget, seed), raw(budget, seed)
    extra = {"random weights": random["neighbours"], "raw pixels": pixels["neighbours"]}
    for name, found in (("Sy-CON", ours), ("CaSSLe", theirs)):
        extra |= {f"{name}: linear probe": found["linear"], f"{name}: bytes": found["state_bytes"]}
    trivial = max(random["neighbours"], pixels["neighbours"])
    return Measured(ours["neighbours"], theirs["neighbours"], extra, trivial=trivial)
