"""A run's model for use without Repertoire: ONNX, TorchScript, a torch.export program, or the backbone's weights."""

from __future__ import annotations

import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import repertoire
from repertoire.data import plain
from repertoire.errors import ConfigError, MissingExtra, RepertoireError, RunError, option
from repertoire.files import check_place, write_bytes, write_json

if TYPE_CHECKING:
    from repertoire.train._run import Run

__all__ = ["Format", "export"]

Format = Literal["onnx", "torchscript", "pt2", "backbone"]
_SUFFIX = {"onnx": ".onnx", "torchscript": ".ts", "pt2": ".pt2", "backbone": ".safetensors"}

TOLERANCE = 1e-3
"""Largest difference of answers between the model and what was exported, relative to the largest answer if that is
above one. Rounding gives about 1e-6."""

_BATCHES = (1, 3, 5)
"""Sizes of the batches that a file is checked with: a network that was traced may know no other than that one."""

_COMPARED = 1000
"""Test images that say what lower precision costs."""

_FIT = {
    "crop": "scale the shorter side to the size, keep the centre",
    "squash": "scale both sides to the size",
    "pad": "scale the longer side to the size, black bars beside the image",
}


class _Answers(nn.Module):
    """The model, and its logits as a user of the file wants to see them; float32 whatever the model computes in."""

    def __init__(self, model: nn.Module, read: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.read = read
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.model(images.to(self.dtype)).float())


def export(
    run: Run,
    format: Format = "onnx",
    out: str | Path | None = None,
    *,
    half: bool = False,
    int8: bool = False,
) -> Path:
    """Writes a run's model, reads it back, and checks that both say the same for batches of several sizes.

    The file takes float images `[batch, C, size, size]` in [0, 1] (of a run on features, float `[batch, d]`), for any
    batch, and gives probabilities `[batch, K]` (numbers, of a run that predicts numbers). What has to be done to an
    image before is written beside it, to a file of the same name with `.json` after it, and into an ONNX file as its
    metadata, together with the classes.

    Args:
        run: the run.
        format: "onnx", "torchscript", "pt2" (the format of torch.export), or "backbone": the weights of the backbone
            alone as safetensors, which another run can start from.
        out: the file; `model.onnx`, `model.ts`, `model.pt2` or `backbone.safetensors` in the run's directory if None.
        half: store and compute in float16; half the size.
        int8: store the weights of an ONNX file in 8 bits; a quarter of the size.

    With `half` and `int8` the `.json` says what they cost: the accuracy of the model and of the file, and how often
    both give the same answer, on test images of the run.

    Returns:
        The file.

    Raises:
        ConfigError: an unknown format, or one that cannot be had in this precision.
        MissingExtra: ONNX is asked for and its packages are not installed.
        RunError: nothing can be written to `out`, what was written does not agree with the model, or the disk is full;
            no file is left behind.

    Example:
        >>> export(run, "onnx", int8=True)  # doctest: +SKIP
        PosixPath('runs/demo/model.onnx')
    """
    if format != "backbone":
        run.check_answers("export")
    if format not in _SUFFIX:
        raise ConfigError(f"format is {format!r}; it must be onnx, torchscript, pt2 or backbone")
    if half and int8:
        raise ConfigError("half and int8 exclude each other; choose one precision")
    if int8 and format != "onnx":
        raise ConfigError(f"int8 is for ONNX files, found format {format!r}")
    stem = "backbone" if format == "backbone" else "model"
    target = check_place(run.path / f"{stem}{_SUFFIX[format]}" if out is None else out, option("out"))
    if format == "backbone":
        write_bytes(target, _backbone(run, half))
        run.directory.record(target)
        return target
    precision = "float16" if half else "int8" if int8 else "float32"
    facts = _facts(run, precision)
    model = _on_cpu(run)
    reference = _Answers(model, run.answers_of, torch.float32).eval()
    dtype = torch.float16 if half else torch.float32
    exported = _Answers(copy.deepcopy(model).to(dtype), run.answers_of, dtype).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = _serialise(exported, facts, format, int8)
        ask = _reader(data, format, facts["input"]["name"])
        _check(reference, ask, facts, format, precision)
        if precision != "float32":
            facts["difference"] = _difference(run, reference, ask)
    write_bytes(target, data)
    beside = target.with_name(target.name + ".json")
    write_json(beside, facts)
    run.directory.record(target, beside)
    return target


def _on_cpu(run: Run) -> nn.Module:
    return copy.deepcopy(run.model).cpu().eval()


def _facts(run: Run, precision: str) -> dict[str, Any]:
    """Facts that a user of the file must know."""
    kind = run.task.kind
    output = {
        "name": "numbers" if kind == "number" else "probabilities",
        "dtype": "float32",
        "shape": ["batch", len(run.classes)],
        "order": "as classes",
    }
    about = {"repertoire": repertoire.__version__, "task": kind, "classes": list(run.classes), "precision": precision}
    if run.facts.modality == "features":
        shape = ["batch", *run.facts.shape]
        return {**about, "input": {"name": "features", "dtype": "float32", "shape": shape}, "output": output}
    channels = int(run.info["channels"])
    grey = "grey: 0.299 R + 0.587 G + 0.114 B"
    return {
        **about,
        "size": run.size,
        "channels": channels,
        "input": {
            "name": "images",
            "dtype": "float32",
            "shape": ["batch", channels, run.size, run.size],
            "layout": "NCHW",
            "order": "RGB" if channels == 3 else grey,
            "range": [0, 1],
        },
        "preprocessing": {
            "orientation": "turn the image upright as its EXIF orientation says",
            "transparent": "white",
            "fit": run.config.fit,
            "fit_means": _FIT[run.config.fit],
            "resize": {"size": run.size, "filter": "bicubic", "antialias": True, "reducing_gap": 3.0},
            "scale": "divide by 255",
            "normalisation": "none: the model subtracts mean and divides by standard deviation itself",
        },
        "output": output,
    }


