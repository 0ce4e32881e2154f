"""Exchange between ranks without collectives: the launcher's store, failures, comparisons."""

import itertools
import json
import math
import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch.distributed as td

from util.config.differences import PER_MACHINE_KEYS, differences
from util.errors import USER_ERROR, UserError, join_first, print_error, reason
from util.launcher import launched_rank, launched_world_size, processes_here

TIMEOUT = 30.0
"""Default of the environment variable TIMEOUT: minutes that ranks and machines wait for each other.
NCCL's default of 10 is too short for rank 0 to check all files on a slow disk. The launcher notices
a process that dies at once."""
ROLL_CALL = 5.0
"""Seconds in which ranks that lost contact report; ranks that do not report are the lost ones."""
TELL_SECONDS = 10.0
"""Seconds in which a rank that fails before it met the others waits for them, to tell them why."""
POLL = 0.05
"""Seconds between two looks into the store."""
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""The environment variable in which a launcher counts restarts."""
_FAILURE = "failure"
"""Key of the first failure of any rank: cause, exit code, node, rank."""


def rendezvous_timeout() -> timedelta:
    """Return how long ranks and machines wait for each other: TIMEOUT in the environment."""
    given = os.environ.get("TIMEOUT") or str(TIMEOUT)
    try:
        minutes = float(given)
        if not 0 < minutes < math.inf:
            raise ValueError
        return timedelta(minutes=minutes)
    except (ValueError, OverflowError):
        raise UserError(f"TIMEOUT: expected a number of minutes, found '{given}'") from None


def time_limit() -> str:
    """Return the end of a message about a rank or machine that does not answer in time."""
    minutes = rendezvous_timeout().total_seconds() / 60
    unit = "minute" if minutes == 1 else "minutes"
    return f"the limit is {minutes:g} {unit} (environment variable TIMEOUT)"


def meeting_store(limit: timedelta | None = None) -> td.Store:
    """Return the launcher's key-value store, which ranks reach before and after they join.

    Raises `UserError` where it does not answer within `limit` (by default TIMEOUT minutes).
    """
    start = os.environ.get(RESTARTS, "0")
    if start not in _stores:
        _stores[start] = _store_of(start, limit or rendezvous_timeout())
    if (store := _stores[start]) is None:
        place = f"MASTER_ADDR {os.environ['MASTER_ADDR']}, port {os.environ['MASTER_PORT']}"
        raise UserError(f"{place}: no answer; {time_limit()}")
    return store


_stores: dict[str, td.Store | None] = {}
"""The part of the store for each start, as a restart must not find older entries; None, without
waiting again, where the store did not answer."""


def _store_of(start: str, limit: timedelta) -> td.Store | None:
    try:
        store, *_ = next(td.rendezvous("env://", timeout=limit))
    except td.DistError:
        return None
    except ValueError as error:
        raise UserError(
            f"WORLD_SIZE is {launched_world_size()}, but no launcher started this process "
            f"({reason(error)}). Fix: sh tools/train.sh starts several; for one, unset WORLD_SIZE"
        ) from None
    return td.PrefixStore(f"start {start}", store)


def exchange(
    store: td.Store,
    name: str,
    own: int,
    members: int,
    value: Any,
    limit: float | None = None,
    noun: str = "rank",
) -> list[Any]:
    """Return the `value` (JSON) of every member; `own`: the number of this one.

    Unlike a collective, it can be interrupted by a signal, and ends when a rank fails. Raises
    `UserError` with the first failure of any rank, or with the members that did not come within
    `limit` seconds (by default TIMEOUT minutes).
    """
    keys = [f"{name} {number}" for number in range(members)]
    store.set(keys[own], json.dumps(value))
    end = time.monotonic() + (limit or rendezvous_timeout().total_seconds())
    while not store.check(keys):
        if store.check([_FAILURE]):
            raise UserError(json.loads(store.get(_FAILURE))[0])
        if time.monotonic() > end:
            raise UserError(_no_answer(store, keys, noun, limit))
        time.sleep(POLL)
    return [json.loads(store.get(key)) for key in keys]


_calls = itertools.count()
"""Numbers of the calls of `require_equal`, the same on all ranks."""


def require_equal(name: str, facts: dict[str, Any]) -> None:
    """Check that `facts` (JSON) are equal on all ranks.

    Raises `UserError` as `exchange` does, and with the first rank that differs from rank 0.
    """
    if launched_world_size() == 1:
        return
    key = f"{next(_calls)} {name}"
    first, *others = exchange(meeting_store(), key, launched_rank(), launched_world_size(), facts)
    for number, other in enumerate(others, start=1):
        if found := differences(first, other, ignored_keys=PER_MACHINE_KEYS):
            raise UserError(
                f"rank {number} differs from rank 0: {join_first([*found.values()], 5)} "
                f"(rank 0 -> rank {number}). Fix: start all machines with the same code, "
                "libraries, command, split files and images"
            )


def report_failure(cause: str, code: int) -> tuple[str, int]:
    """Tell the other ranks why this one fails, unless another rank failed before.

    Returns the text for this process to print, and its exit code. The first rank that fails prints
    its own `cause`; one rank on each other machine prints the same cause; all others print nothing.

    Without a launcher, rank 0 serves the store: a rank that fails before the ranks met prints
    `cause` here, at once, as the others may never come.
    """
    if launched_world_size() == 1:
        return cause, code
    node = os.environ.get("GROUP_RANK", "0")
    several_nodes = processes_here() < launched_world_size()
    where = f"rank {launched_rank()} on {socket.gethostname()}: " if several_nodes else ""
    own = json.dumps([f"{where}{cause}", code, node, launched_rank()])
    limit = None
    if not _stores and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        limit = timedelta(seconds=TELL_SECONDS)
        if code == USER_ERROR:  # else the caller prints a traceback
            print_error(f"error: {cause}")
            cause = ""
    try:
        store = meeting_store(limit)
        _, code, _, first = json.loads(store.compare_set(_FAILURE, "", own))
        return cause if first == launched_rank() else remote_failure(store, node), code
    except (td.DistError, UserError):  # the store ended with the first machine
        return cause, code


def remote_failure(store: td.Store, node: str) -> str:
    """Return the cause of the first rank that failed, once for each node but its own; else ""."""
    if not store.check([_FAILURE]):
        return ""
    cause, _, its_node, _ = json.loads(store.get(_FAILURE))
    return cause if its_node != node and store.add(f"said on {node}", 1) == 1 else ""


def lost_contact(error: Exception) -> str | None:
    """Name the ranks that do not answer, if `error` comes from a collective; else return None."""
    if launched_world_size() == 1 or not (
        isinstance(error, td.DistError) or "/gloo/" in str(error)
    ):
        return None
    try:
        store = meeting_store()
        keys = [f"lost contact {number}" for number in range(launched_world_size())]
        store.set(keys[launched_rank()], "")
        end = time.monotonic() + ROLL_CALL
        while time.monotonic() < end and not store.check([_FAILURE]) and not store.check(keys):
            time.sleep(POLL)
        return _no_answer(store, keys)
    except (td.DistError, UserError):
        return f"MASTER_ADDR {os.environ['MASTER_ADDR']}: the first machine no longer answers"


def _no_answer(
    store: td.Store, keys: list[str], noun: str = "rank", limit: float | None = None
) -> str:
    """Name the members that did not set their key of `keys`."""
    missing = [str(number) for number, key in enumerate(keys) if not store.check([key])]
    nouns = noun if len(missing) == 1 else f"{noun}s"
    numbers = ", ".join(missing) or "of this run"
    limit_text = f"the limit is {limit:g} s" if limit else time_limit()
    return f"{nouns} {numbers}: no answer; stopped, killed or not reachable; {limit_text}"
