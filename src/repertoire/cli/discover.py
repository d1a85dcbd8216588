"""`repertoire discover`: images that nobody labelled, into known classes and new groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from repertoire.cli._options import DeviceOption, folder_out, safe_cell

if TYPE_CHECKING:
    import numpy as np

    from repertoire.discover import Discoverer

__all__ = ["discover"]

_FILES = (".npz", ".safetensors")


class _Rows(NamedTuple):
    """Features, the known class of each row or -1, names of rows and classes, and what is true where that is known."""

    X: np.ndarray
    y: np.ndarray
    names: list[str]
    classes: tuple[str, ...]
    truth: list[str] | None


def discover(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder of images, however they lie in it; or a file of features, .npz or .safetensors, whose "
            "labels are -1 where nobody knows the class.",
            show_default=False,
        ),
    ],
    known: Annotated[
        Path | None,
        typer.Option(
            help="Images of the known classes, a directory for each; or a file of features with labels.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="How; see 'repertoire list discoverers'.")] = "protogcd",
    classes: Annotated[
        str, typer.Option(help="How many classes there are, known and new together; auto estimates it.")
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Directory; runs/PHOTOS-discovered by default.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Of images: the pretrained network whose features are grouped.")
    ] = "lite0",
    size: Annotated[
        int | None, typer.Option(help="Of images: their side in pixels; the network's own.", show_default=False)
    ] = None,
    truth: Annotated[
        bool,
        typer.Option(
            "--truth",
            help="The directories of PHOTOS, or an array called truth in the file, say what is true: only to say how "
            "good the groups are.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Group images that nobody labelled: into known classes, and into new ones, whose number is estimated.

    Writes groups.csv (file, group, new, outlier score: the highest fit no group), discovered.json and index.html with
    some of each group. The same command goes on where it was stopped, and gives the same.
    """
    from repertoire.errors import ConfigError, ascii_path
    from repertoire.files import write_json

    discoverer = _build(method, classes, seed)
    places = {"data": str(data), "known": None if known is None else str(known)}
    settings = {**places, "method": method, "classes": classes, "seed": seed}
    if data.suffix.lower() not in _FILES:
        if known is None:
            raise ConfigError("give the images of the known classes, a directory for each: --known KNOWN/")
        if not data.is_dir():
            raise ConfigError(f"{ascii_path(str(data))} is no folder of images, and no .npz or .safetensors file")
        settings |= {"backbone": backbone, "size": size}
    folder = out or Path("runs") / f"{data.resolve().stem}-discovered"
    _check_place(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", settings)
    if data.suffix.lower() in _FILES:
        rows = _of_features(data, known, truth)
    else:
        assert known is not None
        fields = {"backbone": backbone, "size": size, "device": device, "seed": seed}
        rows = _of_images(data, known, folder / "features.npz", fields, truth)
    _check_rows(rows)
    discoverer.fit(rows.X, rows.y)
    called = _called(discoverer, rows)
    _write(folder / "groups.csv", rows, discoverer, called)
    found = _summary(discoverer, rows)
    write_json(folder / "discovered.json", {**settings, **found})
    _print(found, discoverer, rows, called)
    typer.echo(f"groups: {ascii_path(str(folder / 'groups.csv'))}")
    page = _page(folder / "index.html", data, rows, discoverer, called)
    typer.echo(f"{'pictures' if data.is_dir() else 'page'}: {ascii_path(str(page))}")


def _build(method: str, classes: str, seed: int) -> Discoverer:
    """The discoverer, before anything is read.

    Raises:
        ConfigError: there is none of that name, or an option or the number of classes is out of range.
    """
    from repertoire import registry
    from repertoire.errors import ConfigError

    if classes != "auto" and not (classes.isascii() and classes.isdigit() and int(classes) > 0):
        raise ConfigError(f"--classes is {classes!r}; give how many there are, known and new together, or auto")
    parsed = registry.parse(method)
    for name, flag in (("classes", "--classes"), ("random_state", "--seed")):
        if name in parsed.kwargs:
            raise ConfigError(f"{method!r} has the option {name!r}; give it as {flag}")
    if parsed.args:
        raise ConfigError(f"{method!r} has an option without a name; write {parsed.name}:name=value")
    given = {**parsed.kwargs, "classes": classes, "random_state": str(seed)}
    built: Discoverer = registry.build("discoverers", registry.Spec(parsed.name, (), given))
    return built


def _check_place(folder: Path, settings: dict[str, Any]) -> None:
    """Refuses a directory that holds anything but what the same command has begun.

    Raises:
        ConfigError: it does.
    """
    import json

    from repertoire.errors import ConfigError, ascii_path

    if not folder.exists() or (folder.is_dir() and all(map(_half_written, folder.iterdir()))):
        return
    shown = ascii_path(str(folder))
    try:
        begun = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"--out {shown} exists already; name a directory that is empty or not there yet") from None
    if begun != settings:
        other = next(name for name in settings if begun.get(name) != settings[name])
        raise ConfigError(
            f"{shown} holds groups of another {other}: {begun.get(other)!r}; name another directory by --out"
        )


