"""The network of another run, read from its directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from torch import Tensor

from repertoire.errors import CheckpointError, RunError
from repertoire.losses import LogitsLoss
from repertoire.methods import Classifier
from repertoire.recipe._config import make_config, read_config
from repertoire.recipe._facts import Facts
from repertoire.recipe._parts import build_classifier, build_loss, takes_loss
from repertoire.weights import Stored, read_stored

__all__ = ["check_whole", "stored_classifier", "stored_head"]


def _open(path: str) -> tuple[dict[str, Any], Stored]:
    """Reads run.json, and the best weights of the classifier."""
    root = Path(path)
    try:
        info = json.loads((root / "run.json").read_text(encoding="utf-8"))
        with safe_open(root / "checkpoints" / "best.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = json.loads((file.metadata() or {}).get("values", "{}")).get("stored")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{path} is not a run with whole weights, to start from or to learn from: {reason}") from None
    return info, read_stored(tensors, told)


def check_whole(path: str) -> None:
    """Raises `RunError` for a run that is stored in a form of its own: its layers may not be those of a network.

    Raises:
        RunError: it was compressed, or merged into another form; or the directory is not a run with whole weights.
    """
    if not (Path(path) / "run.json").is_file():
        return  # a file of weights, or a name
    _, stored = _open(path)
    if stored.form != "dense":
        raise RunError(
            f"{path} is stored in the form {stored.form!r}, as merging or compression left it, and nothing can start "
            "from it; start from a run that it was made of"
        )


def stored_head(path: str) -> tuple[list[str], str, dict[str, Tensor]]:
    """The class names of a run, whether it is one on "images" or on "features", and the tensors of its head.

    Raises:
        RunError: the directory is not a run with whole weights.
    """
    check_whole(path)
    info, stored = _open(path)
    state = stored.tensors
    head = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
    return list(info["classes"]), str(info.get("modality", "images")), head


def stored_classifier(path: str) -> Classifier:
    """The classifier of a run with its best weights, on the CPU in evaluation mode.

    Raises:
        RunError: the directory is not a run with whole weights.
    """
    import repertoire.compress  # noqa: F401  (its forms are known once it is imported)

    info, stored = _open(path)
    config = make_config(**read_config(Path(path) / "config.yaml"))
    facts = Facts.stored(info)
    loss = build_loss(config, facts) if takes_loss(config) else None
    model = build_classifier(config, facts, loss=loss if isinstance(loss, LogitsLoss) else None, pretrained=False)
    try:
        model = cast(Classifier, stored.build(model))
    except CheckpointError as error:
        raise RunError(f"the weights of {path} do not fit its configuration: {' '.join(str(error).split())}") from None
    return model.eval()
