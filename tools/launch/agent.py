"""torchrun, but a training that is asked to stop gets the time it needs, one that fails ends with
its own exit code and its own last words, and only one that was killed is restarted."""

import json
import logging
import math
import os
import signal
import socket
import sys
import time
from contextlib import suppress

from torch.distributed import DistError, TCPStore, launcher
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.utils.store import synchronize
from torch.distributed.run import get_args_parser, run

from util.distributed import patience, reason_of_launch, time_limit
from util.errors import USER_ERROR, UserError
from util.interrupt import SIGNALS, leaving_when_asked

FOLLOWING = (1, -signal.SIGABRT, -signal.SIGTERM)
"""Ends that another process' end may have caused: an error, an abort by NCCL, a batch system's."""
GRACE = 1.0
"""Seconds in which the one that failed first is seen to have ended, if others were seen before."""
ANSWER = 120.0
"""Seconds that the other machines have to end their processes, which torchrun kills after 30."""

POLL = 0.2
"""Seconds between two looks for the other machines."""

asked = False
"""Whether this launch was asked to stop."""


def pass_signals_on() -> None:
    """Signals go to all processes, which save together and end; torchrun would kill them after 30
    seconds, as it still does after SIGHUP and SIGQUIT."""
    start = PContext.start

    def start_and_pass_on(context: PContext) -> None:
        def pass_on(number: int, _: object) -> None:
            global asked
            asked = True
            for process in context.pids().values():
                with suppress(ProcessLookupError):
                    os.kill(process, number)

        start(context)  # takes these signals for torchrun
        for number in SIGNALS:
            signal.signal(number, pass_on)
        if asked:  # between two starts
            pass_on(signal.SIGTERM, None)

    PContext.start = start_and_pass_on


class Agent(LocalElasticAgent):
    """torchrun's, which restarts all processes whatever ended them; this one only when one was
    killed, as an error would come again.  Machines decide together, by what ended on any."""

    def _monitor_workers(self, group: WorkerGroup) -> RunResult:
        round_ = f"ends/{self._remaining_restarts}/"
        several = group.group_world_size > 1
        elsewhere = several and self._store.check([f"{round_}begun"])
        if not elsewhere and not any(self._codes(group).values()):
            return super()._monitor_workers(group)
        codes = {rank: code for rank, code in self._codes(group).items() if code}
        if all(code in FOLLOWING for code in codes.values()):
            time.sleep(GRACE)
            codes = {rank: code for rank, code in self._codes(group).items() if code}
        self._stop_workers(group)
        stopping = asked
        if several:
            self._store.set(f"{round_}begun", b"")
            codes, stopping = self._shared(round_, group, codes)
        self._allow_restart(codes, stopping, group.group_rank)
        failures = {rank: ProcessFailure(0, 0, code, "") for rank, code in codes.items()}
        return RunResult(WorkerState.FAILED, failures=failures)

    def _codes(self, group: WorkerGroup) -> dict[int, int | None]:
        """Exit codes of this machine's processes by rank, None for those that run."""
        handlers = self._pcontext.subprocess_handlers
        return {w.global_rank: handlers[w.local_rank].proc.poll() for w in group.workers}

    def _shared(
        self, round_: str, group: WorkerGroup, codes: dict[int, int]
    ) -> tuple[dict[int, int], bool]:
        """Exit codes of all machines' processes, and whether any machine was asked to stop."""
        own = json.dumps([list(codes.items()), asked]).encode()
        try:
            told = synchronize(
                self._store, own, group.group_rank, group.group_world_size, round_, ANSWER
            )
        except RuntimeError as error:  # of the store, which goes with the first machine
            reason = str(error).partition("\n")[0]
            sys.exit(f"error: a process failed, and another machine does not answer ({reason})")
        ends = [json.loads(one) for one in told]
        return {r: c for pairs, _ in ends for r, c in pairs}, any(stop for _, stop in ends)

    def _allow_restart(self, codes: dict[int, int], stopping: bool, node: int) -> None:
        rank = first_to_fail(codes)
        if stopping or not is_killed(codes[rank]):
            self._remaining_restarts = 0
        elif self._remaining_restarts and node == 0:
            most = self._worker_group.spec.max_restarts
            print(
                f"process {rank} was {killed_by(codes[rank])}; all go on from the last checkpoint "
                f"(restart {most - self._remaining_restarts + 1} of {most})",
                file=sys.stderr,
                flush=True,
            )