def _half_written(path: Path) -> bool:
    """Whether a file is what a command leaves that is killed while it writes its first one."""
    return path.name.startswith(".settings.json.") and path.suffix == ".tmp"


def _of_images(data: Path, known: Path, kept: Path, fields: dict[str, Any], with_truth: bool) -> _Rows:
    """Features of the images, by a network that stays as it is; they are kept beside the groups."""
    import numpy as np

    from repertoire.recipe import embed_data, make_config

    chosen = {name: value for name, value in fields.items() if value is not None}
    config = make_config(data=str(known), unlabelled=str(data), **chosen)
    embed_data(config, kept, report=lambda line: typer.echo(line, err=True))
    with np.load(kept, allow_pickle=False) as stored:
        held = {name: stored[name] for name in ("features", "names", "labels", "split", "classes")}
    labels = np.where(held["split"] == "unlabelled", -1, held["labels"])
    names = [str(name) for name in held["names"]]
    truth = [Path(name).parent.name for name in names] if with_truth else None
    return _Rows(held["features"], labels, names, tuple(map(str, held["classes"])), truth)


def _of_features(data: Path, known: Path | None, with_truth: bool) -> _Rows:
    import numpy as np

    from repertoire.data import load_feature_set
    from repertoire.errors import ConfigError, DataError

    first = None if known is None else load_feature_set(known)
    rest = load_feature_set(data)
    if first is None:
        first, parts = rest, [rest]
    else:
        if first.shape != rest.shape:
            raise DataError(f"{data} has {rest.shape[0]} features a row, and {known} {first.shape[0]}")
        parts = [first, rest]
    if first.kind != "classes":
        raise DataError(f"{known or data} must give one class for each row, or -1; found {first.kind}")
    # What the file says of rows that are to be grouped counts only where there is no other.
    labels = [np.asarray(first.labels), *(np.full(len(part), -1) for part in parts[1:])]
    truth = None
    if with_truth:
        if data.suffix.lower() != ".npz":
            raise ConfigError("--truth reads an array of an .npz file")
        with np.load(data, allow_pickle=False) as stored:
            if "truth" not in stored or len(stored["truth"]) != len(rest):
                raise DataError(f"{data} has no array called truth, with a class for each of its {len(rest)} rows")
            own = [_name(value, first.classes) for value in stored["truth"].tolist()]
        truth = [*([""] * (len(first) if known is not None else 0)), *own]
    X = np.concatenate([np.asarray(part.inputs(slice(None)), np.float32) for part in parts])
    return _Rows(X, np.concatenate(labels), [str(n) for part in parts for n in part.names], first.classes, truth)


def _name(value: Any, classes: tuple[str, ...]) -> str:
    """A class of an array, which holds names or numbers, as a name; of a new class the number is one."""
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else str(value)


def _check_rows(rows: _Rows) -> None:
    """Raises `DataError` unless some rows are known, of two classes, and some are not."""
    import numpy as np

    from repertoire.errors import DataError

    counts = np.bincount(rows.y[rows.y >= 0], minlength=len(rows.classes))
    empty = [name for name, count in zip(rows.classes, counts, strict=True) if not count]
    if len(rows.classes) < 2 or len(counts) - len(empty) < 2:
        raise DataError(f"two known classes or more are needed, with images of each; found {len(counts) - len(empty)}")
    if empty:
        raise DataError(f"no row is of the known class {empty[0]!r}; leave it out of the classes")
    if (rows.y >= 0).all():
        raise DataError("every row has a class, and nothing is left to group; labels are -1 where nobody knows it")


