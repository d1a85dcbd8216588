"""`repertoire train PHOTOS --attributes FILE`: a run whose classes are described, some of them without an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from repertoire.train import Answers, Run
    from repertoire.zeroshot import ZeroShotClassifier

__all__ = ["Described", "asked_for", "describe", "is_described"]

DEFAULT = "zero-shot:map=bilinear,gate=confidence"

MAPS = {
    "bilinear": "eszsl",
    "regression": "embedding-regression",
    "attributes": "attribute-match",
    "graph": "graph-propagation",
    "generator": "feature-generator",
}
"""How features and descriptions belong together, and the classifier that it is."""

GATES = ("confidence", "hard", "constant", "none")
"""What decides between classes with images and those without: COSMO, COSMO that believes one expert alone, calibrated
stacking, or nothing."""

_FOLDER = "described"


def asked_for(method: str | None, attributes: Path | None, unseen: str | None) -> dict[str, Any] | None:
    """What a run is to remember of the classes that are described; None where there are none.

    Raises:
        ConfigError: one option without the other, or what `map` or `gate` cannot be. DataError: no such table.
    """
    from repertoire.errors import ConfigError, ascii_path

    mine = method is not None and method.partition(":")[0] == "zero-shot"
    if attributes is None:
        if mine or unseen is not None:
            what = method if mine else "--unseen"
            raise ConfigError(f"{what} is about classes that are described: give --attributes FILE with it")
        return None
    if method is not None and not mine:
        raise ConfigError(f"--attributes goes with --method {DEFAULT}; found --method {method}")
    from repertoire.zeroshot import read_attributes

    spec, gate = _classifier(method or DEFAULT)
    read_attributes(attributes)  # what it cannot be is said before anything is trained
    return {
        "table": attributes.read_text(encoding="utf-8-sig"),
        "file": ascii_path(str(attributes)),
        "classifier": spec,
        "gate": gate,
        "unseen": [name.strip() for name in (unseen or "").split(",") if name.strip()],
    }


def _classifier(method: str) -> tuple[str, str]:
    """Spec of the zero-shot classifier of a method, and its gate."""
    from repertoire import registry
    from repertoire.errors import ConfigError, UnknownName

    parsed = registry.parse(method)
    other = sorted(set(parsed.kwargs) - {"map", "gate"})
    if parsed.args or other:
        raise ConfigError(f"{method!r}: zero-shot takes map=NAME and gate=NAME, as in {DEFAULT}")
    way, gate = str(parsed.kwargs.get("map", "bilinear")), str(parsed.kwargs.get("gate", "confidence"))
    if way not in MAPS:
        raise UnknownName("map of zero-shot", way, list(MAPS))
    if gate not in GATES:
        raise UnknownName("gate of zero-shot", gate, GATES)
    expert = MAPS[way]
    if gate in ("confidence", "hard"):
        return f"cosmo:expert={expert},gate={'soft' if gate == 'confidence' else 'hard'}", gate
    return expert, gate


def is_described(run: Run) -> bool:
    """Whether a run was trained with classes that are described."""
    return "attributes" in run.info


def describe(run: Run) -> None:
    """Fits the zero-shot classifier of a run to the features of its images, measures it, keeps it, and says how good.

    A run that was stopped before does so when it goes on; the file that comes last says that it was done.

    Raises:
        DataError: a class of the images is not in the table. ConfigError: too few classes to hold some out.
    """
    from repertoire.cli._described import build_described, measure_described, print_described, refit_described
    from repertoire.data import FeatureSet, Splits
    from repertoire.estimators import save_estimator
    from repertoire.files import write_json, write_text
    from repertoire.report import write_described_classes
    from repertoire.zeroshot import read_attributes

    asked: Mapping[str, Any] = run.info["attributes"]
    folder = run.path / _FOLDER
    if (folder / "metrics.json").exists():
        return
    write_text(folder / "attributes.csv", asked["table"])
    table = read_attributes(folder / "attributes.csv")

    def features(samples: Any) -> FeatureSet:
        rows = run.outputs(samples).embeddings
        return FeatureSet(rows, samples.labels, samples.names, samples.classes, samples.keys)

    train, val, test = map(features, (run.splits.train, run.splits.val, run.splits.test))
    splits = Splits(train, val, test, source=run.splits.source)
    model = build_described(asked["classifier"])
    plain = asked["gate"] == "none"
    metrics = measure_described(
        model, splits, table, asked["unseen"], run.config.seed, asked["file"], gamma=0.0 if plain else None
    )
    model = refit_described(model, splits, table, metrics["gamma"], asked["file"])
    save_estimator(model, folder)
    page = write_described_classes(folder / "described.html", metrics, source=run.path.name, noun=f"{run.noun}s")
    write_json(folder / "metrics.json", metrics)
    for path in sorted(folder.iterdir()):
        run.directory.record(path)
    print_described(metrics, len(table.classes), f"{run.noun}s")
    typer.echo(f"figure: {page}")


class Described:
    """The answers of a run whose classes are described.

    Args:
        run: that `describe` was given.

    Raises:
        RunError: its classifier is not there: the run was stopped before that, and has to go on first.
    """

    def __init__(self, run: Run) -> None:
        from repertoire.errors import RunError, resuming
        from repertoire.estimators import load_estimator

        self.run = run
        if not (run.path / _FOLDER / "metrics.json").exists():
            raise RunError(f"{run.directory} was stopped before it knew the described classes: {resuming(run.path)}")
        model: Any = load_estimator(run.path / _FOLDER)
        self.model: ZeroShotClassifier = model
        self.names = [str(name) for name in model.class_names_]
        self.gamma = float(model.gamma_)

    def stream(self, images: Any) -> Iterator[Answers]:
        """Probabilities where the classifier has some, and else its scores, a batch at a time."""
        import numpy as np

        from repertoire.train import Answers

        for found in self.run.stream_features(images):
            scores = self.model.decision_function(found.values)
            values = np.exp(scores) if self.sure else scores - self.gamma * self.model.is_seen()
            yield Answers(found.index, values, None, found.failed)

    @property
    def sure(self) -> bool:
        """Whether there are probabilities."""
        return hasattr(self.model, "predict_proba")

    def ranked(self, values: Any, count: int) -> list[tuple[str, float]]:
        """The likeliest classes of an image; NaN in the place of a probability that there is none of."""
        order = (-values).argsort(kind="stable")[:count]
        return [(self.names[place], float(values[place]) if self.sure else float("nan")) for place in order]