def first_to_fail(codes: dict[int, int]) -> int:
    """The rank whose end explains the others': one that said why, else one that was killed."""

    def order(rank: int) -> tuple[int, bool, int]:
        code = codes[rank]
        return FOLLOWING.index(code) + 1 if code in FOLLOWING else 0, code < 0, rank

    return min(codes, key=order)


def is_killed(code: int) -> bool:
    """By a signal that is no request to stop."""
    return code < 0 and -code not in SIGNALS


def killed_by(code: int) -> str:
    number = signal.Signals(-code)
    return f"killed by {number.name}" + " (out of memory?)" * (number == signal.SIGKILL)


def exit_code(error: ChildFailedError) -> int:
    """Of the process that failed first; one that was killed had no last words, so they are said."""
    codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
    rank = first_to_fail(codes)
    if codes[rank] >= 0:
        return codes[rank]
    print(
        f"error: process {rank} was {killed_by(codes[rank])}; the same command continues from the "
        "last checkpoint",
        file=sys.stderr,
    )
    return 128 - codes[rank]  # as shells say it


def meet(address: str, port: int, node: int, nodes: int) -> TCPStore | None:
    """Wait for the other machines, before torchrun does, which says less and hears no signal.

    Returns the store in which they met, to be kept.  Raises `UserError` for a port in use, a first
    machine that does not answer, and machines that do not come in time.
    """
    end = time.monotonic() + patience().total_seconds()
    if node >= nodes:
        raise UserError(f"NODE_RANK {node}: expected 0 to {nodes - 1} (NNODES is {nodes})")
    if node == 0:
        try:
            socket.create_server(("", port)).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port}: not available ({error}). Fix: use another") from None
    if nodes == 1:
        return None
    print(f"waiting for {nodes} machines on {address}:{port}", file=sys.stderr, flush=True)
    if node:
        _reach(address, port, end)
    store = TCPStore(
        address, port, is_master=node == 0, timeout=patience(), wait_for_workers=False,
        multi_tenant=True,
    )  # fmt: skip
    if store.add(f"machine {node}", 1) > 1:
        raise UserError(f"NODE_RANK {node}: two machines have it; expected 0 to {nodes - 1}")
    while missing := [str(n) for n in range(nodes) if not store.check([f"machine {n}"])]:
        if time.monotonic() > end:
            raise UserError(f"NODE_RANK {', '.join(missing)}: did not come; {time_limit()}")
        time.sleep(POLL)
    return store


def _reach(address: str, port: int, end: float) -> None:
    """Wait until the first machine listens."""
    while True:
        try:
            return socket.create_connection((address, port), timeout=5).close()
        except (OSError, OverflowError) as error:
            if time.monotonic() > end:
                raise UserError(
                    f"MASTER_ADDR {address}, port {port}: no answer ({error}); {time_limit()}"
                ) from None
            time.sleep(POLL)


def main() -> int:
    """Run torchrun; return the exit code."""
    arguments = get_args_parser().parse_args()
    kept = None
    try:
        with leaving_when_asked():
            if not arguments.standalone:
                nodes, node = int(arguments.nnodes), arguments.node_rank
                kept = meet(arguments.master_addr, arguments.master_port, node, nodes)
            arguments.rdzv_conf = f"timeout={math.ceil(patience().total_seconds())}"
            run(arguments)
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as error:
        code = exit_code(error)
        if kept is not None and code < 128:  # of a process that was not killed
            reason = reason_of_launch(kept, arguments.max_restarts, arguments.node_rank)
            print(f"error: {reason}\n" if reason else "", end="", file=sys.stderr)
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except DistError as error:
        reason = str(error).partition("\n")[0]
        print(f"error: another machine no longer answers ({reason})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def launch() -> int:
    """`main` in this project's way; return the exit code."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # all is said here
    pass_signals_on()
    launcher.api.LocalElasticAgent = Agent
    return main()