def _example(facts: dict[str, Any], count: int, seed: int) -> Tensor:
    """Inputs of the shape that the file takes, between 0 and 1."""
    return torch.rand(count, *facts["input"]["shape"][1:], generator=torch.Generator().manual_seed(seed))


def _serialise(model: nn.Module, facts: dict[str, Any], format: Format, int8: bool) -> bytes:
    """The file's bytes. In memory: writers in C++ end the process when the disk is full."""
    images = _example(facts, 3, 0)
    buffer = io.BytesIO()
    if format == "torchscript":
        try:
            torch.jit.save(torch.jit.trace(model, images, check_trace=False), buffer)
            return buffer.getvalue()
        except RuntimeError:
            # A Python function with a gradient of its own. The exported program has it in plain operations, but a trace
            # of that may know one batch size only, which the check would find.
            buffer = io.BytesIO()
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    if format == "torchscript":
        torch.jit.save(torch.jit.trace(program.module(), images, check_trace=False), buffer)
        return buffer.getvalue()
    if format == "pt2":
        torch.export.save(program, buffer)
        return buffer.getvalue()
    return _onnx(program, facts, int8)


def _onnx(program: torch.export.ExportedProgram, facts: dict[str, Any], int8: bool) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingExtra("export", "export to ONNX") from None
    made = torch.onnx.export(
        program,
        (),
        input_names=[facts["input"]["name"]],
        output_names=[facts["output"]["name"]],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert made is not None
    model = _quantised(made.model_proto) if int8 else made.model_proto
    # torch names the axis after a symbol of its own, such as s34.
    old = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == old:
                dim.dim_param = "batch"
    onnx.helper.set_model_props(model, {name: _text(value) for name, value in facts.items()})
    return model.SerializeToString()


def _quantised(model: Any) -> Any:
    """The model with weights of 8 bits, and activations that are rounded to 8 bits by their range in each batch."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise MissingExtra("export", "an ONNX file of 8 bits") from None
    del model.graph.value_info[:]  # shapes that no longer hold once layers are replaced
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        logging.disable(logging.WARNING)  # it advises on the root logger, whatever it is given
        try:
            # Unsigned, because the convolution of integers on a CPU takes no other weights.
            quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(target)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _reader(data: bytes, format: Format, name: str) -> Callable[[Tensor], np.ndarray]:
    """What the file answers to images."""
    if format == "pt2":
        module = torch.export.load(io.BytesIO(data)).module()
        return lambda images: module(images).numpy()
    if format == "torchscript":
        script = torch.jit.load(io.BytesIO(data))
        return lambda images: script(images).numpy()
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("export", "checking an ONNX file") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {name: images.numpy()})[0]


def _check(
    reference: nn.Module, ask: Callable[[Tensor], np.ndarray], facts: dict[str, Any], format: str, precision: str
) -> None:
    """Raises `RunError` if the file does not answer as the model does."""
    for count in _BATCHES:
        images = _example(facts, count, count)
        expected = reference(images).numpy()
        try:
            found = ask(images)
        except Exception as error:  # whatever the reader of the format raises
            reason = " ".join(str(error).split())[-200:]
            raise RunError(f"the {format} file does not work for {count} images; it was not kept: {reason}") from None
        gap = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if (
            found.shape != expected.shape
            or not np.isfinite(found).all()
            or (precision == "float32" and gap > TOLERANCE)
        ):
            raise RunError(
                f"the {format} file disagrees with the model by {gap:.2g} for {count} images; it was not kept"
            )


def _difference(run: Run, reference: nn.Module, ask: Callable[[Tensor], np.ndarray]) -> dict[str, Any]:
    """What lower precision costs, on test images of the run."""
    try:
        test = run.splits.test
    except (RepertoireError, OSError) as error:
        return {"images": 0, "reason": f"the run's images cannot be read: {error}"}
    count = min(_COMPARED, len(test))
    step = max(1, 2**22 // run.size**2)
    pictures = run.facts.modality == "images"
    before, after = [], []
    for start in range(0, count, step):
        rows = torch.tensor(test.inputs(slice(start, min(count, start + step))))
        images = plain(rows) if pictures else rows.float()
        before.append(reference(images).numpy())
        after.append(ask(images.contiguous()))
    model, file = np.concatenate(before), np.concatenate(after)
    found: dict[str, Any] = {"images": count, "largest": float(np.abs(model - file).max())}
    if run.task.kind in ("classes", "votes"):
        found["agreement"] = float((model.argmax(1) == file.argmax(1)).mean())
    labels = np.asarray(test.labels[:count])
    if run.task.kind == "classes" and (known := labels >= 0).any():
        for name, answers in (("accuracy", model), ("accuracy_exported", file)):
            found[name] = float((answers.argmax(1) == labels)[known].mean())
    return found


def _backbone(run: Run, half: bool) -> bytes:
    """The backbone's weights under their own names, as safetensors."""
    from safetensors.torch import load, save

    model = _on_cpu(run)
    state = {name: value.detach().contiguous().clone() for name, value in model.backbone.state_dict().items()}  # type: ignore[union-attr]
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    info = {"mean": run.info["mean"], "std": run.info["std"], "size": run.size, "channels": int(run.info["channels"])}
    facts = {"repertoire": repertoire.__version__, "backbone": run.config.backbone, **info}
    data = save(state, {name: _text(value) for name, value in facts.items()})
    if any(not torch.equal(value, state[name]) for name, value in load(data).items()):
        raise RunError("the backbone's weights are not what was read back; they were not kept")
    return data
