"""`repertoire predict` and `repertoire embed`: a run's model on new images, in constant memory."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repertoire.cli._options import (
    DeviceOption,
    EnsembleOption,
    ImagesArgument,
    NullOption,
    PluginOption,
    RunArgument,
    SkipOption,
    TtaOption,
    file_out,
    folder_out,
)

if TYPE_CHECKING:
    import numpy as np

    from repertoire.errors import Unreadable
    from repertoire.train import Concatenated, Rejector, Run

__all__ = ["embed", "predict", "read_batches"]


@dataclass(frozen=True)
class Row:
    """Line that is printed for an image.

    Attributes:
        name: of the image.
        answers: classes, labels or numbers by name, with their probabilities or values, in the order in which they are
            printed.
        exit: the exit it left by, from 1; None without early exits.
        true: its class, where that is known; None where nothing is known of any.
        score: how likely it is of a known class; None where nothing is rejected.
        known: whether that is enough for an answer.
    """

    name: str
    answers: list[tuple[str, float]]
    exit: int | None = None
    true: str | None = None
    score: float | None = None
    known: bool = True

    @property
    def printable(self) -> str:
        """The name as text; bytes that are no UTF-8 are escaped."""
        return self.name.encode("utf-8", "backslashreplace").decode()


class TableFormat(StrEnum):
    """Format of printed predictions."""

    table = "table"
    csv = "csv"
    json = "json"


class ClassRule(StrEnum):
    """How an answer is found among classes that a run does not know."""

    frechet = "frechet"


def predict(
    run: RunArgument,
    images: ImagesArgument = None,
    format: Annotated[TableFormat, typer.Option(help="How to print.")] = TableFormat.table,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="How many classes to print for each image; 1 by default.", show_default=False),
    ] = None,
    early_exit: Annotated[
        float | None,
        typer.Option(
            metavar="CONFIDENCE",
            help="Let an image leave at the first block that is this sure of it; for runs of local learning.",
            show_default=False,
        ),
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Call an image unknown that looks like none of the classes, so that this share of images of known "
            "classes is kept, such as 0.95; the threshold is taken from the run's validation images.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="With --reject: what it goes by; see 'repertoire list novelty-scores'. By default the one that tells "
            "classes best that are held out in turn.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Answer with classes that the run was never trained on, too: a .csv file that says how far classes "
            "are from each other. Either a tree, with the columns class,parent (and length, of the edge; 1 without), "
            "the parent of the root being empty; or a table of distances, whose first row is class,NAME,NAME with the "
            "classes of the run, and then a row for each answer.",
            show_default=False,
        ),
    ] = None,
    rule: Annotated[
        ClassRule | None,
        typer.Option(
            help="With --classes: frechet takes the class with the least mean squared distance to what the run says.",
            show_default="frechet",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Take the best way through a stitched network that costs no more than this share of the largest.",
            show_default=False,
        ),
    ] = None,
    tta: TtaOption = False,
    ensemble: EnsembleOption = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    null: NullOption = False,
    skip_unreadable: SkipOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Where maps are written, of a run that gives every pixel a class.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the class of new images, with its probability.

    Several runs with the same classes answer together: predict runs/a runs/b -- IMAGES; so do the folds of
    `train --folds`: predict runs/photos-folds IMAGES. A .csv file of paths and labels
    gives the true classes beside the predicted ones, and the accuracy in the end.

    With --reject 0.95, images of no known class are called unknown: 95 % of those of known classes keep theirs. A run
    that was trained without classes, on normal images alone, says known or unknown, and the score that it goes by.

    With --classes tree.csv, the answer may be a class that the run never saw, and is printed with its distance: the
    root of the mean squared one to the true class, if the run's probabilities are right. Of a tree, classes with others
    below them are answers only where the run knows them.

    A run that was trained with --attributes answers with any class that is described, whether it had images of it or
    not.
    """
    from repertoire.cli._inputs import given_inputs, image_paths, shown
    from repertoire.cli._nearby import Nearby
    from repertoire.cli._options import open_runs, report_failures, skips
    from repertoire.cli._zero_shot import Described, is_described
    from repertoire.errors import ConfigError

    more, images = _split(images or [])
    if early_exit is not None and not 0 <= early_exit <= 1:
        raise ConfigError(f"--early-exit is {early_exit}; expected a probability, from 0 to 1")
    if reject is not None and not 0 < reject < 1:
        raise ConfigError(f"--reject is {reject:g}; expected the share of known images to keep, above 0 and below 1")
    if score is not None and reject is None:
        raise ConfigError(f"--score {score} goes with --reject, the share of known images to keep, such as 0.95")
    if rule is not None and classes is None:
        raise ConfigError(f"--rule {rule.value} needs --classes FILE, which says how far classes are from each other")
    if classes is not None and reject is not None:
        raise ConfigError("--classes answers with classes that are not known, and --reject refuses them; leave one out")
    others = [*more, *(ensemble or ())]
    if reject is not None and (tta or early_exit is not None or others):
        raise ConfigError("--reject asks one network once; leave out --tta, --early-exit, --ensemble and further runs")
    opened, answering = open_runs(run, others, device, plugin)
    if early_exit is not None and (tta or answering is not opened):
        raise ConfigError("--early-exit asks one network once; leave out --tta, --ensemble and further runs")
    if reject is not None and answering is not opened:
        raise ConfigError(f"--reject asks one network; name one of the runs in {run}")
    if budget is not None:
        from repertoire.weights import Stitched

        model: Any = opened.model
        if answering is not opened or not isinstance(model, Stitched):
            raise ConfigError("--budget is for one run that several were stitched into (repertoire stitch)")
        model.use(model.within(budget))
    if (opened.task.kind == "maps") != (out is not None):
        raise ConfigError(
            f"{opened.directory} gives every pixel a class: name the folder for the maps with --out"
            if out is None
            else f"--out is for maps, and {opened.directory} has one answer for an image, which is printed"
        )
    if out is not None:
        paths = image_paths(images, null=null)
        unused = _write_maps(opened, paths, out, [shown(path) for path in paths], tta=tta, early_exit=early_exit)
        report_failures(unused, len(paths), skips(opened, skip_unreadable))
        return
    nearby: Nearby | Described | None = None if classes is None else Nearby(classes, opened)
    given = given_inputs(opened, images, null=null)
    options: dict[str, Any] = {"tta": tta}
    source: Any = answering
    rejector: Rejector | None = None
    if reject is not None:
        source = rejector = opened.reject(reject, score or "auto")
        _say_threshold(rejector)
    if early_exit is not None:
        _ = opened.exits  # refused before an image is read
        options = {"early_exit": early_exit}
    if nearby is None and rejector is None and early_exit is None and answering is opened and is_described(opened):
        if tta:
            raise ConfigError("classes that are described are told by features of single views; leave out --tta")
        source = nearby = Described(opened)
        options = {}
    kind = opened.task.kind if nearby is None else "distances" if classes is not None else "described"
    if rejector is not None and kind == "none":
        kind = "known"
    failures: list[Unreadable] = []
    work: list[float] = []
    right: list[bool] = []
    unknown: list[bool] = []

    def rows() -> Iterator[Row]:
        for found in source.stream(given.source, **options):
            failures.extend(found.failed)
            nothing = [None] * len(found.index)
            for i, values, left, rated in zip(
                found.index,
                found.values,
                found.exits if found.exits is not None else nothing,
                found.scores if found.scores is not None else nothing,
                strict=True,
            ):
                if left is not None:
                    work.append(opened.exits.work[left])
                true = None
                if given.labels is not None and kind != "known":
                    true = _true(given.labels[i], opened)
                known = rejector is None or rated >= rejector.threshold
                if rejector is not None:
                    unknown.append(not known)
                if kind == "known":
                    answers = [(rejector.classes[0], math.nan)] if rejector is not None else []
                else:
                    answers = _answers(values, opened, top) if nearby is None else nearby.ranked(values, top or 1)
                if true and known and opened.task.kind == "classes":
                    right.append(answers[0][0] == true)
                number = None if left is None else int(left) + 1
                yield Row(given.name(i), answers, number, true, rated, known)

    printers = {TableFormat.table: _print_table, TableFormat.csv: _print_csv, TableFormat.json: _print_json}
    printers[format](rows(), kind)
    sys.stdout.flush()
    if work:
        typer.echo(f"mean work: {sum(work) / len(work):.2f} of the whole network", err=True)
    if unknown:
        typer.echo(f"{sum(unknown)} of {len(unknown)} {opened.noun}s are unknown", err=True)
    if right:
        from repertoire.tasks import wilson

        low, high = wilson(sum(right), len(right))
        share = sum(right) / len(right)
        which = f"{len(right)} labelled {opened.noun}s" + (" that were kept" if rejector is not None else "")
        typer.echo(f"accuracy {share:.1%} ({low:.1%} to {high:.1%}) on {which}", err=True)
    report_failures(failures, len(given), skips(opened, skip_unreadable))


