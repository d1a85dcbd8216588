"""Images with labels: where they come from, how they are split, cached, augmented and batched."""

from repertoire.data._augment import (
    CropFlip,
    NoAugmentation,
    ResizedCrop,
    Shift,
    SimCLRAugmentation,
    StrongAugmentation,
    plain,
)
from repertoire.data._cache import cache_directory
from repertoire.data._digits import digits
from repertoire.data._files import decode_files, read_images
from repertoire.data._folder import folder, load_folder_set
from repertoire.data._hf import hf
from repertoire.data._load import load
from repertoire.data._loader import Loader, step_seed
from repertoire.data._npz import npz
from repertoire.data._shapes import shapes
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import Batch, ImageSet, Splits
from repertoire.data._walk import find_images

__all__ = [
    "Batch",
    "CropFlip",
    "ImageSet",
    "Loader",
    "NoAugmentation",
    "ResizedCrop",
    "Shift",
    "SimCLRAugmentation",
    "SourceRequest",
    "Splits",
    "StrongAugmentation",
    "cache_directory",
    "decode_files",
    "digits",
    "find_images",
    "folder",
    "hf",
    "load",
    "load_folder_set",
    "make_splits",
    "npz",
    "plain",
    "read_images",
    "shapes",
    "step_seed",
]
