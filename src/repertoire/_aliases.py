"""Names that users of other libraries type, and what they are called here.

One table for the options of the command line, the fields of a configuration, the names of components, and what is
imported from a room. An answer is only given where what it names exists, so that the table cannot be wrong.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

__all__ = ["answer_calls", "answer_for", "missing_attribute", "missing_of_run"]

_OPTIONS: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate", "lr0", "base_lr", "max_lr", "initial_lr", "alpha"),
    "epochs": ("num_epochs", "n_epochs", "max_epochs", "num_train_epochs", "epoch"),
    "batch_size": ("batch", "bs", "train_batch_size", "per_device_train_batch_size", "b"),
    "size": ("imgsz", "img_size", "image_size", "input_size", "resolution", "crop_size", "resize", "img"),
    "backbone": ("model", "arch", "architecture", "network", "model_name", "encoder", "model_name_or_path"),
    "loss": ("criterion", "loss_fn", "objective", "loss_function"),
    "optimizer": ("optim", "opt", "optimiser"),
    "schedule": ("scheduler", "lr_scheduler", "sched", "lr_schedule"),
    "warmup": ("warmup_epochs", "warm_up", "num_warmup_epochs"),
    "weight_decay": ("wd", "l2", "decay"),
    "augment": ("augmentation", "augmentations", "transforms", "transform", "aug", "auto_augment", "aa"),
    "precision": ("amp", "fp16", "bf16", "half", "mixed_precision", "dtype"),
    "clip": ("gradient_clip_val", "clip_grad", "grad_clip", "max_grad_norm", "clip_norm"),
    "accumulate": ("accumulate_grad_batches", "gradient_accumulation_steps", "grad_accum", "accum"),
    "patience": ("early_stopping", "early_stop", "early_stopping_patience"),
    "class_weights": ("class_weight", "weighted_loss"),
    "balanced": ("weighted_sampler", "balanced_sampling", "oversample"),
    "seed": ("random_state", "random_seed", "manual_seed"),
    "track": ("logger", "loggers", "report_to", "log"),
    "ema": ("model_ema", "ema_decay"),
    "val": ("val_size", "validation_split", "valid_pct", "val_split", "validation_size"),
    "test": ("test_size", "test_split"),
    "save_every": ("save_steps", "save_period", "checkpoint_every", "ckpt_every"),
    "keep": ("save_total_limit", "save_top_k"),
    "skip_unreadable": ("ignore_errors", "skip_corrupt", "skip_broken"),
    "plugins": ("plugin", "user_dir"),
    "tune": (
        "freeze",
        "freeze_backbone",
        "frozen",
        "freeze_layers",
        "linear_probe",
        "unfreeze",
        "finetune",
        "fine_tune",
    ),
    "layer_decay": ("backbone_lr", "lr_mult", "backbone_lr_mult", "discriminative_lr"),
    "weights": ("pretrained_weights", "init", "ckpt", "checkpoint", "load_from", "initial_checkpoint", "finetune_from"),
    "from_scratch": ("no_pretrained", "scratch"),
    "out": ("output", "output_dir", "out_dir", "save_dir", "project", "logdir", "log_dir", "default_root_dir"),
    "data": ("dataset", "data_dir", "root", "path", "train_dir", "data_path", "data_root"),
    "device": ("gpu", "gpus", "accelerator", "devices", "cuda"),
    "method": ("algorithm", "task", "pretrain"),
    "folds": ("k_folds", "kfold", "n_folds", "n_splits", "cv", "cross_validation"),
}

_LOSSES = {
    "supcon": ("SupConLoss", "SupervisedContrastiveLoss", "supervised-contrastive"),
    "focal": ("FocalLoss", "SigmoidFocalLoss", "focalloss"),
    "nt-xent": ("NTXentLoss", "ntxent", "simclr", "NT_Xent"),
    "info-nce": ("InfoNCELoss", "nce"),
    "triplet": ("TripletMarginLoss", "TripletLoss", "triplet-margin", "BatchHardTripletLoss"),
    "cross-entropy": ("ce", "CrossEntropyLoss", "CrossEntropy", "softmax", "nll", "xent", "crossentropy", "log-loss"),
    "proxy-anchor": ("ProxyAnchorLoss",),
    "multi-similarity": ("MultiSimilarityLoss", "ms"),
    "circle": ("CircleLoss",),
    "barlow-twins": ("BarlowTwinsLoss", "barlow"),
    "vicreg": ("VICRegLoss",),
    "clip": ("ClipLoss", "CLIPLoss"),
    "sigmoid-pairwise": ("siglip", "SigLipLoss", "SigLIP"),
    "balanced-softmax": ("BalancedSoftmaxLoss",),
    "ldam": ("LDAMLoss",),
    "logit-adjusted": ("LogitAdjustedLoss", "logit-adjustment", "la"),
    "asymmetric": ("AsymmetricLoss", "asl", "ASL"),
}

_CLASSES: dict[str, tuple[str, ...]] = {
    "CrossEntropy": ("CrossEntropyLoss", "CELoss"),
    "SupCon": ("SupConLoss", "SupervisedContrastiveLoss"),
    "Focal": ("FocalLoss", "SigmoidFocalLoss"),
    "NTXent": ("NTXentLoss", "NT_Xent"),
    "InfoNCE": ("InfoNCELoss",),
    "Triplet": ("TripletMarginLoss", "TripletLoss"),
    "ProxyAnchor": ("ProxyAnchorLoss",),
    "MultiSimilarity": ("MultiSimilarityLoss",),
    "Circle": ("CircleLoss",),
    "BarlowTwins": ("BarlowTwinsLoss",),
    "VICReg": ("VICRegLoss",),
    "SigmoidPairwise": ("SigLipLoss", "SigLIPLoss"),
    "BalancedSoftmax": ("BalancedSoftmaxLoss",),
    "LDAM": ("LDAMLoss",),
    "LogitAdjusted": ("LogitAdjustedLoss",),
    "Asymmetric": ("AsymmetricLoss", "AsymmetricLossOptimized"),
    "GradCAM": ("GradCam", "GradCAMExplainer"),
    "GradCAMPlusPlus": ("GradCAMpp", "GradCamPlusPlus"),
    "IntegratedGradients": ("IG",),
    "Linear": ("LinearHead", "Classifier"),
    "Cosine": ("CosineHead", "NormedLinear", "CosFace"),
    "ImageSet": ("ImageFolder", "Dataset", "ImageDataset"),
    "Loader": ("DataLoader",),
}

# What others call the methods of what training leaves behind.
_OF_RUNS: dict[str, tuple[str, ...]] = {
    "evaluate": ("score", "test", "validate", "val", "eval", "accuracy"),
    "extend": ("fit", "train", "continue_training", "resume"),
    "embed": ("encode", "transform", "features", "get_features", "forward_features", "extract_features"),
    "predict": ("forward", "infer", "inference", "classify"),
    "model": ("net", "network", "module", "state_dict", "parameters", "learner"),
    "history": ("log", "logs", "log_history", "recorder"),
    "path": ("directory_name", "output_dir", "save_dir", "log_dir"),
}

_COMPONENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "loss": _LOSSES,
    "method": {
        "simclr": ("SimCLR",),
        "byol": ("BYOL",),
        "moco": ("MoCo", "mocov2", "moco-v2"),
        "supervised": ("classification", "classify"),
    },
    "optimizer": {"adamw": ("adam",)},
    "augmentation": {
        "randaugment": ("rand-augment", "autoaugment", "RandAugment"),
        "trivialaugment": ("TrivialAugmentWide", "ta-wide"),
        "erasing": ("random-erasing", "RandomErasing", "cutout"),
        "none": ("off", "no"),
    },
    "explainer": {
        "grad-cam": ("gradcam", "GradCAM", "cam"),
        "integrated-gradients": ("ig", "IntegratedGradients"),
        "grad-cam-plus-plus": ("grad-cam++", "gradcam++", "gradcampp"),
    },
}

# Families that timm has under the same names, and those that others call otherwise.
_TIMM = re.compile(
    r"(tf_)?(resnet(10t|14t|18|26|34|50|101|152|200)|resnext|wide_resnet|res2net|resnest|efficientnet|efficientvit|mobilenet|"
    r"mobilevit|mobileone|convnext|vit_|deit|swin|densenet|regnet|vgg|inception|xception|mnasnet|ghostnet|maxvit|coatnet|"
    r"beit|eva|hiera|mixer_|resmlp|edgenext|fastvit|levit|cait|xcit|nfnet|dpn|dla|hrnet|rexnet|tiny_vit|volo|poolformer)"
)
_TORCHVISION = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "wide_resnet50_2": "wide_resnet50_2",
}

# What timm calls the networks whose weights come with the installation.
_BUILT_IN = re.compile(r"(?:tf_)?efficientnet_lite([012])(?:\.\w+)?$")

# Where there is no such thing: why, and what to do.
_SENTENCES: dict[str, dict[tuple[str, ...], str]] = {
    "training option": {
        ("workers", "num_workers", "dataloader_workers", "n_jobs", "dataloader_num_workers"): (
            "images are decoded once, into a cache, so there are no workers to set"
        ),
        ("pretrained", "imagenet", "transfer"): (
            "photographs start from a pretrained network (backbone lite0) by themselves; tune says how much of it "
            "learns, weights brings those of a file, and from_scratch begins without"
        ),
        ("mixup", "cutmix", "mix"): "images are mixed by a method: supervised:mix=mixup, or mix=cutmix",
        ("random_erasing", "reprob", "randaugment"): (
            "random changes to images are given with augment, as in crop-flip+erasing; `repertoire list augmentations` "
            "names them"
        ),
        ("folds", "k_folds", "kfold", "n_folds", "n_splits", "cv", "cross_validation"): (
            "a run for each fold is trained by repertoire.train.fit_folds(data, 5), or on the command line with --folds"
        ),
        ("dropout", "drop", "drop_path", "label_smoothing", "smoothing", "temperature", "margin", "gamma", "width"): (
            "options of a component follow its name, as in loss cross-entropy:label_smoothing=0.1"
        ),
        ("callbacks", "callback", "hooks"): (
            "in Python, fit(callbacks=[f]) calls f with the row of every epoch; track sends the metrics to a tracker"
        ),
    },
    "name of a run": {
        ("save", "save_model", "save_pretrained", "to_onnx", "onnx", "torchscript", "jit", "push_to_hub", "dump"): (
            "a run lies in its directory already, run.path, and repertoire.load opens it; run.export('onnx') writes "
            "its model for use elsewhere"
        ),
    },
    "method": {("mixup", "cutmix", "mix"): "an option of the one that they change: supervised:mix=mixup"},
    "augmentation": {("mixup", "cutmix", "mix"): "images are mixed by a method: supervised:mix=mixup, or mix=cutmix"},
}


def answer_for(kind: str, name: str, known: Iterable[str]) -> str | None:
    """Message for a name that other tools use, or None if the table does not know it.

    Args:
        kind: what was looked up, in the singular: "loss", "training option", "name in repertoire.losses".
        name: what was typed.
        known: the names that exist.

    Returns:
        The end of a sentence, such as "here it is called 'lr'".

    Example:
        >>> answer_for("training option", "learning_rate", ["lr", "epochs"])
        "here it is called 'lr'"
        >>> answer_for("loss", "CrossEntropyLoss", ["cross-entropy"])
        "here it is called 'cross-entropy'"
    """
    known = list(known)
    lite = _BUILT_IN.match(name.lower().replace("-", "_")) if kind == "backbone" else None
    if lite is not None and f"lite{lite[1]}" in known:
        return f"here it is called 'lite{lite[1]}', with its weights"
    if kind == "backbone" and "timm" in known and _TIMM.match(name.lower()):
        lowered = name.lower()
        return f"that is a network of timm: timm:{_TORCHVISION.get(lowered, lowered)}"
    wanted = _plain(name)
    table: Mapping[str, Iterable[str]] = _COMPONENTS.get(kind, {})
    if kind == "training option":
        table = _OPTIONS
    elif kind == "name of a run":
        table = _OF_RUNS
    elif kind.startswith("name in "):
        table = _CLASSES
    for ours, theirs in table.items():
        if ours in known and wanted in {_plain(alias) for alias in theirs}:
            return f"here it is called {ours!r}"
    for theirs, sentence in _SENTENCES.get(kind, {}).items():
        if wanted in map(_plain, theirs):
            return sentence
    return None


def missing_attribute(module: str, name: str, known: Iterable[str]) -> Exception:
    """The error of a room that has no such name, which says what it is called here.

    An `ImportError` where there is an answer: of an `AttributeError`, `from repertoire.losses import SupConLoss`
    would make a message of its own.

    >>> missing_attribute("repertoire.losses", "SupConLoss", ["SupCon"])
    ImportError("module 'repertoire.losses' has no 'SupConLoss'; here it is called 'SupCon'")
    """
    answer = answer_for(f"name in {module}", name, known)
    if answer is not None:
        return ImportError(f"module {module!r} has no {name!r}; {answer}", name=module)
    return AttributeError(f"module {module!r} has no attribute {name!r}")


def missing_of_run(owner: object, name: str) -> AttributeError:
    """The error of a run, or of several, that has no such name, which says what it is called here."""
    answer = answer_for("name of a run", name, dir(type(owner)))
    hint = "" if answer is None else f"; {answer}"
    return AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=owner)


class _Answering(types.ModuleType):
    """A room that is called like a verb, and answers who takes it for a function."""

    answer: str

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{self.__name__} is a module and cannot be called: {self.answer}")


def answer_calls(module: str, answer: str) -> None:
    """Makes a module that is taken for a function say what to call instead.

    Args:
        module: its name, `__name__` in its own file.
        answer: the end of a sentence.
    """
    room = sys.modules[module]
    room.__class__ = _Answering
    vars(room)["answer"] = answer


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