def _say_threshold(rejector: Rejector) -> None:
    """Says on standard error what is called unknown, and how far the share that is kept may be trusted."""
    from repertoire.openset import false_alarm_range

    low, high = false_alarm_range(rejector.validation, 1 - rejector.keep)
    chosen = ""
    if rejector.choice is not None:
        best = rejector.choice.scores[0]
        chosen = f" (chosen: AUROC {best.auroc:.3f} on classes held out)"
    typer.echo(
        f"unknown: {rejector.spec}{chosen} below {rejector.threshold:.4g}, the threshold of {rejector.validation} "
        f"validation {rejector.run.noun}s; of known ones, {low:.1%} to {high:.1%} will be called unknown",
        err=True,
    )


def _write_maps(run: Run, paths: Sequence[Any], out: Path, names: Sequence[str], **options: Any) -> list[Unreadable]:
    """Writes a PNG of class indices for each image, as large as the network sees it, and gives what cannot be used.

    Raises:
        ConfigError: two images would have maps of the same name.
    """
    from PIL import Image

    from repertoire.errors import ConfigError
    from repertoire.files import atomic_path

    targets = [out / f"{Path(name).stem}.png" for name in names]
    if len(set(targets)) < len(targets):
        twice = next(target for target in targets if targets.count(target) > 1)
        raise ConfigError(f"two images would have the map {twice.name}: write their maps to folders of their own")
    out.mkdir(parents=True, exist_ok=True)
    failures: list[Unreadable] = []
    written = 0
    for found in run.stream(paths, **options):
        failures.extend(found.failed)
        for i, values in zip(found.index, found.values, strict=True):
            with atomic_path(targets[i]) as temporary:
                Image.fromarray(values.astype("uint8")).save(temporary, format="PNG")
            written += 1
    typer.echo(
        f"{written} maps of {run.size} x {run.size} pixels in {out}; values: "
        + ", ".join(f"{k} {name}" for k, name in enumerate(run.classes[:20]))
    )
    return failures


