"""The claim of *Dialog2Flow: Pre-training Soft-Contrastive Action-Driven Sentence Embeddings for Automatic Dialog Flow
Extraction* (2024).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding, recall_at_one
from repertoire.claims.beds.digits import rotated_digits
from repertoire.data import load


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
