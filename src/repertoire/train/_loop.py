"""The training loop.

One run is a chain of pure steps: what step t does depends on the configuration, the state after step t - 1, and t.
Order and augmentation are functions of (seed, epoch, step), the learning rate is one of the step, and all else is in
the checkpoint. That is why a run that is killed at any instant and resumed ends in the same weights: bit for bit on a
CPU, and on a GPU as far as its kernels are deterministic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from repertoire.adapters import merged_state
from repertoire.data import Batch, Samples, step_seed
from repertoire.errors import CheckpointError, Interrupted, NonFiniteLoss, RankLost, option, resuming
from repertoire.methods import Classifier, Method, prepare_head
from repertoire.recipe import Built, WeightAverage, schedule
from repertoire.rules import Rule, divided, is_sharded, own_share, whole, whole_around
from repertoire.tasks import Outputs
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory
from repertoire.train._display import Display, duration
from repertoire.train._interrupt import interruptible
from repertoire.train._monitor import collapsed, monitor
from repertoire.train._outputs import outputs
from repertoire.train._progress import Progress, later_counts
from repertoire.train._track import Callback, make_trackers, watching

__all__ = ["Loop"]

PATIENT_STEPS = 100
"""Steps in which a diverging loss makes training begin anew."""

MEASURED_STEPS = 3
"""Steps after the first one that say how long the others will take."""

WORTH_SAYING = 10.0
"""Seconds from which on it is said how long something will take."""

BEST_EVERY = 5.0
"""Seconds between two times that the best weights are written, where most of them are frozen: what differs is in each
checkpoint, and an epoch of a head takes less time than its network does to be written."""

CHECK_EVERY = 20
"""Steps between looks at the loss on a GPU, where each look waits for the device. On a CPU every step is looked at."""


class Loop:
    """Trains a method on splits into a run directory, or into nothing but memory.

    Args:
        built: configuration, data, method.
        directory: the run's directory; None to write nothing.
        fabric: device, precision and ranks.
        display: what the user sees.
        pipeline: the processes that share the network, for rules that support it; None where each has all of it.
    """

    def __init__(
        self,
        built: Built,
        directory: RunDirectory | None,
        fabric: Fabric,
        display: Display | None = None,
        pipeline: Any = None,
    ) -> None:
        self.built = built
        self.config = config = built.config
        self.directory = directory
        self.splits = built.splits
        self.task = built.task
        self.monitor = monitor(built.task, built.method, built.splits.train)
        self.headline = self.monitor.headline if self.monitor else built.task.headline
        self.fabric = fabric
        self.pipeline = pipeline
        self.sharded = is_sharded(fabric)
        self.main = fabric.is_global_zero
        self.method = built.method.to(device=fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Before anything learns its parameters: a method may add modules for a stage.
        stage = built.begun(fabric.device)
        prepare_head(self.method.model, stage)
        self.method.begin(stage)
        self.rule: Rule = built.rule()
        with torch.random.fork_rng(devices=[]):
            # What a rule adds (auxiliary networks) begins with weights of the seed as well, but not with the same ones.
            torch.manual_seed(step_seed(config.seed, 0, 2**64 - 2))
            self.rule.setup(
                self.method,
                built.make_optimizer,
                fabric=fabric,
                clip=config.clip,
                accumulate=config.accumulate,
                example=torch.zeros(2, *self.splits.train.shape, device=fabric.device),
                pipeline=pipeline,
                gather=config.gather,
            )
        self.average = WeightAverage(self.method, config.ema) if config.ema else None
        self.loader = built.loader(
            device=fabric.device,
            rank=fabric.global_rank if pipeline is None else pipeline.replica,
            world_size=self.replicas,
        )
        self.progress = Progress()
        self.sums: dict[str, Tensor] = {}
        self.display = display or Display(config.epochs, self.loader.steps_per_epoch, quiet=True)
        self._stop = False
        self._alarmed = False
        self._clock = 0.0
        self.callbacks: Sequence[Callback] = ()
        self.forecast: Callable[[str], None] | None = None
        """Is told once how long the rest will take, as the first steps say."""
        self._ticks: list[float] = []
        self.keep_best = False
        self.validates = True
        self._best: dict[str, Tensor] = {}
        self._best_learned: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self._best_late, self._best_written = False, -math.inf
        self._unchanged: set[str] | None = None
        self._first = self._start()
        self._whole: dict[str, Any] = {}

    @property
    def replicas(self) -> int:
        """Number of processes that share each batch."""
        return self.fabric.world_size if self.pipeline is None else self.pipeline.replicas

    @property
    def _counts(self) -> bool:
        """Whether this is the process, of those that share each batch, which keeps the sums of all of them."""
        return (self.fabric.global_rank if self.pipeline is None else self.pipeline.replica) == 0

    @property
    def evaluated(self) -> Method:
        """The method whose weights count: the moving average where there is one."""
        return self.average.method if self.average else self.method

    def run(self) -> None:
        """Trains from where the progress stands to the end.

        Raises:
            Interrupted: the user pressed Ctrl-C; the run was saved.
            NonFiniteLoss: the loss became infinite or NaN; the last good checkpoint was kept.
            RankLost: another process stopped.
        """
        step = self.progress.total_steps
        trackers = make_trackers(self.config, self.directory.path, step) if self.main and self.directory else []
        trackers += watching(self.callbacks)
        try:
            with self._together(), interruptible(self._request, single=self.fabric.world_size == 1), self.display:
                while self.progress.epoch < self.config.epochs and not self._out_of_patience():
                    self._epoch(trackers)
            self._end()
        finally:
            self._write_best()
            for tracker in trackers:
                tracker.close()

    def _end(self) -> None:
        """Lets the method end its stage, once; what it makes there is in the last checkpoint, for the stage after."""
        if self.progress.ended:
            return
        self.method.end(self.built.begun(self.fabric.device))
        if self.built.start is not None:
            self.progress.ended = True
            if self.main and self.directory is not None:
                self._save_best()
                self._write_checkpoint()
            self.fabric.barrier()

    def _epoch(self, trackers: list[Any]) -> None:
        progress = self.progress
        self.display.epoch_starts(progress.epoch, progress.step)
        self.method.begin_epoch(progress.epoch)
        self.method.train()
        steps = self.loader.steps_per_epoch
        start = self._clock = time.perf_counter()
        images_before = progress.sums.get("images", 0.0)
        for batch in self._batches():
            self._set_learning_rate(progress.rate * schedule(self.config, progress.total_steps, steps))
            logs = self.rule.step(self.method, batch)
            if self.average is not None:
                self.average.update(self.method, progress.total_steps)
            progress.step += 1
            progress.total_steps += 1
            if self.forecast is not None:
                self._foresee(self.forecast)
            if self._first is not None and self._diverged(logs):
                self._begin_anew()
                return
            self._accumulate(logs, len(batch))
            if self.fabric.device.type == "cpu" or progress.step % CHECK_EVERY == 0:
                self._check_finite(logs)
            self.display.step(self._loss(logs) if self.display.wants_loss else None)
            if self._stop:
                self._save()
                if self.directory is None:
                    raise Interrupted(f"stopped in memory, at step {progress.total_steps}; nothing was saved")
                raise Interrupted(f"stopped and saved; go on with: {resuming(self.directory)}")
            if self.config.save_every and progress.total_steps % self.config.save_every == 0 and progress.step < steps:
                self._save()
        self._account()
        self._check_weights()
        self._collect()
        self._finish_epoch(time.perf_counter() - start, progress.sums["images"] - images_before, trackers)

    def _foresee(self, tell: Callable[[str], None]) -> None:
        """Says how long what is left will take, once the first steps have shown it."""
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize(self.fabric.device)
        self._ticks.append(time.perf_counter())
        if len(self._ticks) <= MEASURED_STEPS:
            return
        self.forecast = None
        # The first step also makes what all others use.
        each = (self._ticks[-1] - self._ticks[0]) / MEASURED_STEPS
        per_epoch, progress = self.loader.steps_per_epoch, self.progress
        left = (self.config.epochs - progress.epoch) * per_epoch - progress.step
        if each * left >= WORTH_SAYING:
            tell(f"{left:,} steps will take about {duration(each * left)} here, as the first ones say")

    def _finish_epoch(self, seconds: float, images: float, trackers: list[Any]) -> None:
        progress = self.progress
        sums = progress.sums
        rate = max(group["lr"] for optimizer in self.rule.optimizers for group in optimizer.param_groups)
        row: dict[str, Any] = {"epoch": progress.epoch + 1, "step": progress.total_steps, "lr": rate}
        row.update({f"train_{name}": value / sums["images"] for name, value in sums.items() if name != "images"})
        row["seconds"] = seconds
        row["images_per_second"] = images / seconds
        better = False
        if (self.main or self.sharded) and self.validates:
            # A network that is divided takes all processes to run; they look at the same samples.
            measured = self.validate()
            row.update({f"val_{name}": value for name, value in measured.items()})
            better = self._better(measured)
            # Of a stage the last weights count: those that are best on its own samples may have forgotten the most.
            better = better or self.built.start is not None
        # Every rank must stop at the same epoch, so all learn what the first one measured.
        row, better = self.fabric.broadcast((row, better))
        progress.epoch, progress.step, progress.sums, self.sums = progress.epoch + 1, 0, {}, {}
        if better:
            row["best"] = True
            progress.best = {name[4:]: value for name, value in row.items() if name.startswith("val_")}
            progress.best_epoch = progress.epoch
            if self.keep_best:
                self._best = _copied(self.evaluated.model.head.state_dict())
        if self.main and self.directory is not None:
            if better:
                self._save_best()
            self.directory.append_history(row)
            self._write_checkpoint()
        self._whole = {}
        # The checkpoint first: whoever only watches must not cost an epoch.
        for tracker in trackers:
            tracker.log(row)
        if self.main:
            self.display.epoch_ends(row, self.headline)
            alarm = "" if self._alarmed else collapsed({k[4:]: v for k, v in row.items() if k.startswith("val_")})
            if alarm:
                self._alarmed = True
                self.display.note(alarm)
        self.fabric.barrier()

    def validate(self) -> dict[str, float]:
        """The metrics of the validation set that are numbers."""
        found = self.evaluate("val")
        result = self.task.score(found)
        if self.monitor is not None:
            result |= self.monitor.score(self._outputs(self.monitor.bank), found)
        return {
            name: float(value)
            for name, value in result.items()
            if isinstance(value, int | float) and name not in ("images", "samples")
        }

    def _better(self, measured: dict[str, float]) -> bool:
        """Whether an epoch takes the place of the best one so far; see `later_counts`."""
        progress, best = self.progress, self.task.best
        value = measured.get(best.key)
        if value is None or not later_counts(self.config, self.task):
            return not progress.best or best.rank(measured) > best.rank(progress.best)
        progress.highest = max(value, progress.highest)
        count = int(self.splits.val.known.sum())
        error = math.sqrt(progress.highest * (1 - progress.highest) / max(1, count))
        return value >= progress.highest - error

    def _start(self) -> dict[str, Any] | None:
        """The first weights, kept for the first steps, in case that these diverge."""
        if self.pipeline is not None:
            return None
        average = None if self.average is None else _copied(self.average.method.state_dict())
        return {"method": _copied(self.method.state_dict()), "rule": self.rule.state_dict(), "average": average}

    def start_from(self, metrics: dict[str, float]) -> None:
        """Counts the weights that the method begins with as the best so far, with these validation metrics."""
        self.progress.best = dict(metrics)
        self.progress.highest = metrics.get("accuracy", 0.0)
        if self.main and self.directory is not None:
            self._save_best()

    def best_head(self) -> dict[str, Tensor]:
        """The weights of the head in the best epoch, where `keep_best` asked for them."""
        return self._best

    def _diverged(self, logs: dict[str, Tensor]) -> bool:
        """Whether the loss of the first steps says that the learning rate is too high; the same on every rank.

        A loss that is not finite, or ten times as large as the first one. Looked at once every few steps on a GPU.
        """
        progress = self.progress
        if progress.total_steps > PATIENT_STEPS or progress.rate != 1:
            self._first = None
            return False
        if self.fabric.device.type != "cpu" and progress.total_steps % CHECK_EVERY and progress.total_steps != 1:
            return False
        loss = self._loss(logs)
        if self.fabric.world_size > 1:
            reduced = self.fabric.all_reduce(torch.tensor(loss, device=self.fabric.device), reduce_op="mean")
            assert isinstance(reduced, Tensor)
            loss = float(reduced)
        if progress.first_loss is None:
            progress.first_loss = loss
        return not math.isfinite(loss) or abs(loss) > 10 * max(abs(progress.first_loss), 1.0)

    def _begin_anew(self) -> None:
        """Puts the first weights back and goes on at a tenth of the learning rate, once."""
        assert self._first is not None
        first, self._first = self._first, None
        if not math.isfinite(self.progress.first_loss or 0.0):
            self._refuse("the loss of the first step is not finite, whatever the learning rate")
        self.method.load_state_dict(first["method"])
        self.rule.load_state_dict(first["rule"])
        if self.average is not None:
            self.average.method.load_state_dict(first["average"])
        seconds = self.progress.seconds + time.perf_counter() - self._clock
        self.progress = Progress(rate=0.1, seconds=seconds, first_loss=self.progress.first_loss)
        self.sums = {}
        self._collect()
        if self.main and self.directory is not None:
            for path in _checkpoint.checkpoints(self.directory.checkpoints):
                path.unlink(missing_ok=True)
            self.directory.truncate_history(0)
            self._write_checkpoint()
        self.fabric.barrier()
        self.display.note("the loss diverged in the first steps: beginning anew with a tenth of the learning rate")

    def _loss(self, logs: dict[str, Tensor]) -> float:
        """The loss of a step; on the first process of a pipeline, where it is not known yet, that of its last block."""
        return float(logs["loss"] if "loss" in logs else [v for k, v in logs.items() if k.endswith("_loss")][-1])

    def _batches(self) -> Iterator[Batch]:
        """The rest of the epoch in progress: from the data, or from the process before this one in a pipeline."""
        progress = self.progress
        if self.pipeline is None or self.pipeline.first:
            return self.loader.epoch(progress.epoch, progress.step)
        pipeline = self.pipeline
        return (pipeline.receive() for _ in range(progress.step, self.loader.steps_per_epoch))

    def _collect(self) -> None:
        """Brings what the other processes hold, in a pipeline or of divided weights, to the first one, which writes."""
        if self.sharded:
            state = {"method": self.method.state_dict(), "rule": self.rule.state_dict()}
            self._whole = whole(state, keep=self.main)
        if self.pipeline is None:
            return
        average: dict[str, Tensor] = {}
        if self.average is not None and not self.pipeline.first:
            held = self.rule.held(self.method)
            state = self.average.method.state_dict()
            average = {name: value.cpu() for name, value in state.items() if name in held}
        found = self.rule.gather((self.progress.sums, average))
        if found is None:
            return
        sums: dict[str, float] = {}
        for theirs, values in found:
            sums.update(theirs)
            if self.average is not None:
                self.average.method.load_state_dict(values, strict=False)
        # In the order of the blocks, as one process would have them.
        self.progress.sums = {**{k: v for k, v in sums.items() if k != "images"}, "images": sums["images"]}

    def evaluate(self, part: Literal["val", "test"], model: Classifier | None = None) -> Outputs:
        """Outputs of the evaluated weights for the validation or test images, no more at a time than in training.

        Args:
            part: which images.
            model: other weights, all of them in this process.
        """
        return self._outputs(getattr(self.splits, part), model)

    def _outputs(self, samples: Samples, model: Classifier | None = None) -> Outputs:
        frozen = self.built.config.tune not in ("all", "auto")
        options: dict[str, Any] = {"device": self.fabric.device, "answer": self.built.answer}
        options["batch_size"] = 256 if frozen else min(256, self._piece)
        if model is None and self.sharded:
            with whole_around(self.method):
                return outputs(self.evaluated.model, samples, **options)
        return outputs(self.evaluated.model if model is None else model, samples, **options)

    @property
    def _piece(self) -> int:
        """Images that pass through the network at once."""
        return max(2, self.config.batch_size // self.replicas // self.config.accumulate)

    def rehearse(self) -> None:
        """Takes the first batch through augmentation and loss, and forgets it.

        Raises:
            RepertoireError: whatever the first step would have been refused for.
        """
        batch = next(self.loader.epoch(0))
        self.method.eval()
        with torch.no_grad(), self.fabric.autocast():
            for piece in batch.split(self.config.accumulate) if self.config.accumulate > 1 else [batch]:
                self.method(piece)
        if self.sharded:
            self.method.reshard()
        self.method.train()

    def _accumulate(self, logs: dict[str, Tensor], count: int) -> None:
        if not self.sums:
            # What all processes have seen before this session is counted by the first.
            before = self.progress.sums if self._counts else {}
            self.sums = {
                name: torch.tensor(before.get(name, 0.0), dtype=torch.float64, device=self.fabric.device)
                for name in (*logs, "images")
            }
        for name, value in logs.items():
            self.sums[name] += value * count
        self.sums["images"] += count

    def _account(self) -> None:
        """Brings the progress up to date: the sums off the device, the time since the last look at the clock."""
        if self.sums:
            values = torch.stack(list(self.sums.values()))
            if self.replicas > 1:
                distributed.all_reduce(values, group=None if self.pipeline is None else self.pipeline.peers)
                # As after a resume, so that both go on with the same numbers.
                self.sums = dict(zip(self.sums, values if self._counts else torch.zeros_like(values), strict=True))
            self.progress.sums = dict(zip(self.sums, values.tolist(), strict=True))
            self._check_finite({name: torch.tensor(value) for name, value in self.progress.sums.items()})
        now = time.perf_counter()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _check_finite(self, logs: dict[str, Tensor]) -> None:
        for name, value in logs.items():
            if name.endswith("loss") and not math.isfinite(loss := float(value)):
                self._refuse(f"the {name.replace('_', ' ')} became {loss}")

    def _check_weights(self) -> None:
        """Raises `NonFiniteLoss` before weights that are not finite are kept: the last step of all may have spoilt
        them without a loss to show it."""
        norms = torch.stack(torch._foreach_norm([own_share(p.detach()) for p in self.method.parameters()]))
        good = norms.isfinite().all()
        if self.sharded:  # all of them, or none, say so
            good = good.to(torch.uint8)
            distributed.all_reduce(good, distributed.ReduceOp.MIN)
        if not bool(good):
            self._refuse("the weights are no longer finite")

    def _refuse(self, what: str) -> NoReturn:
        saved = [] if self.directory is None else _checkpoint.checkpoints(self.directory.checkpoints)
        where = f"the last good checkpoint is {saved[0].name} in {self.directory}" if saved else "none was saved yet"
        raise NonFiniteLoss(
            f"{what} in epoch {self.progress.epoch + 1}, step {self.progress.step} "
            f"(step {self.progress.total_steps} of the run); {where}. Try a lower {option('lr')}, or "
            f"{option('clip', 1)}."
        )

    def _set_learning_rate(self, share: float) -> None:
        for optimizer in self.rule.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("peak_lr", group["lr"])
                group["lr"] = group["peak_lr"] * share

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def _save(self) -> None:
        """A checkpoint in the middle of an epoch."""
        self._account()
        self._check_weights()
        self._collect()
        if self.main:
            self._write_checkpoint()
        self._whole = {}
        self.fabric.barrier()

    def _write_checkpoint(self) -> None:
        if self.directory is None:
            return
        frozen = self._frozen()
        state = self._whole["method"] if self.sharded else self.method.state_dict()
        tensors: dict[str, Tensor] = {f"method.{name}": value for name, value in state.items() if name not in frozen}
        if self.average is not None:
            average = self.average.method.state_dict()
            tensors.update({f"average.{name}": value for name, value in average.items() if name not in frozen})
        rule = self._whole["rule"] if self.sharded else self.rule.state_dict()
        values = {
            "rule": _checkpoint.flatten(rule, "rule", tensors),
            "progress": asdict(self.progress),
        }
        if self._best_learned is not None:
            learned, values["best"] = self._best_learned
            tensors.update({f"best.{name}": value for name, value in learned.items()})
        path = _checkpoint.step_path(self.directory.checkpoints, self.progress.total_steps)
        _checkpoint.save(path, tensors, values)
        # Two at least, so that one is left when a crash of the machine damages the newest.
        _checkpoint.prune(self.directory.checkpoints, self.config.keep)

    def _frozen(self) -> set[str]:
        """The names of tensors that training does not change, because inputs enter after them: no checkpoint need hold
        them, since they were there before the first step."""
        if self._unchanged is not None:
            return self._unchanged
        model = self.method.model
        if model.enters is None:
            return set()
        blocks = model.backbone.blocks
        # Where everything is frozen, so is what follows the blocks.
        prefixes = (
            ["backbone."] if model.enters == len(blocks) else [f"backbone.blocks.{i}." for i in range(model.enters)]
        )
        names = self.method.state_dict()
        self._unchanged = {name for name in names if name.startswith(tuple(f"model.{prefix}" for prefix in prefixes))}
        return self._unchanged

    def _save_best(self) -> None:
        assert self.directory is not None
        if self.sharded:
            state = {name: value for name, value in self._whole["method"].items() if name.startswith("model.")}
        else:
            state = {f"model.{name}": value for name, value in merged_state(self.evaluated.model).items()}
        # What a rule adds beside the model: the auxiliary networks of local learning are its early exits.
        local = dict(self.evaluated.named_children()).get("local")
        if local is not None:
            state.update({f"local.{name}": value for name, value in local.state_dict().items()})
        progress = self.progress
        values = {"epoch": progress.epoch, **{f"val_{name}": value for name, value in progress.best.items()}}
        if frozen := self._frozen():
            self._best_learned = (_copied({k: v for k, v in state.items() if k not in frozen}), values)
            if time.monotonic() - self._best_written < BEST_EVERY:
                self._best_late = True
                return
        _checkpoint.save(self.directory.best_file, state, values)
        self._best_late, self._best_written = False, time.monotonic()

    def _write_best(self) -> None:
        """Writes the best weights, if those on the disk are older."""
        if not self._best_late or self._best_learned is None or self.directory is None:
            return
        learned, values = self._best_learned
        state = {f"model.{name}": value for name, value in merged_state(self.evaluated.model).items()}
        _checkpoint.save(self.directory.best_file, state | learned, values)
        self._best_late = False

    def restore(self) -> None:
        """Puts the newest whole checkpoint back, and forgets what the history says after it.

        Raises:
            CheckpointError: there is none, or it belongs to another model.
        """
        assert self.directory is not None
        path, checkpoint, complaints = _checkpoint.latest(self.directory.checkpoints)
        for complaint in complaints:
            self.display.note(f"{complaint}; going on from {path.name}")
        try:
            # First, because it knows best what does not fit: networks that were cut differently, say.
            self.rule.load_state_dict(_checkpoint.unflatten(checkpoint.values["rule"], checkpoint.tensors))
            progress = Progress.stored(checkpoint.values["progress"])
            frozen = {name: value for name, value in self.method.state_dict().items() if name in self._frozen()}
            state = frozen | checkpoint.part("method")
            if self.sharded:
                held = self.method.state_dict()
                state = {name: divided(value, held.get(name, value)) for name, value in state.items()}
            self.method.load_state_dict(state)
            if self.average is not None:
                self.average.method.load_state_dict(frozen | checkpoint.part("average"))
            if "best" in checkpoint.values:
                self._best_learned, self._best_late = (checkpoint.part("best"), checkpoint.values["best"]), True
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint {path} does not fit this model: {reason}") from None
        self.progress = progress
        if self.main:
            self.directory.truncate_history(self.progress.epoch)
        self.fabric.barrier()

    def _request(self) -> None:
        """Asks the loop to save and stop after the step in progress."""
        self._stop = True
        self.display.note("stopping after this step; press Ctrl-C again to stop at once")

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Ends the other processes of a pipeline with this one, and says so where a process is gone."""
        try:
            yield
        except BaseException as error:
            if self.pipeline is not None:
                self.pipeline.abandon(error)
            advice = "nothing was saved"
            if self.directory is not None:
                advice = f"go on from the last checkpoint: {resuming(self.directory)}"
            if isinstance(error, RankLost):
                raise RankLost(f"{error}; {advice}") from None
            if isinstance(error, RuntimeError) and self.fabric.world_size > 1 and "gloo" in str(error):
                short = str(error).split("] ", 1)[-1].split(". ", 1)[0]
                raise RankLost(f"another process is gone or no longer answers ({short}); {advice}") from None
            raise


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
