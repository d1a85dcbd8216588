"""Checks of a component against its contract, for components of one's own as well as for those of Repertoire.

A check is driven by what the component declares about itself, and needs no test framework:

    import pytest
    from repertoire.testing import check_loss

    @pytest.mark.parametrize("check", check_loss(MyLoss), ids=str)
    def test_my_loss(check):
        check()

For tests that no check makes, `build_method` and `batch_for` give a small method and a batch with all that it needs.
"""

from repertoire.testing._bed import batch_for, build_loss, build_method, takes_loss
from repertoire.testing._check import Check, example_options
from repertoire.testing.adapters import check_adapter
from repertoire.testing.augmentations import check_augmentation
from repertoire.testing.auxiliaries import check_auxiliary
from repertoire.testing.backbones import check_backbone
from repertoire.testing.compressors import check_compressor
from repertoire.testing.diagnostics import check_diagnostic
from repertoire.testing.discoverers import check_discoverer
from repertoire.testing.estimators import check_estimator
from repertoire.testing.explainers import check_explainer
from repertoire.testing.heads import check_head
from repertoire.testing.losses import check_loss
from repertoire.testing.methods import check_method
from repertoire.testing.novelty_scores import check_novelty_score
from repertoire.testing.protocols import check_protocol
from repertoire.testing.rules import check_rule
from repertoire.testing.selectors import check_selector
from repertoire.testing.sources import check_source
from repertoire.testing.weights import check_weight_operator
from repertoire.testing.zero_shot import check_zero_shot

__all__ = [
    "Check",
    "batch_for",
    "build_loss",
    "build_method",
    "check_adapter",
    "check_augmentation",
    "check_auxiliary",
    "check_backbone",
    "check_compressor",
    "check_diagnostic",
    "check_discoverer",
    "check_estimator",
    "check_explainer",
    "check_head",
    "check_loss",
    "check_method",
    "check_novelty_score",
    "check_protocol",
    "check_rule",
    "check_selector",
    "check_source",
    "check_weight_operator",
    "check_zero_shot",
    "example_options",
    "takes_loss",
]
