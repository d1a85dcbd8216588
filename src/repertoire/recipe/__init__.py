"""From a configuration to the parts of a run: the one way, for the trainer, the claims, the benchmarks and users.

    config = recipe.make_config(data="digits", loss="supcon")
    built = recipe.build(config, recipe.load_splits(config))
    built.method, built.rule, built.loader()

Names are imported when they are first used: the command line reads the configuration's fields, and must not wait for
torch to show its help.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repertoire.recipe._build import Built as Built
    from repertoire.recipe._build import StageStart as StageStart
    from repertoire.recipe._build import build as build
    from repertoire.recipe._build import prepared as prepared
    from repertoire.recipe._bytes import format_bytes as format_bytes
    from repertoire.recipe._bytes import parse_bytes as parse_bytes
    from repertoire.recipe._config import TrainConfig as TrainConfig
    from repertoire.recipe._config import make_config as make_config
    from repertoire.recipe._config import read_config as read_config
    from repertoire.recipe._config import write_config as write_config
    from repertoire.recipe._embed import embed_data as embed_data
    from repertoire.recipe._environment import describe as describe
    from repertoire.recipe._environment import emulated as emulated
    from repertoire.recipe._environment import find_device as find_device
    from repertoire.recipe._environment import forget_peak_memory as forget_peak_memory
    from repertoire.recipe._environment import layout as layout
    from repertoire.recipe._environment import make_fabric as make_fabric
    from repertoire.recipe._environment import peak_memory as peak_memory
    from repertoire.recipe._facts import Facts as Facts
    from repertoire.recipe._facts import channel_statistics as channel_statistics
    from repertoire.recipe._frozen import activations_of as activations_of
    from repertoire.recipe._given import give as give
    from repertoire.recipe._given import given_names as given_names
    from repertoire.recipe._given import is_given as is_given
    from repertoire.recipe._optim import WeightAverage as WeightAverage
    from repertoire.recipe._optim import learning_rate as learning_rate
    from repertoire.recipe._optim import make_optimizer as make_optimizer
    from repertoire.recipe._optim import schedule as schedule
    from repertoire.recipe._optim import weight_decay as weight_decay
    from repertoire.recipe._parts import IN_MEMORY as IN_MEMORY
    from repertoire.recipe._parts import build_backbone as build_backbone
    from repertoire.recipe._parts import build_classifier as build_classifier
    from repertoire.recipe._parts import build_loss as build_loss
    from repertoire.recipe._parts import build_method as build_method
    from repertoire.recipe._parts import folded as folded
    from repertoire.recipe._parts import import_plugins as import_plugins
    from repertoire.recipe._parts import is_pretrained as is_pretrained
    from repertoire.recipe._parts import load_splits as load_splits
    from repertoire.recipe._parts import needs_of as needs_of
    from repertoire.recipe._parts import only_head as only_head
    from repertoire.recipe._parts import takes_loss as takes_loss
    from repertoire.recipe._resolve import pinned as pinned
    from repertoire.recipe._resolve import resolve as resolve
    from repertoire.recipe._resolve import stem as stem

_HOME = {
    "_build": ("Built", "StageStart", "build", "prepared"),
    "_bytes": ("format_bytes", "parse_bytes"),
    "_config": ("TrainConfig", "make_config", "read_config", "write_config"),
    "_embed": ("embed_data",),
    "_environment": (
        "describe",
        "emulated",
        "find_device",
        "forget_peak_memory",
        "layout",
        "make_fabric",
        "peak_memory",
    ),
    "_facts": ("Facts", "channel_statistics"),
    "_frozen": ("activations_of",),
    "_given": ("give", "given_names", "is_given"),
    "_optim": ("WeightAverage", "learning_rate", "make_optimizer", "schedule", "weight_decay"),
    "_parts": (
        "IN_MEMORY",
        "build_backbone",
        "build_classifier",
        "build_loss",
        "build_method",
        "folded",
        "import_plugins",
        "is_pretrained",
        "load_splits",
        "needs_of",
        "only_head",
        "takes_loss",
    ),
    "_resolve": ("pinned", "resolve", "stem"),
}

__all__ = [name for names in _HOME.values() for name in names]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"repertoire.recipe.{module}"), name)
    raise AttributeError(f"module 'repertoire.recipe' has no attribute {name!r}")
