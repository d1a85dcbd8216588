"""Workers of a cluster, Ray's or Dask's, behind the interface of `concurrent.futures`."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

from repertoire.errors import MissingExtra, UnknownName, option

__all__ = ["Backend", "Cluster", "check_backend", "cluster", "node"]

Backend = Literal["loky", "ray", "dask"]
"""Processes on this machine, or the workers of a Ray or Dask cluster."""

T = TypeVar("T")


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

    retries = False
    """Whether the cluster itself gives what a dying worker was at to others before it gives up."""

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
    try:
        yield _Dask(client)
    finally:
        if ours:
            client.close()


class _Dask(Cluster):
    retries = True

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def slots(self) -> int:
        return max(1, len(self._client.nthreads()))

    def submit(self, fn: Callable[..., T], /, *args: Any) -> Future[T]:  # type: ignore[override]
        from distributed import KilledWorker

        remote = self._client.submit(_called, "dask", fn, args, pure=False)
        future: Future[T] = Future()

        def read() -> T:
            if remote.status not in ("finished", "error"):  # lost with its scheduler, or cancelled by somebody else
                raise BrokenExecutor(f"the cluster has lost it, and says that it is {remote.status!r}")
            try:
                found: T = remote.result()
                return found
            except KilledWorker as error:
                raise BrokenExecutor(" ".join(str(error).split())) from None

        future.add_done_callback(lambda found: remote.cancel() if found.cancelled() else None)
        remote.add_done_callback(lambda _: _settle(future, read))
        return future


def _settle(future: Future[T], read: Callable[[], T]) -> None:
    """Ends a future with what a call gave or raised, unless it was cancelled meanwhile."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(read())
    except BaseException as error:
        future.set_exception(error)
