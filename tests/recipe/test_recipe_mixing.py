"""What an augmentation says about mixing becomes a matter of method and loss."""

from __future__ import annotations

import pytest

from repertoire import recipe
from repertoire.data import Splits, load
from repertoire.errors import ConfigError, UnknownName
from repertoire.losses import DecoupledMixup


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load("digits")


def resolved(splits: Splits, **fields: object) -> recipe.TrainConfig:
    return recipe.resolve(recipe.make_config(data="digits", **fields), splits)


def test_it_is_what_method_and_loss_say_in_full(splits: Splits):
    short = resolved(splits, augment="mixup:alpha=0.4,decoupled=0.2")
    full = resolved(splits, method="supervised:mix=mixup,alpha=0.4", loss="decoupled-mixup:eta=0.2")
    assert short == full
    assert short.augment == "shift"
    assert resolved(splits, **short.model_dump(exclude={"data"})) == short
    built = recipe.build(short, splits)
    assert isinstance(built.loss, DecoupledMixup)
    assert (built.method.mix, built.method.alpha) == ("mixup", 0.4)


def test_it_follows_another_augmentation_and_goes_with_other_methods(splits: Splits):
    found = resolved(splits, augment="shift:pixels=1+cutmix", method="fixmatch:ratio=2", labels=4)
    assert (found.augment, found.method) == ("shift:pixels=1", "fixmatch:ratio=2,mix=cutmix")
    assert resolved(splits, augment="mixup").loss == "cross-entropy"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"augment": "mixup+cutmix"}, ConfigError, "mixes samples twice"),
        ({"augment": "mixup:beta=1"}, UnknownName, "alpha, decoupled"),
        ({"augment": "mixup", "method": "vat"}, ConfigError, "which method 'vat' does not: use method='supervised'"),
        ({"augment": "mixup:decoupled=0.1", "loss": "focal"}, ConfigError, "leave one of them out"),
    ],
)
def test_what_is_refused(splits: Splits, fields: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        resolved(splits, **fields)
