"""The configuration of a run: typed, validated, written to the run's directory as it was resolved."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field

from repertoire.errors import ConfigError, UnknownName
from repertoire.files import write_text
from repertoire.recipe._bytes import parse_bytes

__all__ = ["TrainConfig", "make_config", "read_config", "write_config"]


class TrainConfig(pydantic.BaseModel):
    """All that decides what a run computes. Two runs of equal configuration on one machine give equal weights.

    Components are specs, `name` or `name:key=value,...`; "auto" and None are resolved from the data before training,
    and the configuration in the run's directory holds what they became.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_default=True)

    data: str = Field(
        description="A folder with a directory per class, an .npz file, or a source such as digits or shapes."
    )
    size: int | None = Field(
        None, ge=4, le=2048, description="Images are resized to this many pixels; by default what suits the data."
    )
    unlabelled: str | None = Field(
        None,
        description="A folder of further images without labels, or beside features a file of these, for methods that "
        "learn from them.",
    )
    labels: int | None = Field(
        None, ge=1, description="Labels that are kept of each class; the other training images become unlabelled."
    )
    fit: Literal["crop", "squash", "pad"] = Field("crop", description="How an image that is not square becomes square.")
    val: float = Field(
        0.1, gt=0, lt=1, description="Share held out for validation where the data has no validation part."
    )
    test: float = Field(0.2, gt=0, lt=1, description="Share held out for the test where the data has no test part.")
    fold: str | None = Field(
        None, description="Test on one of several equal folds, such as 2/5, and train on the others."
    )
    skip_unreadable: bool = Field(False, description="Go on without the images that cannot be used.")
    cache: str = Field(
        "all",
        description="Decoded images that are kept on the disk: all, none, or so much of them, such as 20GB; the others "
        "are decoded in every epoch, and are the same.",
    )
    download: bool = Field(False, description="Allow a data source to fetch from the network.")

    backbone: str = Field("auto", description="Network that turns images into features.")
    weights: str | None = Field(
        None, description="Weights of the backbone to start from: .safetensors, .pth, a run, or a name of the HF cache."
    )
    start: str | None = Field(
        None, description="A run to start from: its network, with the head cut or grown to the classes of the data."
    )
    teacher: str | None = Field(None, description="A finished run that a method learns from.")
    from_scratch: bool = Field(False, description="Start from random weights, whatever pretrained ones there are.")
    tune: str = Field(
        "auto",
        description="What learns where weights are pretrained: head, last:K (the last K stages and the head), all, or "
        "auto (the head first, then all; what is better on the validation images stays). A later epoch takes the place "
        "of the best one unless it is worse by more than a standard error.",
    )
    adapter: str | None = Field(
        None, description="What learns beside a frozen pretrained network, with the head: lora:rank=4, say."
    )
    layer_decay: float = Field(
        0.75, gt=0, le=1, description="Learning rate of a stage relative to the next one, where weights are pretrained."
    )
    head: str = Field("auto", description="What turns features into class scores; chosen to fit the method.")
    loss: str = Field("auto", description="What is minimised; chosen to fit the targets.")
    method: str = Field("auto", description="What is optimised; chosen to fit the loss.")
    rule: str = Field("backprop", description="How gradients become changed weights.")
    augment: str = Field(
        "auto",
        description="Random changes to training images; chosen to fit data and method. With +mixup:alpha=1, or alone, "
        "samples are mixed as well.",
    )

    epochs: int = Field(20, ge=1, description="Passes over the training images; more where that would be few steps.")
    batch_size: int = Field(
        128, ge=2, description="Images per step, over all ranks together; fewer where there are few images."
    )
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="Optimiser; adamw where weights are pretrained.")
    lr: float | None = Field(
        None, gt=0, description="Peak learning rate; 0.1 (SGD) or 0.001 (AdamW) for a batch of 128, in proportion."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD (Nesterov), or beta 1 of AdamW.")
    weight_decay: float | None = Field(
        None, ge=0, description="0.0005 (SGD) or 0.05 (AdamW); biases and norms are not decayed."
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="Learning rate over the run, after the warm-up."
    )
    warmup: float = Field(1.0, ge=0, description="Epochs of linear warm-up; at most a fifth of the run.")
    precision: Literal["32", "bf16", "16"] = Field(
        "32", description="Arithmetic of the forward pass: float32, or mixed."
    )
    clip: float | None = Field(None, gt=0, description="Largest norm of the gradient.")
    pipeline: Literal["all"] | int | None = Field(
        None,
        description="Under torchrun, with rule local: how many processes share one network, block by block; all of "
        "them if no number is given.",
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="Under several processes, what each holds: the whole network (ddp), or a share of its weights, "
        "gradients and optimiser (fsdp).",
    )
    gather: bool = Field(
        True,
        description="Under several processes, losses that compare images compare those of all, and not of each alone.",
    )
    accumulate: int = Field(1, ge=1, description="Pieces a batch is processed in, to save memory.")
    memory: str | None = Field(
        None,
        description="Memory that training may take, such as 4GiB or 800MB: picks the fastest of accumulation, "
        "rule checkpoint and rule local that fits.",
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of a moving average of the weights, which is then what is evaluated."
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after this many epochs without a better validation accuracy."
    )
    class_weights: bool = Field(False, description="Weight the loss by inverse class frequency.")
    balanced: bool = Field(False, description="Draw classes equally often.")

    seed: int = Field(0, ge=0, lt=2**63, description="Seed of splits, initial weights, order and augmentation.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    save_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints inside an epoch, beside the one after each."
    )
    keep: int = Field(
        2,
        ge=2,
        description="Newest checkpoints that stay on the disk; diagnose shows what changed over them.",
    )
    track: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="Where metrics go besides metrics.jsonl."
    )
    plugins: tuple[str, ...] = Field((), description="Modules to import first, which register components of your own.")

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_answers(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        # YAML reads yes, no, on and off as truth values, which would pass as the numbers 1 and 0.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("yes, no, on and off are true and false, which it does not take; text goes into quotes")
        return value

    @pydantic.field_validator("track", "plugins", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @pydantic.field_validator("data", mode="before")
    @classmethod
    def _path_to_text(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, Path) else value

    @pydantic.field_validator("pipeline", mode="before")
    @classmethod
    def _stages(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value in (None, "all") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError("a pipeline has 1 or more stages, or 'all' for one in each process")

    @pydantic.field_validator("tune", mode="after")
    @classmethod
    def _what_learns(cls, value: str) -> str:
        if value in ("auto", "head", "all") or (value.startswith("last:") and value[5:].isdecimal() and int(value[5:])):
            return value
        raise ValueError("expected auto, head, all, or last:K with K stages, such as last:2")

    @pydantic.field_validator("fold", mode="after")
    @classmethod
    def _one_of_several(cls, value: str | None) -> str | None:
        if value is not None:
            number, _, of = value.partition("/")
            if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) and int(of) > 1):
                raise ValueError("expected NUMBER/FOLDS with two folds or more, such as 2/5")
        return value

    @pydantic.field_validator("memory", mode="after")
    @classmethod
    def _amount(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bytes(value)
        return value

    @pydantic.field_validator("cache", mode="after")
    @classmethod
    def _kept(cls, value: str) -> str:
        if value not in ("all", "none"):
            try:
                parse_bytes(value)
            except ValueError:
                raise ValueError("expected all, none, or an amount with a unit, such as 20GB") from None
        return value

    @pydantic.field_validator("precision", mode="before")
    @classmethod
    def _number_to_text(cls, value: Any) -> Any:
        # YAML reads 32 as a number
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @property
    def cache_most(self) -> int | None:
        """Bytes of decoded images that are kept; None for all."""
        return None if self.cache == "all" else 0 if self.cache == "none" else parse_bytes(self.cache)

    def given(self, name: str) -> bool:
        """True if an option was given, and is not for the data and the weights to decide."""
        return name in self.model_fields_set


def make_config(**fields: Any) -> TrainConfig:
    """A validated configuration.

    Raises:
        UnknownName: a field that does not exist; suggests the nearest.
        ConfigError: a value of the wrong type or out of range; all of them are named.
    """
    known = TrainConfig.model_fields
    for name in fields:
        if name not in known:
            raise UnknownName("training option", name, list(known))
    try:
        return TrainConfig(**fields)
    except pydantic.ValidationError as error:
        complaints = []
        for item in error.errors():
            field = ".".join(str(part) for part in item["loc"])
            if item["type"] == "missing":
                complaints.append(f"{field} is missing")
            else:
                message = item["msg"].removeprefix("Value error, ")
                complaints.append(f"{field} is {item['input']!r}: {message[0].lower()}{message[1:]}")
        raise ConfigError("; ".join(complaints)) from None


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that a YAML file sets. Fields are validated by `make_config`, after the command line has its say.

    Raises:
        ConfigError: the file is missing, is not YAML, is not a mapping, or sets an option twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        fields = yaml.load(text, _Loader)
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {' '.join(str(error).split())}") from None
    if fields is None:
        return {}
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise ConfigError(f"{path} must be a mapping of options to values, such as 'epochs: 30'")
    names = Counter(key.replace("-", "_") for key in fields)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ConfigError(f"{path} sets {', '.join(twice)} twice, spelt with - and with _; leave one of them")
    return {key.replace("-", "_"): value for key, value in fields.items()}


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: the last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        twice = [name for name, count in keys.items() if count > 1]
        if twice:
            raise yaml.YAMLError(f"{', '.join(twice)} is set twice (line {node.start_mark.line + 1} and on)")
        return super().construct_mapping(node, deep)


def write_config(config: TrainConfig, path: Path) -> None:
    """Writes a configuration as YAML that `read_config` gives back."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
