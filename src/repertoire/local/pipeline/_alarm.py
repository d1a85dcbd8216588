"""The last message of a process to the others, and the explanation of a connection that broke."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import distributed

from repertoire.errors import NonFiniteLoss, RankLost, RepertoireError

__all__ = ["Alarm"]

GRACE = 5.0
"""Seconds that a process which stops gives the others to hear of it."""


class Alarm:
    """Lets a process that stops say why, in the store that all processes share.

    Args:
        number: the same for all processes, and another for each alarm.
        describe: a process, by its rank, for a person.

    Attributes:
        rung: whether this process has given up.
    """

    def __init__(self, number: int, describe: Callable[[int], str]) -> None:
        self._failure, self._heard = f"repertoire/{number}/failure", f"repertoire/{number}/heard"
        self._describe = describe
        self.rung = False

    def ring(self, error: BaseException, groups: list[Any]) -> None:
        """Writes down why this process stops, unless it heard of it from another, and cuts the connections of its
        groups, so that nobody waits for it. The list is empty afterwards; nobody else may hold a group.

        The one that was first waits a little until all have heard, because a launcher kills them as soon as it is gone,
        and they would not get to say what happened.
        """
        self.rung = True
        text = str(error) if isinstance(error, RepertoireError) else f"{type(error).__name__}: {error}"
        # The store is gone if its host is: then all connections are cut anyway.
        with suppress(RuntimeError):
            store = _store()
            first = not isinstance(error, RankLost) and not store.check([self._failure])
            if first:
                reason = {"kind": type(error).__name__, "text": text, "rank": distributed.get_rank()}
                store.set(self._failure, json.dumps(reason))
            while groups:
                # A connection is cut when the last reference to its group is gone, and not before.
                distributed.destroy_process_group(groups.pop())
            heard, until = store.add(self._heard, 1), time.monotonic() + GRACE
            while first and heard < distributed.get_world_size() and time.monotonic() < until:
                time.sleep(0.05)
                heard = store.add(self._heard, 0)
            if first:
                time.sleep(GRACE / 10)

    def lost(self, peer: int | None, error: RuntimeError) -> RepertoireError:
        """The error that says what is behind a broken connection to a process, or to any if None."""
        with suppress(RuntimeError):
            store = _store()
            if store.check([self._failure]):
                reason = json.loads(store.get(self._failure))
                if reason["kind"] == NonFiniteLoss.__name__:
                    return NonFiniteLoss(reason["text"])
                return RankLost(f"{self._describe(reason['rank'])} stopped: {reason['text']}")
        who = "another process of the pipeline" if peer is None else self._describe(peer)
        short = str(error).split("] ", 1)[-1].split(". ", 1)[0].split("\n", 1)[0]
        return RankLost(f"{who} is gone or no longer answers ({short})")


def _store() -> Any:
    return distributed.distributed_c10d._get_default_store()
