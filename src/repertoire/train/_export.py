"""A run's model for use without Repertoire: ONNX, TorchScript or a torch.export program."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, MissingExtra, RunError
from repertoire.files import atomic_path, write_json
from repertoire.train._run import Run

__all__ = ["Format", "export"]

Format = Literal["onnx", "torchscript", "pt2"]
_SUFFIX = {"onnx": ".onnx", "torchscript": ".ts", "pt2": ".pt2"}

TOLERANCE = 1e-3
"""Largest difference of probabilities between the model and what was exported. Rounding gives about 1e-6."""


class _Probabilities(nn.Module):
    """The model and a softmax: what a user of the file wants to see."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).softmax(dim=1)


def export(run: Run, format: Format = "onnx", out: str | Path | None = None) -> Path:
    """Writes a run's model, reads it back, and checks that both say the same.

    The file takes float images `[N, C, size, size]` in [0, 1], for any N, and gives probabilities `[N, K]`; resizing is
    the caller's. A file of the same name with `.json` after it holds the classes and the image size.

    Args:
        run: the run.
        format: "onnx", "torchscript", or "pt2" (the format of torch.export). All of them start from torch.export.
        out: the file; `model.onnx`, `model.ts` or `model.pt2` in the run's directory if None.

    Raises:
        MissingExtra: ONNX is asked for and its packages are not installed.
        RunError: what was written does not agree with the model; the file is not left behind.
    """
    if format not in _SUFFIX:
        raise ConfigError(f"format is {format!r}; it must be onnx, torchscript or pt2")
    target = Path(out) if out is not None else run.path / f"model{_SUFFIX[format]}"
    model = _Probabilities(run.model).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, int(run.info["channels"]), run.size, run.size, generator=generator)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        expected = model(images).numpy()
        with atomic_path(target) as temporary:
            # Suffixes matter to the writers, so they work in a folder of their own.
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                file = Path(folder) / f"model{_SUFFIX[format]}"
                _write(program, images, file, format)
                found = _read_and_run(file, images, format)
                temporary.write_bytes(file.read_bytes())
            gap = float(np.abs(found - expected).max())
            if not gap <= TOLERANCE:
                raise RunError(
                    f"the {format} file disagrees with the model by {gap:.2g} in probability; it was not kept"
                )
    facts = {
        "classes": list(run.classes),
        "size": run.size,
        "channels": int(run.info["channels"]),
        "input": "float32 in [0, 1]",
    }
    write_json(target.with_name(target.name + ".json"), facts)
    return target


def _write(program: torch.export.ExportedProgram, images: Tensor, file: Path, format: Format) -> None:
    if format == "pt2":
        torch.export.save(program, file)
    elif format == "torchscript":
        torch.jit.save(torch.jit.trace(program.module(), images), file)
    else:
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError:
            raise MissingExtra("export", "export to ONNX") from None
        torch.onnx.export(
            program,
            (),
            str(file),
            input_names=["images"],
            output_names=["probabilities"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@torch.no_grad()
def _read_and_run(file: Path, images: Tensor, format: Format) -> np.ndarray:
    if format == "pt2":
        return torch.export.load(file).module()(images).numpy()
    if format == "torchscript":
        return torch.jit.load(file)(images).numpy()
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("export", "checking an ONNX file") from None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
