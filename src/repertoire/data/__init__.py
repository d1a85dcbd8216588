"""Samples with targets: where they come from, how they are split, cached, augmented and batched."""

from typing import Any

from repertoire._aliases import missing_attribute
from repertoire.data._augment import build_augmentation
from repertoire.data._batches import plain
from repertoire.data._cache import cache_bytes, cache_directory
from repertoire.data._crops import CropFlip, NoAugmentation, PhotoAugmentation, ResizedCrop, Shift
from repertoire.data._decode import decode, plain_reason, read_file
from repertoire.data._digits import digits
from repertoire.data._erasing import RandomErasing
from repertoire.data._features import features, load_feature_set
from repertoire.data._files import decode_files, grey, read_images
from repertoire.data._folder import folder, load_folder_set, with_channels
from repertoire.data._folds import fold_splits
from repertoire.data._hf import hf
from repertoire.data._in_memory import from_memory
from repertoire.data._load import load, pinned, source_of
from repertoire.data._loader import Loader, StreamSource, step_seed
from repertoire.data._names import alike
from repertoire.data._npz import npz
from repertoire.data._policies import RandAugment, StrongAugmentation, TrivialAugment
from repertoire.data._rotate import KnownTransformation, Rotate
from repertoire.data._shapes import shapes
from repertoire.data._shards import wds
from repertoire.data._source import SourceRequest
from repertoire.data._splits import digest, make_splits
from repertoire.data._table import table
from repertoire.data._types import Batch, FeatureSet, ImageSet, Kind, Samples, Splits, kind_of
from repertoire.data._unlabelled import load_unlabelled
from repertoire.data._views import SimCLRAugmentation
from repertoire.data._walk import find_images
from repertoire.data.beds import (
    cifar10,
    cifar10_lite0,
    cora,
    dna,
    emoji,
    fashion_mnist,
    glyphs,
    intents,
    landsat,
    letters,
    mnist5k,
    omniglot,
    reviews,
    segment,
    shuttle,
    spoken_digits,
    vowel,
    yeast,
)

__all__ = [
    "Batch",
    "CropFlip",
    "FeatureSet",
    "ImageSet",
    "Kind",
    "KnownTransformation",
    "Loader",
    "NoAugmentation",
    "PhotoAugmentation",
    "RandAugment",
    "RandomErasing",
    "ResizedCrop",
    "Rotate",
    "Samples",
    "Shift",
    "SimCLRAugmentation",
    "SourceRequest",
    "Splits",
    "StreamSource",
    "StrongAugmentation",
    "TrivialAugment",
    "alike",
    "build_augmentation",
    "cache_bytes",
    "cache_directory",
    "cifar10",
    "cifar10_lite0",
    "cora",
    "decode",
    "decode_files",
    "digest",
    "digits",
    "dna",
    "emoji",
    "fashion_mnist",
    "features",
    "find_images",
    "fold_splits",
    "folder",
    "from_memory",
    "glyphs",
    "grey",
    "hf",
    "intents",
    "kind_of",
    "landsat",
    "letters",
    "load",
    "load_feature_set",
    "load_folder_set",
    "load_unlabelled",
    "make_splits",
    "mnist5k",
    "npz",
    "omniglot",
    "pinned",
    "plain",
    "plain_reason",
    "read_file",
    "read_images",
    "reviews",
    "segment",
    "shapes",
    "shuttle",
    "source_of",
    "spoken_digits",
    "step_seed",
    "table",
    "vowel",
    "wds",
    "with_channels",
    "yeast",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
