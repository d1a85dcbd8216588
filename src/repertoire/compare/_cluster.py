"""Workers of a cluster, Ray's or Dask's, behind the interface of `concurrent.futures`."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from repertoire.errors import MissingExtra, UnknownName, option

__all__ = ["Backend", "Cluster", "check_backend", "cluster", "node"]

Backend = Literal["loky", "ray", "dask"]
"""Processes on this machine, or the workers of a Ray or Dask cluster."""

T = TypeVar("T")

WATCH_EVERY = 0.5
"""Seconds between two looks at which workers of a Dask cluster are there."""

RESTART_WITHIN = "1 hour"
"""How long a worker of this machine that died may take to come back, in the words of Dask."""

READ_WITHIN = 60.0
"""Seconds that the result of a call, which has ended, may take from its worker."""


def check_backend(backend: str) -> None:
    """Refuses a backend that cannot be used.

    Raises:
        UnknownName: there is none of that name.
        MissingExtra: what it needs is not installed.
    """
    if backend not in get_args(Backend):
        raise UnknownName("backend", backend, get_args(Backend))
    try:
        if backend == "ray":
            import ray  # noqa: F401
        elif backend == "dask":
            import distributed  # noqa: F401
    except ImportError:
        raise MissingExtra(backend, option("backend", backend)) from None


class Cluster(Executor):
    """Workers of a cluster. A call has its worker to itself: two at once would share random numbers and threads.

    A future whose worker died raises `BrokenExecutor`; the futures of other workers go on.
    """

    @property
    def slots(self) -> int:
        """Number of calls that can be under way at once, as the cluster is now; 1 or more."""
        raise NotImplementedError


@contextmanager
def cluster(backend: Literal["ray", "dask"], *, threads: int = 1, gpu: bool = False) -> Iterator[Cluster]:
    """Connects to a cluster: the one that this process is connected to, or that RAY_ADDRESS or DASK_SCHEDULER_ADDRESS
    names, or workers on this machine, which are ended with the block.

    Args:
        backend: "ray" or "dask".
        threads: cores that a call takes. Ray counts with them; of Dask a worker is taken for one call.
        gpu: whether a call takes a GPU, where the cluster has any.

    Raises:
        MissingExtra: what it needs is not installed.
    """
    check_backend(backend)
    with _ray(threads, gpu) if backend == "ray" else _dask() as found:
        yield found


def node() -> str:
    """Place of the call that this thread works on, such as "alpha (dask worker tcp://10.0.0.2:4711)"; empty where it is
    not a worker of a cluster."""
    return getattr(_PLACE, "name", "")


_PLACE = threading.local()
_ALONE = threading.Lock()
"""Held by the call that is under way: a Dask worker may have several threads."""


def _called(backend: str, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Runs in a worker."""
    with _ALONE:
        _PLACE.name = f"{socket.gethostname()} ({_worker(backend)}, process {os.getpid()})"
        try:
            return function(*arguments)
        finally:
            _PLACE.name = ""


def _worker(backend: str) -> str:
    if backend == "ray":
        import ray

        return f"ray node {ray.get_runtime_context().get_node_id()[:8]}"
    from distributed import get_worker

    return f"dask worker {get_worker().address}"


@contextmanager
def _ray(threads: int, gpu: bool) -> Iterator[Cluster]:
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield _Ray(threads, gpu and ray.cluster_resources().get("GPU", 0) >= 1)
    finally:
        if ours:
            ray.shutdown()


class _Ray(Cluster):
    def __init__(self, threads: int, gpu: bool) -> None:
        import ray

        self._threads, self._gpu = threads, gpu
        # A call that dies is ours to repeat: only here it is known that a run may go on.
        self._remote: Any = ray.remote(_called).options(num_cpus=threads, num_gpus=int(gpu), max_retries=0)

    @property
    def slots(self) -> int:
        import ray

        found = ray.cluster_resources()
        cores = int(found.get("CPU", 0)) // self._threads
        return max(1, min(cores, int(found.get("GPU", 0))) if self._gpu else cores)

    def submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T]:  # type: ignore[override]
        import ray

        reference = self._remote.remote("ray", fn, args)
        future: Future[T] = Future()

        def read(found: Future[T]) -> T:
            try:
                return found.result()
            except ray.exceptions.RayTaskError:  # what the call itself has raised
                raise
            except ray.exceptions.RayError as error:
                raise BrokenExecutor(" ".join(str(error).split())) from None

        future.add_done_callback(lambda found: ray.cancel(reference, force=True) if found.cancelled() else None)
        reference.future().add_done_callback(lambda found: _settle(future, lambda: read(found)))
        return future


