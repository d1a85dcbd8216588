"""What a method was designed for, and when it counts."""

from __future__ import annotations

import numpy as np
import pytest

from repertoire.data import FeatureSet, Splits, load
from repertoire.methods import FixMatch
from repertoire.recipe import make_config, resolve

DESIGNED = FixMatch.needs.defaults


@pytest.fixture(scope="module")
def splits():
    return load("digits")


def resolved(splits, **fields):
    return resolve(make_config(data="digits", labels=4, method="fixmatch", **fields), splits)


def test_a_method_brings_what_it_was_designed_for(splits):
    config = resolved(splits)
    assert {name: getattr(config, name) for name in DESIGNED} == dict(DESIGNED)
    assert resolve(config, splits) == config


def test_what_the_user_gives_goes_first(splits):
    assert resolved(splits, lr=0.5).lr == 0.5


def test_a_learning_rate_is_one_of_its_optimiser(splits):
    config = resolved(splits, optimizer="adamw")
    assert config.lr == resolve(make_config(data="digits", optimizer="adamw", batch_size=64), splits).lr
    assert config.batch_size == DESIGNED["batch_size"]


def test_a_learning_rate_is_one_for_random_weights(splits):
    config = resolved(splits, backbone="resnet20:pretrained=true")
    assert config.lr < DESIGNED["lr"]
    assert config.ema == DESIGNED["ema"]


@pytest.mark.parametrize("method", ["simclr", "byol", "simsiam", "moco"])
def test_methods_without_labels_bring_what_they_were_found_to_learn_with(splits, method):
    config = resolve(make_config(data="digits", method=method), splits)
    assert (config.optimizer, config.lr, config.weight_decay) == ("adamw", 5e-3, 1e-4)
    config = resolve(make_config(data="digits", method=method, optimizer="sgd"), splits)
    assert config.lr >= 0.05


@pytest.mark.parametrize(("count", "batch"), [(20, 8), (40, 8), (200, 32), (1000, 128), (50_000, 512)])
def test_a_head_takes_at_least_four_steps_an_epoch_and_three_hundred_in_all(count, batch):
    y = np.arange(count) % 2
    x = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    rows = FeatureSet(x, y, [str(i) for i in range(count)], ("a", "b"), np.arange(count, dtype=np.uint64))
    config = resolve(make_config(data="drawn"), Splits(rows, rows, rows, "drawn"))
    assert config.batch_size == batch
    assert config.epochs * count / batch >= 300
    assert resolve(config, Splits(rows, rows, rows, "drawn")) == config