def _called(discoverer: Discoverer, rows: _Rows) -> list[str]:
    """The name of each group: that of a class, or "new 1" and so on; none is called like a class."""
    new = max(0, int(discoverer.labels_.max()) + 1 - len(rows.classes))
    word = "new"
    while any(name.startswith(f"{word} ") for name in rows.classes):
        word += "-group"
    return [*rows.classes, *(f"{word} {number}" for number in range(1, new + 1))]


def _write(path: Path, rows: _Rows, discoverer: Discoverer, called: list[str]) -> None:
    import csv
    import io

    import numpy as np

    from repertoire.files import write_text

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "group", "new", "outlier_score"])
    for i in np.flatnonzero(rows.y < 0).tolist():
        group = int(discoverer.labels_[i])
        new = "yes" if group >= len(rows.classes) else "no"
        score = f"{discoverer.outlier_scores_[i]:.6g}"
        writer.writerow([safe_cell(rows.names[i]), safe_cell(called[group]), new, score])
    write_text(path, text.getvalue())


def _page(path: Path, data: Path, rows: _Rows, discoverer: Discoverer, called: list[str]) -> Path:
    """The page that shows some images of each group, or names of its rows, those first that fit it best."""
    import numpy as np

    from repertoire.report import Group, write_groups

    free = np.flatnonzero(rows.y < 0)
    free = free[np.argsort(discoverer.outlier_scores_[free], kind="stable")]
    groups = []
    for number, name in enumerate(called):
        mine = [rows.names[i] for i in free if discoverer.labels_[i] == number]
        files = [data / file for file in mine] if data.is_dir() else []
        groups.append(Group(name, number >= len(rows.classes), files, mine))
    interval = discoverer.n_classes_interval_
    said = str(discoverer.n_classes_) + ("" if interval is None else f", estimated ({interval[0]} to {interval[1]})")
    noun = "image" if data.is_dir() else "row"
    return write_groups(path, groups, source=str(data), facts={"Classes, known and new": said}, noun=noun)


def _summary(discoverer: Discoverer, rows: _Rows) -> dict[str, Any]:
    """How many classes there are, and how good the groups are where the truth is known."""
    import math

    import numpy as np

    from repertoire.metrics import clustering_accuracy

    interval = discoverer.n_classes_interval_
    found: dict[str, Any] = {
        "known_classes": len(rows.classes),
        "estimated_classes" if interval else "given_classes": discoverer.n_classes_,
        "interval": None if interval is None else list(interval),
    }
    if rows.truth is None:
        return found
    free = np.flatnonzero(rows.y < 0)
    own = [rows.truth[i] for i in free]
    names = {name: number for number, name in enumerate([*rows.classes, *sorted(set(own) - set(rows.classes))])}
    accuracy = clustering_accuracy(
        discoverer.labels_[free], np.array([names[name] for name in own]), old=range(len(rows.classes))
    )
    for part in ("all", "old", "new"):
        value = getattr(accuracy, part)
        found[f"accuracy_{part}"] = None if math.isnan(value) else value
    return found


def _print(found: dict[str, Any], discoverer: Discoverer, rows: _Rows, called: list[str]) -> None:
    import numpy as np

    from repertoire.errors import ascii_path, plural

    free = discoverer.labels_[rows.y < 0]
    sizes = np.bincount(free, minlength=len(called))
    known = int(sizes[: len(rows.classes)].sum())
    new = int((sizes[len(rows.classes) :] > 0).sum())
    said = ""
    if found["interval"]:
        low, high = found["interval"]
        said = f"; about {discoverer.n_classes_} classes in all ({low} to {high})"
    typer.echo(
        f"{len(free)} rows: {known} of {plural(len(rows.classes), 'known class', 'known classes')}, "
        f"{len(free) - known} in {plural(new, 'new group')}{said}"
    )
    for name, size in zip(called, sizes.tolist(), strict=True):
        typer.echo(f"  {size:6d} {ascii_path(name)}")
    if not new and found["interval"]:
        typer.echo("it is no proof that nothing is new: try --classes with a number, or --method NAME:by=silhouette")
    if "accuracy_all" in found:
        parts = [
            f"{name} {found[f'accuracy_{name}']:.1%}"
            for name in ("all", "old", "new")
            if found[f"accuracy_{name}"] is not None
        ]
        typer.echo(f"accuracy under the best assignment of groups to classes: {', '.join(parts)}")