@contextmanager
def _dask() -> Iterator[Cluster]:
    import dask
    from distributed import Client, get_client

    try:
        client, ours = get_client(), False
    except ValueError:  # none yet
        named = dask.config.get("scheduler-address", None)
        client, ours = Client(**({} if named else {"threads_per_worker": 1})), True
    workers = _Dask(client)
    # Dask's own cluster on this machine gives a worker up for good that is not there again after fifteen seconds, which
    # is no time to start Python in where the cores are busy; without workers, calls would wait for ever.
    with dask.config.set({"distributed.deploy.lost-worker-timeout": RESTART_WITHIN}):
        try:
            yield workers
        finally:
            workers.close()
            if ours:
                client.close()


class _Dask(Cluster):
    """Gives a worker one call, and the next when that one has ended.

    Dask would hand each worker several calls, hold all of them suspect when it dies, and give up those that were there
    at too many deaths: a run that never began would fail for what another one did. A call is bound to its worker here,
    and who looks after the workers says of a call that its worker is gone.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: deque[_Call] = deque()
        self._at: dict[str, _Call] = {}
        self._lock = threading.RLock()
        self._news, self._over = threading.Event(), threading.Event()
        self._demand: Any = None
        self._watcher = threading.Thread(target=self._watch, name="watch-dask-workers", daemon=True)
        self._watcher.start()

    @property
    def slots(self) -> int:
        return max(1, len(self._client.nthreads()))

    def submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T]:  # type: ignore[override]
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append(_Call(future, fn, args))
        self._news.set()
        return future

    def close(self) -> None:
        """Ends the watch."""
        self._over.set()
        self._news.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._news.wait(WATCH_EVERY)
            self._news.clear()
            with self._lock:
                taken = set(self._at)
            try:
                # A worker that had a call is free at the next look: by then it is known whether it is still there.
                self._look(set(self._client.nthreads()), taken)
            except (OSError, TimeoutError, RuntimeError, ValueError):  # of the scheduler, which may come back
                if self._client.status == "closed":
                    self._give_up()

    def _give_up(self) -> None:
        """The scheduler is gone for good; what workers had of it says so itself."""
        with self._lock:
            calls = [*self._waiting, *(call for call in self._at.values() if call.remote is None)]
            self._waiting.clear()
        for call in calls:
            _settle(call.future, functools.partial(_broken, "the cluster's scheduler is gone"))

    def _look(self, alive: set[str], taken: set[str]) -> None:
        """Gives up the calls of workers that are gone, and gives those that are there and not taken a call each."""
        with self._lock:
            # What has ended is read where it is heard of.
            lost = [place for place, call in self._at.items() if place not in alive and not call.ended]
            gone = [(place, self._at.pop(place)) for place in lost]
            for place in alive - taken:
                while self._waiting and self._waiting[0].future.cancelled():
                    self._waiting.popleft()
                if self._waiting:
                    self._at[place] = call = self._waiting.popleft()
                    self._send(place, call)
            # A cluster that grows on demand sees none in calls that wait here.
            if alive or not self._waiting:
                self._demand = None
            elif self._demand is None:
                self._demand = self._client.submit(_nothing, pure=False)
        for place, call in gone:
            call.remote.cancel()
            _settle(call.future, functools.partial(_broken, f"worker {place} is gone"))

    def _send(self, place: str, call: _Call) -> None:
        """Has a call done by a worker."""
        call.remote = remote = self._client.submit(
            _called, "dask", call.function, call.arguments, pure=False, workers=[place], allow_other_workers=False
        )

        def free() -> bool:
            """Whether the call was still with its worker, which then is free."""
            with self._lock:
                mine = self._at.get(place) is call
                if mine:
                    del self._at[place]
            self._news.set()
            return mine

        def end(_: Any) -> None:
            if free():
                _settle(call.future, functools.partial(_read, remote))

        def cancel(future: Future[Any]) -> None:
            if future.cancelled() and free():
                remote.cancel()

        remote.add_done_callback(end)
        call.future.add_done_callback(cancel)


@dataclass
class _Call:
    """A call on its way through a Dask cluster.

    Attributes:
        future: what the caller has of it.
        remote: what Dask has of it, once a worker has it.
    """

    future: Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    remote: Any = None

    @property
    def ended(self) -> bool:
        return self.remote is not None and self.remote.status in ("finished", "error")


def _nothing() -> None:
    """What is done to have a worker."""


def _broken(reason: str) -> Any:
    raise BrokenExecutor(reason)


def _read(remote: Any) -> Any:
    """What a call on a Dask cluster gave or raised."""
    from distributed import KilledWorker

    if remote.status not in ("finished", "error"):  # lost with its scheduler, or cancelled by somebody else
        _broken(f"the cluster has lost it, and says that it is {remote.status!r}")
    value: Any = None
    error = remote.exception() if remote.status == "error" else None
    if isinstance(error, KilledWorker):
        _broken(" ".join(str(error).split()))
    if error is not None:
        raise error
    try:
        value = remote.result(timeout=READ_WITHIN)
    except TimeoutError:
        _broken("its worker was gone before its result was read")
    return value


def _settle(future: Future[T], read: Callable[[], T]) -> None:
    """Ends a future with what a call gave or raised, unless it was cancelled meanwhile."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(read())
    except BaseException as error:
        future.set_exception(error)