def embed(
    run: Annotated[
        Path, typer.Argument(help="Directory of a run; with --backbone, the data itself.", show_default=False)
    ],
    images: ImagesArgument = None,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", parser=file_out, metavar="PATH", help="The .npz file to write.", show_default="features.npz"
        ),
    ] = Path("features.npz"),
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Without a run: the pretrained network whose features are wanted, such as lite0, of the data that "
            "`train` takes. The file keeps labels and parts, and can be trained on.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="With --backbone: its weights, as in `train`.", show_default=False)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="With --backbone: side of the images in pixels; its natural one.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --backbone: seed of the parts.", show_default=False)] = None,
    concat: Annotated[
        bool,
        typer.Option(
            "--concat", help="Put the features of several runs side by side, which are named before the images."
        ),
    ] = False,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    null: NullOption = False,
    skip_unreadable: SkipOption = None,
) -> None:
    """Write the features of images to an .npz file: `features` [N, d] and `names` [N].

    Without a run: embed PHOTOS/ --backbone lite0. Of several: embed RUN RUN PHOTOS/ --concat.
    """
    import numpy as np

    from repertoire.cli._inputs import given_inputs
    from repertoire.cli._options import open_run, report_failures, skips
    from repertoire.errors import ConfigError, UnreadableImages
    from repertoire.files import atomic_path
    from repertoire.train import Concatenated

    if out.suffix != ".npz":
        raise ConfigError(f"--out is {out}; features are written as .npz")
    alone = {"weights": weights, "size": size, "seed": seed}
    if backbone is not None:
        if images or null or plugin or concat:
            raise ConfigError("with --backbone there is no run: give the data alone, as to train")
        _embed_alone(str(run), out, {"backbone": backbone, "device": device, **alone}, skip_unreadable)
        return
    if misplaced := [name for name, value in alone.items() if value is not None]:
        raise ConfigError(f"--{misplaced[0]} goes with --backbone; a run has its own")
    opened = open_run(run, device, plugin)
    source: Run | Concatenated = opened
    if concat:
        others, images = _runs_first(images or [])
        if not images and not null:
            raise ConfigError("there are only runs: name the images behind them, embed RUN RUN PHOTOS/ --concat")
        source = Concatenated([opened, *(open_run(path, device, plugin) for path in others)])
    given = given_inputs(opened, images or [], null=null)
    failures: list[Unreadable] = []
    features: list[np.ndarray] = []
    names: list[str] = []
    kept: list[np.ndarray] = []
    for found in source.stream_features(given.source):
        failures.extend(found.failed)
        if len(found.index):
            features.append(found.values)
            kept.append(found.index)
            names.extend(given.name(i).encode("utf-8", "backslashreplace").decode() for i in found.index)
    skip = skips(opened, skip_unreadable)
    if failures and (not skip or not names):
        raise UnreadableImages(failures, len(given))
    known: dict[str, Any] = {}
    if given.labels is not None:
        known = {"labels": given.labels[np.concatenate(kept)], "classes": np.array(opened.classes)}
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, features=np.concatenate(features), names=np.array(names), **known)
    typer.echo(f"{len(names)} x {features[0].shape[1]} features in {out}")
    report_failures(failures, len(given), skip)


