"""Networks from images to features, each an ordered list of blocks that can be cut anywhere."""

from repertoire.backbones._base import Backbone
from repertoire.backbones._convnet import ConvNet
from repertoire.backbones._mlp import MLP
from repertoire.backbones._resnet import ResNet, resnet20, resnet32, resnet44, resnet56, resnet110
from repertoire.backbones._timm import Timm
from repertoire.backbones._vit import ViT
from repertoire.backbones._weights import load_weights

__all__ = [
    "MLP",
    "Backbone",
    "ConvNet",
    "ResNet",
    "Timm",
    "ViT",
    "load_weights",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
]
