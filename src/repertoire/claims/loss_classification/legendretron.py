"""The claim of *LegendreTron: Uprising Proper Multiclass Loss Learning* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import heads, losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors
from repertoire.claims.beds.digits import top_k_accuracy, two_digits
from repertoire.data import load


@claim(
    "legendretron",
    statement="With many classes, linear scores and a learned link are more accurate than logistic regression.",
    metric="test accuracy",
    method="linear scores, learned link",
    baseline="linear scores, softmax",
    data="pairs of digits: 100 classes",
    threshold=0.0,
)
def legendretron(budget: Budget, seed: int) -> Measured:
    """Lam et al., *LegendreTron: Uprising Proper Multiclass Loss Learning* (2023).

    `extra` has the log-likelihood of the test images, which a proper loss is to make large.
    """
    splits = load("digits", seed=seed)
    inputs, targets = two_digits(splits.train, budget.pick(smoke=300, small=3000, full=30_000), seed)
    test_inputs, test_targets = two_digits(splits.test, 2000, seed + 1)

    def log_p(head: heads.Head) -> Tensor:
        fit_tensors(
            head,
            inputs,
            targets,
            losses.CrossEntropy(),
            epochs=budget.pick(smoke=1, small=40, full=240),
            learning_rate=0.01,
        )
        with torch.no_grad():
            return head(test_inputs).log_softmax(1)

    torch.manual_seed(seed)
    learned = log_p(heads.Legendre(inputs.shape[1], 100))
    torch.manual_seed(seed)
    plain = log_p(heads.Linear(inputs.shape[1], 100))
    likelihood = {
        f"{name}: log-likelihood": float(found.gather(1, test_targets[:, None]).mean())
        for name, found in (("learned link", learned), ("softmax", plain))
    }
    return Measured(top_k_accuracy(learned, test_targets, 1), top_k_accuracy(plain, test_targets, 1), likelihood)