def _runs_first(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The runs at the beginning of what was named, and all that follows."""
    count = 0
    while count < len(arguments) and (Path(arguments[count]) / "run.json").is_file():
        count += 1
    return [Path(name) for name in arguments[:count]], list(arguments[count:])


def _embed_alone(data: str, out: Path, fields: dict[str, Any], skip_unreadable: bool | None) -> None:
    from repertoire.recipe import embed_data, make_config

    chosen = {name: value for name, value in fields.items() if value is not None}
    config = make_config(data=data, skip_unreadable=bool(skip_unreadable), **chosen)
    count, width = embed_data(config, out, report=lambda line: typer.echo(line, err=True))
    typer.echo(f"{count} x {width} features in {out}")
    typer.echo(f"try next: repertoire train {out}")


def read_batches(
    run: Run, paths: Sequence[Path], failures: list[Unreadable]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of pixels with their positions in `paths`; what cannot be used goes to `failures`."""
    from repertoire.data import decode_files

    for indices, pixels, failed in decode_files(paths, **run.reading):
        failures.extend(failed)
        if len(indices):
            yield indices, pixels


def _split(images: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Further runs, which come first, and images."""
    count = 0
    while count < len(images) and any((Path(images[count]) / name).is_file() for name in ("run.json", "folds.json")):
        count += 1
    return [Path(name) for name in images[:count]], list(images[count:])


def _true(label: Any, run: Run) -> str:
    """The true class, labels or numbers, as text; nothing where nobody knows."""
    kind = run.task.kind
    if kind == "number":
        return " ".join(f"{value:g}" for value in label)
    if kind == "labels":
        return ";".join(name for name, value in zip(run.classes, label, strict=True) if value == 1)
    return run.classes[label] if label >= 0 else ""


def _answers(values: np.ndarray, run: Run, top: int | None) -> list[tuple[str, float]]:
    from repertoire.train import top as top_classes

    kind = run.task.kind
    if kind == "number":
        return [(name, float(value)) for name, value in zip(run.classes, values, strict=True)]
    best = top_classes(values[None], run.classes, top or (len(run.classes) if kind == "labels" else 1))[0]
    return best if kind != "labels" or top else [(name, value) for name, value in best if value >= 0.5]


def _print_table(rows: Iterator[Row], kind: str) -> None:
    from repertoire.errors import ascii_path

    for row in rows:
        if kind == "number":
            said = "  ".join(f"{ascii_path(label)} {value:.6g}" for label, value in row.answers)
        elif kind == "distances":
            said = "  ".join(f"{ascii_path(label)} (distance {value:.3g})" for label, value in row.answers)
        elif kind == "described" and math.isnan(row.answers[0][1]):
            said = "  ".join(ascii_path(label) for label, _ in row.answers)
        elif kind == "known":
            said = f"{row.score:10.4g} {row.answers[0][0] if row.known else 'unknown'}"
        else:
            said = "  ".join(f"{value:6.1%} {ascii_path(label)}" for label, value in row.answers) or "     - none"
            said = said if row.known else "     - unknown"
        left = f"  (exit {row.exit})" if row.exit is not None else ""
        wrong = row.true and (not row.known or row.true != row.answers[0][0])
        true = f"  (true: {ascii_path(row.true)})" if wrong and row.true else ""
        typer.echo(f"{said}{left}{true}  {ascii_path(row.name)}")


def _print_csv(rows: Iterator[Row], kind: str) -> None:
    from repertoire.cli._options import safe_cell
    from repertoire.train import UNKNOWN

    writer = csv.writer(sys.stdout)
    names = ["image", "number", "value"] if kind == "number" else ["image", "rank", "class", _called(kind)]
    header = False
    for row in rows:
        extra = ([] if row.exit is None else [row.exit]) + ([] if row.true is None else [safe_cell(row.true)])
        extra += [] if row.score is None else ["yes" if row.known else "no", f"{row.score:.9g}"]
        if not header:
            more = ([] if row.exit is None else ["exit"]) + ([] if row.true is None else ["true"])
            more += [] if row.score is None else ["known", "score"]
            writer.writerow([*names, *more])
            header = True
        answers = row.answers if row.known else [(UNKNOWN, math.nan)]
        for rank, (label, value) in enumerate(answers, 1):
            shown = safe_cell(label)
            stated = "" if math.isnan(value) else f"{value:.6f}"
            cells = [shown, f"{value:.9g}"] if kind == "number" else [rank, shown, stated]
            writer.writerow([safe_cell(row.printable), *cells, *extra])
    if not header:
        writer.writerow(names)


def _called(kind: str) -> str:
    """What stands beside a class."""
    return "distance" if kind == "distances" else "probability"


def _print_json(rows: Iterator[Row], kind: str) -> None:
    """An array with an object a line, written as it comes."""
    from repertoire.train import UNKNOWN

    first = True
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") not in ("utf8", "utf16", "utf32")
    sys.stdout.write("[")
    for row in rows:
        written: dict[str, Any] = {"image": row.printable}
        if kind == "number":
            written["numbers"] = dict(row.answers)
        elif kind == "known":
            written["class"] = row.answers[0][0]
        else:
            top = [
                {"class": label, **({} if math.isnan(value) else {_called(kind): round(value, 6)})}
                for label, value in row.answers
            ]
            written |= {"labels": top} if kind == "labels" else {**top[0], "top": top}
        if row.score is not None:
            # The best guess stays under "top", for whoever wants to look at it all the same.
            written |= {"known": bool(row.known), "score": float(row.score)}
            written |= {} if row.known else {"class": UNKNOWN}
        if row.exit is not None:
            written["exit"] = row.exit
        if row.true is not None:
            written["true"] = row.true
        sys.stdout.write(("\n" if first else ",\n") + json.dumps(written, ensure_ascii=plain))
        first = False
    sys.stdout.write("]\n" if first else "\n]\n")
