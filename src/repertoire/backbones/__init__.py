"""Networks from images to features, each an ordered list of blocks that can be cut anywhere."""

from repertoire.backbones._base import Backbone
from repertoire.backbones._convnet import ConvNet
from repertoire.backbones._cut import Uncuttable, cut, module_names
from repertoire.backbones._efficientnet_lite import EfficientNetLite, imagenet_classes, lite0, lite1, lite2
from repertoire.backbones._frozen import Precision, fast_bfloat16, frozen
from repertoire.backbones._identity import Identity
from repertoire.backbones._mlp import MLP
from repertoire.backbones._preset import Preset
from repertoire.backbones._resnet import ResNet, resnet20, resnet32, resnet44, resnet56, resnet110
from repertoire.backbones._timm import Timm, import_timm, import_torchvision
from repertoire.backbones._vit import ViT
from repertoire.backbones._weights import WeightsReport, load_weights

__all__ = [
    "MLP",
    "Backbone",
    "ConvNet",
    "EfficientNetLite",
    "Identity",
    "Precision",
    "Preset",
    "ResNet",
    "Timm",
    "Uncuttable",
    "ViT",
    "WeightsReport",
    "cut",
    "fast_bfloat16",
    "frozen",
    "imagenet_classes",
    "import_timm",
    "import_torchvision",
    "lite0",
    "lite1",
    "lite2",
    "load_weights",
    "module_names",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
]
