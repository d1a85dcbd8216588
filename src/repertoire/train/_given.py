"""What training takes from memory: data and modules of the user's own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from repertoire.data import Samples, Splits, cache_directory, from_memory
from repertoire.errors import ConfigError, DataError, RunError
from repertoire.files import write_text
from repertoire.recipe import IN_MEMORY, TrainConfig, folded, give, given_names, needs_of
from repertoire.train._directory import RunDirectory

__all__ = ["data_name", "give_again", "lacking", "splits_in_memory"]


def data_name(data: Any) -> str:
    """Name of some data in a configuration: its path or its source; that of a table is written down first.

    Raises:
        DataError: it is no data.
    """
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    if isinstance(data, Splits | Samples):
        return IN_MEMORY
    if hasattr(data, "columns") and hasattr(data, "to_csv"):
        return _table(data)
    if isinstance(data, tuple | list) and len(data) == 2:
        return IN_MEMORY
    raise DataError(
        f"data is a {type(data).__name__}; expected a path or the name of a source, (X, y), an ImageSet, a FeatureSet, "
        "Splits, or a table with a column of paths and one of labels"
    )


def splits_in_memory(data: Any, config: TrainConfig) -> Splits | None:
    """The splits of data that is in memory; None for what a configuration can name."""
    if config.data != IN_MEMORY:
        return None
    if isinstance(data, Splits):
        return folded(config, data)
    asked = config.method != "auto" and needs_of(config).labels != "required"
    x, y = (data, None) if isinstance(data, Samples) else data
    size = config.size if not isinstance(data, Samples) else None
    splits = from_memory(x, y, size=size, seed=config.seed, val=config.val, test=config.test, unlabelled=asked)
    return folded(config, splits)


def _table(frame: Any) -> str:
    """Writes a table of paths and labels where it stays, named by its content, and gives the source that reads it."""
    text = frame.to_csv(index=False)
    name = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    path = cache_directory() / "tables" / f"{name}.csv"
    write_text(path, text)
    return f"table:({path}),root=({Path.cwd()})"


def give_again(directory: RunDirectory, config: TrainConfig, backbone: Any, loss: Any) -> None:
    """Makes the modules known that a run was trained with.

    Raises:
        ConfigError: a module is given to a run that has a component of a name.
    """
    names = given_names(config.backbone, config.loss)
    for option, kind, module in (("backbone", "backbones", backbone), ("loss", "losses", loss)):
        if module is None:
            continue
        if option not in names:
            raise ConfigError(
                f"{option} is given, and {directory} was trained with {getattr(config, option)!r}: leave it out"
            )
        give(kind, module, names[option])


def lacking(directory: RunDirectory, config: TrainConfig) -> RunError:
    """Message where the modules of a run are not there."""
    words = ", ".join(f"{option}=..." for option in given_names(config.backbone, config.loss))
    return RunError(f"{directory} was trained with modules that were given to it; give them again: load(path, {words})")
