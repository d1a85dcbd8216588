"""Several processes train one network: each holds some of its blocks, and hands activations on to the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from repertoire.data import Batch
from repertoire.errors import ConfigError, RankLost
from repertoire.local._block import LocalBlock
from repertoire.local.pipeline._alarm import Alarm
from repertoire.local.pipeline._channel import Receiver, Sender
from repertoire.local.pipeline._stages import Survey, bounds_text, check_followed, stage_bounds, survey, tensors_of

__all__ = ["Arrival", "Pipeline"]

#: What a batch has beside its views, and is sent along. Not masks: methods that look at them take steps of their own,
#: which local rules refuse.
_FIELDS = [f.name for f in fields(Batch) if f.name in ("targets", "index")]

_counter = itertools.count()


@dataclass
class Arrival(Batch):
    """A batch as it comes from the process before.

    Attributes:
        flows: activations, one tensor for each piece that the batch is processed in.
        seed: what the step draws its random numbers from.
    """

    flows: list[Tensor] = field(default_factory=list)
    seed: int = 0


class Pipeline:
    """Consecutive blocks in consecutive processes: activations go forward, and no gradient comes back.

    A block's update needs nothing from the blocks after it. Each process receives activations, lets its blocks take
    their step, hands on what they gave, and goes on with the next batch while the processes after it work on this one:
    there are no backward messages and no idle time but that of filling. Because a block computes the same wherever it
    runs, the weights are those of one process, bit for bit, if all processes have as many threads. Belilovsky,
    Eickenberg and Oyallon, *Decoupled Greedy Learning of CNNs* (ICML 2020), have the synchronous form in which updates
    are unlocked; an asynchronous form, which is not exact, is theirs as well and is not offered here.

    With more processes than stages the network is there several times, and each replica trains on its share of every
    batch: gradients of a stage are averaged over its replicas. Processes `r * stages` to `r * stages + stages - 1` are
    replica r.

    All processes construct it, after `torch.distributed.init_process_group`.

    Args:
        stages: processes that share one network; all there are if None.
        device: where activations are, "cpu" (messages by gloo) or a GPU (by NCCL).
        timeout: seconds without a message after which a neighbour counts as lost. One that dies is noticed at once.

    Attributes:
        stage, stages: which part of the network this process holds, from 0, and of how many.
        replica, replicas: which copy of the network it belongs to, from 0, and of how many.

    Raises:
        ConfigError: `torch.distributed` is not initialised, or the stages do not divide its processes.

    Example, under `torchrun --nproc-per-node 2`:
        >>> torch.distributed.init_process_group("gloo")  # doctest: +SKIP
        >>> pipeline = Pipeline()  # doctest: +SKIP
        >>> learner = LocalLearning(net, 8, "conv", sgd, example=images, pipeline=pipeline)  # doctest: +SKIP
        >>> for images, labels in batches:  # doctest: +SKIP
        ...     learner.step(images, labels) if pipeline.first else learner.step()
        >>> learner.gather()  # the first process now has the weights of all  # doctest: +SKIP
    """

    def __init__(
        self, stages: int | None = None, *, device: str | torch.device = "cpu", timeout: float = 300.0
    ) -> None:
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ConfigError(
                "a pipeline needs several processes: start them with torchrun, and call "
                "torch.distributed.init_process_group first"
            )
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self.stages = self.world if stages is None else stages
        if self.stages < 1 or self.world % self.stages:
            raise ConfigError(f"{self.world} processes cannot be divided into pipelines of {self.stages}")
        self.replicas = self.world // self.stages
        self.replica, self.stage = divmod(self.rank, self.stages)
        self.device = torch.device(device)
        self._control: Any = None
        self._payload: Any = None
        self._peers: Any = None
        limit = timedelta(seconds=timeout)
        # Every process has to take part in making every group, in the same order.
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        for replica in range(self.replicas):
            ranks = [replica * self.stages + s for s in range(self.stages)]
            control = distributed.new_group(ranks, timeout=limit, backend="gloo")
            payload = distributed.new_group(ranks, timeout=limit, backend=backend) if backend == "nccl" else control
            if replica == self.replica:
                self._control, self._payload = control, payload
        for stage in range(self.stages):
            ranks = [r * self.stages + stage for r in range(self.replicas)]
            peers = distributed.new_group(ranks, timeout=limit, backend=backend) if self.replicas > 1 else None
            if stage == self.stage:
                self._peers = peers
        self._alarm = Alarm(next(_counter), self.describe)
        self.bounds = list(range(self.stages + 1))
        self._sender: Sender | None = None
        self._receiver: Receiver | None = None
        self._returns: Sender | None = None
        self._returned: Receiver | None = None
        self._forwards = False
        self._image: tuple[int, ...] = ()

    @property
    def first(self) -> bool:
        """True where this process holds the first blocks, and needs images."""
        return self.stage == 0

    @property
    def last(self) -> bool:
        """True where this process holds the last blocks, and knows the loss of the network."""
        return self.stage == self.stages - 1

    def open(
        self,
        blocks: Sequence[LocalBlock],
        example: Tensor,
        *,
        views: int,
        classes: int,
        accumulate: int,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> range:
        """Divides the blocks by the time that they take, gives all processes the same weights, and opens channels.

        Args:
            blocks: all blocks of the network.
            example: an input, of any batch size.
            views: of each sample.
            classes: number of classes.
            accumulate: pieces that a batch is processed in.
            autocast: the precision of the forward pass.

        Returns:
            The blocks of this process.

        Raises:
            ConfigError: fewer blocks than stages; or something in the network or the loss is not for one process alone.
        """
        surveys = self._survey(blocks, example, views, classes, autocast)
        self.bounds = stage_bounds([found.seconds for found in surveys], self.stages)
        check_followed(blocks, self.bounds)
        with self._reporting(0):
            for tensor in tensors_of(blocks):
                distributed.broadcast(tensor.data, 0)
        self._image = tuple(example.shape[1:])
        held = range(self.bounds[self.stage], self.bounds[self.stage + 1])
        self._forwards = any(found.images for found in surveys[held.stop :])
        shared = (self._control, self._payload, self.device, 3 * accumulate + len(_FIELDS) + 1, self._reporting)
        if not self.first:
            self._receiver = Receiver(self.rank - 1, *shared)
        if not self.last:
            self._sender = Sender(self.rank + 1, *shared)
        # Of units that two processes have, one trains the weights and the other needs them.
        alike = (self._control, self._payload, self.device, sum(1 for _ in tensors_of(blocks)), self._reporting)
        if not self.first and blocks[held.start].entered:
            self._returns = Sender(self.rank - 1, *alike)
        if not self.last and blocks[held.stop - 1].ahead:
            self._returned = Receiver(self.rank + 1, *alike)
        return held

    def _survey(
        self,
        blocks: Sequence[LocalBlock],
        example: Tensor,
        views: int,
        classes: int,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> list[Survey]:
        """Survey of the first process, broadcast to all; a refusal of it is raised in all of them."""
        answer: list[Any] = [None]
        if self.rank == 0:
            try:
                answer = [survey(blocks, example, views, classes, autocast)]
            except ConfigError as error:
                answer = [str(error)]
        with self._reporting(0):
            distributed.broadcast_object_list(answer, 0)
        if isinstance(answer[0], str):
            raise ConfigError(answer[0])
        return answer[0]

    def receive(self) -> Arrival:
        """The next batch from the process before. Its tensors are valid until the next call."""
        if self._receiver is None:
            raise ConfigError("the first process of a pipeline receives nothing: give it images")
        with self.guarded():
            (seed, views, present, forwarded, together, *_), tensors = self._receiver.receive()
        names = [name for bit, name in enumerate(_FIELDS) if present >> bit & 1]
        found: dict[str, Any] = {**dict.fromkeys(_FIELDS), **dict(zip(names, tensors, strict=False))}
        rest = tensors[len(names) :]
        size = len(found["targets"])
        if forwarded:
            images, rest = tuple(rest[0].split(size)), rest[1:]
        else:
            # Of the right shape, so that a batch can be counted and split, and of no use for anything else.
            images = (torch.empty(size, *self._image, device="meta"),) * views
        return Arrival(images, **found, flows=rest, seed=seed, together=together)

    def send(self, batch: Batch, seed: int, flows: Sequence[Tensor]) -> None:
        """Hands a batch on to the next process, if there is one."""
        if self._sender is None:
            return
        values = [getattr(batch, name) for name in _FIELDS]
        present = sum(1 << bit for bit, value in enumerate(values) if value is not None)
        tensors = [value for value in values if value is not None]
        if self._forwards:
            tensors.append(torch.cat(batch.views) if len(batch.views) > 1 else batch.images)
        self._sender.send((seed, len(batch.views), present, int(self._forwards), batch.together), [*tensors, *flows])

    def give_back(self, weights: Sequence[Tensor]) -> None:
        """Tells the process before of weights that this one has changed, and that it needs for its next step."""
        assert self._returns is not None
        self._returns.send((), weights)

    def take_back(self) -> list[Tensor]:
        """The weights that the process after this one has given back, once for each of its steps. They are valid until
        the next call."""
        assert self._returned is not None
        return self._returned.receive()[1]

    @property
    def peers(self) -> Any:
        """The group of the processes that hold the same blocks, one a replica; None where there is one replica."""
        return self._peers

    def average(self, block: LocalBlock) -> None:
        """Averages the gradients of a block over the replicas."""
        if self.replicas == 1:
            return
        gradients = [p.grad for p in block.parameters() if p.grad is not None]
        for dtype in dict.fromkeys(g.dtype for g in gradients):
            chosen = [g for g in gradients if g.dtype == dtype]
            # Divided first and added then, as DistributedDataParallel does it.
            flat = torch.cat([g.flatten() for g in chosen]).div_(self.replicas)
            with self._reporting(None):
                distributed.all_reduce(flat, group=self._peers)
            parts = flat.split([g.numel() for g in chosen])
            for gradient, part in zip(chosen, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))

    def gather(self, value: Any) -> list[Any] | None:
        """Collects the values of all stages of the first replica on its first process; None on all others.

        Args:
            value: anything that can be pickled; tensors on the CPU.
        """
        if self._sender is not None:
            self._sender.flush()
        if self.replica:
            return None
        found: list[Any] | None = [None] * self.stages if self.first else None
        with self._reporting(None):
            distributed.gather_object(value, found, dst=0, group=self._control)
        return found

    def describe(self, rank: int) -> str:
        """A process, for a person."""
        stage = rank % self.stages
        return f"process {rank} of {self.world} ({bounds_text(self.bounds, stage)})"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Tells the other processes if something in here fails."""
        try:
            yield
        except BaseException as error:
            self.abandon(error)
            raise

    def abandon(self, error: BaseException) -> None:
        """Tells the other processes why this one stops, and cuts the connections."""
        if self._alarm.rung:
            return
        for end in (self._sender, self._receiver, self._returns, self._returned):
            if end is not None:
                end.close()
        groups = [group for group in dict.fromkeys((self._control, self._peers)) if group is not None]
        self._control = self._payload = self._peers = None
        self._alarm.ring(error, groups)

    @contextmanager
    def _reporting(self, peer: int | None) -> Iterator[None]:
        """Turns what the backend says about a lost connection into what happened."""
        if self._alarm.rung:
            raise RankLost("the pipeline was given up after an error; start its processes again")
        try:
            yield
        except RuntimeError as error:
            raise self._alarm.lost(peer, error) from None
