"""Weights by their name on the Hugging Face hub: from its cache, and from the network only when asked."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from repertoire.backbones._read import WEIGHT_FILES
from repertoire.errors import ConfigError, MissingExtra, option

__all__ = ["check_reachable", "hub_file", "is_hub_name"]

_NAME = re.compile(r"(?:hf:)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")


def is_hub_name(source: str) -> bool:
    """True if a text has the form of a name on the hub: owner/name, `hf:` before it and `@revision` after it or not."""
    return _NAME.fullmatch(source) is not None


def hub_file(source: str, *, download: bool) -> Path:
    """The file of weights of a repository on the hub.

    Args:
        source: `owner/name`, with `hf:` before it and `@revision` after it or not.
        download: whether the network may be asked for what is not in the cache.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        ConfigError: it is not in the cache, or cannot be fetched.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("hf", f"weights {source!r} from the Hugging Face cache") from error
    match = _NAME.fullmatch(source)
    assert match is not None
    repository, revision = match[1], match[2]
    for name in WEIGHT_FILES:
        path = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(path, str):
            return Path(path)
    if not download:
        raise ConfigError(
            f"weights: there is no file {source}, and the Hugging Face cache has no {' or '.join(WEIGHT_FILES)} of "
            f"{repository}; fetch it with {option('download', True)}"
        )
    check_reachable(f"weights {repository}")
    reasons = []
    for name in WEIGHT_FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # a dozen kinds, of that package and of those below it
            reasons.append(f"{type(error).__name__}: {error}".strip().split("\n", 1)[0])
    raise ConfigError(f"weights {repository} cannot be fetched: {reasons[0]}")


def check_reachable(what: str) -> None:
    """Asks the hub once, for a few seconds: its own client tries again for minutes where there is no network.

    Raises:
        ConfigError: it does not answer, or is not to be asked (HF_HUB_OFFLINE).
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"{what} cannot be fetched: the environment variable HF_HUB_OFFLINE forbids it")
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        pass  # an answer, if not the one asked for
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(f"{what} cannot be fetched: {endpoint} does not answer ({reason})") from error
