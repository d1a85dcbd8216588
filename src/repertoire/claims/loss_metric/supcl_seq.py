"""The claim of *SupCL-Seq: Supervised Contrastive Learning for Downstream Optimized ...* (2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy, optimise, probe_accuracy
from repertoire.claims.beds.frozen import questions, splits_of
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Splits
from repertoire.recipe import build, make_config, resolve

EACH = 10
"""Labelled sentences of an intent."""


def few_sentences(budget: Budget, seed: int) -> Splits:
    """So many sentences of each intent, drawn by the seed; validation and test sentences as they are."""
    rows, _ = questions(budget, seed)
    kept = torch.cat([(rows.y == c).nonzero().flatten()[:EACH] for c in rows.y.unique()])
    return splits_of(rows._replace(x=rows.x[kept], y=rows.y[kept]), "intents")


def raw(budget: Budget, seed: int) -> float:
    """What the inputs of the encoder give as they come."""
    return raw_accuracy(few_sentences(budget, seed))


@arm
def read_out(
    budget: Budget, seed: int, *, method: str = "supervised", loss: str, share: float = 1.0
) -> dict[str, float]:
    """An encoder of two layers with dropout behind each, as an encoder of sentences has it, trained by a method."""
    splits = few_sentences(budget, seed)
    epochs = round(share * budget.pick(smoke=1, small=30, full=200))
    options: dict[str, Any] = {"method": method, "loss": loss, "epochs": epochs, "batch_size": 64, "seed": seed}
    options |= {"backbone": "mlp:hidden=256", "augment": "none", "optimizer": "adamw", "lr": 1e-3}
    config = resolve(make_config(data=splits.source, device=budget.device, **options), splits)
    built = build(config, splits, device=config.device).method
    blocks = built.model.backbone.blocks
    for place, block in enumerate(blocks):
        blocks[place] = nn.Sequential(block, nn.Dropout(0.1))
    trained = optimise(built.to(budget.device), splits, config)
    return {
        "probe": probe_accuracy(trained, splits),
        "classifier": accuracy(trained, splits.test),
    }


@claim(
    "supcl-seq",
    statement=(
        "With ten labelled sentences an intent, a linear probe of features trained with the supervised contrastive "
        "loss on views made by dropout is more accurate than the same network trained with cross-entropy."
    ),
    metric="test accuracy",
    method="supervised contrastive loss on views with four dropout rates",
    baseline="cross-entropy, dropout of 0.1",
    data="BANKING77, ten questions of each of 77 intents as hashed words",
    bed="intents",
    threshold=0.01,
    learned=0.0,
    floor=raw,
)
def supcl_seq(budget: Budget, seed: int) -> Measured:
    """Sedghamiz et al., *SupCL-Seq* (2021), on an encoder of hashed words. Cross-entropy trains for four times the
    epochs. `extra` has a probe of it, and of the contrastive loss on equal views."""
    loss = "supcon:temperature=0.05"
    views = read_out(budget, seed, method="dropout-views", loss=loss)
    equal = read_out(budget, seed, method="dropout-views:rates=(0,0)", loss=loss, share=2.0)
    plain = read_out(budget, seed, loss="cross-entropy", share=4.0)
    extra = {"equal views": equal["probe"], "probe of cross-entropy": plain["probe"]}
    return Measured(views["probe"], plain["classifier"], extra)
