"""The network of another run, read from its directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from repertoire.errors import RunError
from repertoire.losses import LogitsLoss
from repertoire.methods import Classifier
from repertoire.recipe._config import make_config, read_config
from repertoire.recipe._facts import Facts
from repertoire.recipe._parts import build_classifier, build_loss, takes_loss

__all__ = ["stored_classifier", "stored_head"]


def _open(path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads run.json, and the best weights of the classifier."""
    root = Path(path)
    try:
        info = json.loads((root / "run.json").read_text(encoding="utf-8"))
        state = load_file(root / "checkpoints" / "best.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} is not a run with whole weights, to start from or to learn from: {reason}") from None
    return info, {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def stored_head(path: str) -> tuple[list[str], str, dict[str, Tensor]]:
    """The class names of a run, whether it is one on "images" or on "features", and the tensors of its head.

    Raises:
        RunError: the directory is not a run with whole weights.
    """
    info, state = _open(path)
    head = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
    return list(info["classes"]), str(info.get("modality", "images")), head


def stored_classifier(path: str) -> Classifier:
    """The classifier of a run with its best weights, on the CPU in evaluation mode.

    Raises:
        RunError: the directory is not a run with whole weights.
    """
    info, state = _open(path)
    config = make_config(**read_config(Path(path) / "config.yaml"))
    facts = Facts.stored(info)
    loss = build_loss(config, facts) if takes_loss(config) else None
    model = build_classifier(config, facts, loss=loss if isinstance(loss, LogitsLoss) else None, pretrained=False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise RunError(f"the weights of {path} do not fit its configuration: {' '.join(str(error).split())}") from None
    return model.eval()
