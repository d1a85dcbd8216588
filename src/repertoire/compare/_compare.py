"""From a grid to a comparison: check all, search, run all, reckon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repertoire.compare._check import check
from repertoire.compare._cluster import Backend
from repertoire.compare._comparison import Comparison
from repertoire.compare._display import Board
from repertoire.compare._folder import Folder, fingerprint, finished
from repertoire.compare._grid import Grid, Member, make_grid
from repertoire.compare._jobs import Job, Outcome, forget_splits
from repertoire.compare._metric import Metric, find_metric
from repertoire.compare._pool import Crew, dismiss, run_jobs, warm_up
from repertoire.compare._rows import Measurement, make_rows, measure
from repertoire.compare._search import SEARCH_SEED, Range, Study, Trial, parse_space, require_optuna
from repertoire.data import digest
from repertoire.errors import ConfigError, plural
from repertoire.files import lock_directory, write_text
from repertoire.recipe import TrainConfig, find_device, pinned, stem

__all__ = ["compare"]

TRIAL = "val_accuracy"
"""The metric that the trials of a search are judged by."""


def compare(
    data: str | Path,
    *,
    vary: Mapping[str, str | Sequence[Any]],
    seeds: int = 5,
    baseline: Mapping[str, Any] | None = None,
    metric: str = "accuracy",
    search: Mapping[str, str | Sequence[Any]] | None = None,
    trials: int = 8,
    out: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    threads: int = 1,
    backend: Backend = "loky",
    quiet: bool = True,
    **fields: Any,
) -> Comparison:
    """Trains a grid of configurations on the same images with the same seeds, and says how they differ.

    Each configuration is run with each seed; a seed decides the split, the first weights, the order and the
    augmentation, so that runs of one seed differ in nothing but their configuration. Every run is a run directory under
    `out`. The same call goes on with what is not finished, and one with more values or seeds adds to it.

    Args:
        data: a folder with a directory per class, an .npz file, or a source such as "digits".
        vary: the values of each field of `TrainConfig` that varies: a list, or a text such as "cross-entropy,supcon".
        seeds: number of runs of each configuration, 1 or more; from `seed`, by default 0, upwards.
        baseline: values of the configuration that the others are measured against; of fields that it does not name,
            the first.
        metric: "accuracy", "balanced_accuracy", "macro_f1", "nll", "ece" or "val_accuracy" of classes;
            "mean_average_precision", "macro_f1" or "nll" of several labels; "mae" of numbers; "miou" or "nll" of maps.
        search: for each field to be searched, "LOW..HIGH", "LOW..HIGH:log" or values. Each configuration gets the same
            number of trials, judged on the validation images, and is then run with the best settings.
        trials: of each configuration, where there is a search.
        out: directory of the comparison; by default `comparisons/NAME-1`, or the first number that is free or holds
            this comparison.
        jobs: runs at once; one for each core that `threads` leaves room for if None, and one on a GPU. With 1, they
            run in this process.
        threads: of each run.
        backend: "loky", processes on this machine; "ray" or "dask", those of a cluster that share this file system.
        quiet: show nothing while training.
        fields: fields of `TrainConfig` that all configurations share.

    Returns:
        What came out. A run that failed is listed in `failures`, and the others have gone on.

    Raises:
        UnknownName: a field, metric or backend that does not exist; suggests the nearest.
        ConfigError: configurations that cannot be run, all of them named, before anything is run; no two
            configurations; no seed; a metric, or a search, that is not for targets such as those of the data.
        DataError, UnreadableImages: the images cannot be used.
        RunError: `out` holds another comparison, or another process is writing to it.
        MissingExtra: the search, or the backend, needs what is not installed.
        Interrupted: the user pressed Ctrl-C; the same call goes on.

    Example:
        >>> import repertoire
        >>> found = repertoire.compare.compare("digits", vary={"loss": "cross-entropy,squentropy"})  # doctest: +SKIP
        >>> print(found)  # doctest: +SKIP
    """
    if isinstance(seeds, bool) or seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be 1 or more, and 3 or more for an interval worth having")
    if search and trials < 1:
        raise ConfigError(f"trials is {trials}; a search needs 1 or more")
    chosen = find_metric(metric)
    crew = Crew(backend, jobs, threads)
    crew.require()
    grid, complaints = make_grid({"data": str(data), **fields}, vary, baseline)
    grid = _pinned(grid)
    space = parse_space(search or {}, fields, grid.varied)
    if space:
        require_optuna()
    numbers = range(grid.shared.seed, grid.shared.seed + seeds)
    if len(numbers) > SEARCH_SEED:
        raise ConfigError(f"seeds is {seeds}; at most {SEARCH_SEED:,} can be told from those of a search")
    folder = Folder(out) if out is not None else _default(grid, threads)
    crew = crew.resolved(find_device(grid.shared).type, grid.shared.device)
    board = Board(grid.members, grid.baseline.label, numbers, chosen, quiet=quiet)
    board.note(
        f"{plural(len(grid.members), 'configuration')}, {plural(seeds, 'seed')} each: looking at all before any is run"
    )
    forget_splits()
    left = sum(
        not finished(folder.run(m.label, m.config.model_copy(update={"seed": s})))
        for m in grid.members
        for s in numbers
    )
    warming = warm_up(crew, left)
    try:
        splits, resolved = check(grid, complaints, chosen)
        if space and splits.kind not in find_metric(TRIAL).kinds:
            raise ConfigError(
                f"a search judges its trials by {find_metric(TRIAL).title}, and the targets of {grid.shared.data} are "
                f"{splits.kind!r}: leave the search out, and vary {' and '.join(space)} by a list of values"
            )
        if warming is not None:
            warming.join()
        with lock_directory(folder.path):
            folder.open(grid.shared, grid.varied, threads, digest(splits))
            session = _Session(grid, chosen, crew, folder, board, resolved)
            with folder.session(), board.shown():
                studies = session.search(space, trials) if space else {}
                comparison = session.run(numbers, studies, space)
            write_text(folder.summary_file, comparison.to_json() + "\n")
    finally:
        if warming is not None:
            warming.join()
        dismiss(crew)
        forget_splits()
    return comparison


class _Session:
    """One call of `compare`, once its grid has been found good."""

    def __init__(
        self,
        grid: Grid,
        metric: Metric,
        crew: Crew,
        folder: Folder,
        board: Board,
        resolved: Mapping[str, TrainConfig],
    ) -> None:
        self.grid = grid
        self.metric = metric
        self.crew = crew
        self.folder = folder
        self.board = board
        self.resolved = resolved

    def search(self, space: Mapping[str, Range], trials: int) -> dict[str, Study]:
        """The trials of all configurations, side by side. Trials that learn from those before come one at a time."""
        seed = self.grid.shared.seed + SEARCH_SEED
        studies = {
            member.label: Study(
                self.folder.study(member.label, member.config) / "study.json",
                space,
                trials,
                seed,
                self.resolved[member.label].model_dump(),
            )
            for member in self.grid.members
        }
        self.board.trials = trials
        self.board.searched = {label: len(study.done) for label, study in studies.items()}
        while any(study.next() for study in studies.values()):
            wanted = {label: study.next() for label, study in studies.items()}
            jobs = {
                member.label: [
                    self._trial(member, studies[member.label], number, settings, seed)
                    for number, settings in enumerate(wanted[member.label])
                ]
                for member in self.grid.members
            }
            # Round by round, so that the configurations keep abreast.
            order = [job for number in range(trials) for found in jobs.values() for job in found[number : number + 1]]
            reasons = self._train(order)
            for label, found in jobs.items():
                if found:
                    studies[label].tell(
                        [
                            _told(job, settings, reasons.get(job.path))
                            for job, settings in zip(found, wanted[label], strict=True)
                        ]
                    )
        return studies

    def run(self, seeds: Sequence[int], studies: Mapping[str, Study], space: Mapping[str, Range]) -> Comparison:
        """All configurations with all seeds, seed by seed: what is stopped half-way has whole pairs."""
        jobs, members = [], []
        hopeless = {}
        for member in self.grid.members:
            study = studies.get(member.label)
            if study is not None and study.best is None:
                hopeless[member.label] = f"every trial of the search failed; the last one: {study.done[-1].reason}"
                continue
            found = study.best.settings if study is not None and study.best is not None else {}
            members.append((member, found, member.config.model_copy(update=found)))
        for seed in seeds:
            jobs += [self._job(member.label, config.model_copy(update={"seed": seed})) for member, _, config in members]
        reasons = self._train(jobs)
        found_settings = {member.label: found for member, found, _ in members}
        measured: dict[str, list[Measurement]] = {
            label: [Measurement(seed, self.folder.path, reason=reason) for seed in seeds]
            for label, reason in hopeless.items()
        }
        for job in jobs:
            result = measure(job.config.seed, job.path, self.metric, reasons.get(job.path, ""))
            measured.setdefault(job.label, []).append(result)
        entries = [(m.label, m.settings, found_settings.get(m.label, {}), measured[m.label]) for m in self.grid.members]
        return Comparison(
            path=self.folder.path,
            data=self.grid.shared.data,
            metric=self.metric,
            seeds=tuple(seeds),
            baseline=self.grid.baseline.label,
            table=make_rows(entries, self.grid.baseline.label, self.metric),
            trials={label: tuple(study.done) for label, study in studies.items()},
            space={field: str(r) for field, r in space.items()},
            shared=_shared(self.grid.shared),
        )

    def _train(self, jobs: Sequence[Job]) -> dict[Path, str]:
        """Trains what is not finished yet, and gives the reasons of what failed."""
        reasons: dict[Path, str] = {}
        waiting = []
        for job in jobs:
            if finished(job.path):
                self.board.take(job, self._value(job)[0])
            else:
                waiting.append(job)
        if len(waiting) < len(jobs):
            self.board.note(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are finished already")

        def done(job: Job, outcome: Outcome) -> None:
            if outcome.status == "failed":
                reasons[job.path] = outcome.why
            self.board.end(job, outcome, *(self._value(job) if outcome.status == "finished" else (None, None)))

        self.board.begin(waiting)
        run_jobs(waiting, self.crew, self.folder, done)
        return reasons

    def _value(self, job: Job) -> tuple[float | None, float | None]:
        """Value of a run that is finished, and its training time."""
        metric = self.metric if job.trial is None else find_metric(TRIAL)
        result = measure(job.config.seed, job.path, metric)
        return result.value, result.seconds

    def _trial(self, member: Member, study: Study, number: int, settings: Mapping[str, Any], seed: int) -> Job:
        config = member.config.model_copy(update={**settings, "seed": seed})
        trial = len(study.done) + number
        # By its settings, so that a search over another range takes no run of this one for its own.
        path = study.file.parent.resolve() / f"trial-{trial + 1:02d}-{fingerprint(config)}"
        return replace(self._job(member.label, config), path=path, trial=trial)

    def _job(self, label: str, config: TrainConfig) -> Job:
        path = self.folder.run(label, config).resolve()
        marks, stop = self.folder.marks.resolve(), self.folder.stop_file.resolve()
        return Job(label, config, path, marks, stop, self.crew.threads)


def _told(job: Job, settings: dict[str, Any], reason: str | None) -> Trial:
    if reason is not None:
        return Trial(settings, None, reason)
    result = measure(job.config.seed, job.path, find_metric(TRIAL))
    return Trial(settings, result.value, result.reason)


def _shared(config: TrainConfig) -> dict[str, Any]:
    """Settings that were asked for, beside data and seed."""
    fields = type(config).model_fields
    content = config.model_dump(mode="json")
    return {
        name: value
        for name, value in content.items()
        if name not in ("data", "seed") and getattr(config, name) != fields[name].get_default()
    }


def _pinned(grid: Grid) -> Grid:
    """With paths that are absolute, wherever a worker may be."""
    members = tuple(replace(member, config=pinned(member.config)) for member in grid.members)
    baseline = next(m for m in members if m.label == grid.baseline.label)
    return replace(grid, members=members, baseline=baseline, shared=pinned(grid.shared))


def _default(grid: Grid, threads: int) -> Folder:
    """The first directory that is free, or in which this comparison was begun."""
    for folder in _candidates(stem(grid.shared.data)):
        if not folder.path.exists() or folder.is_of(grid.shared, grid.varied, threads):
            return folder
    raise AssertionError


def _candidates(name: str) -> Iterator[Folder]:
    number = 1
    while True:
        yield Folder(Path("comparisons") / f"{name}-{number}")
        number += 1
