"""Start, watch and restart the processes of a launch.

They get the environment variables of torchrun and meet in a `TCPStore` of the first node's
launcher. torchrun would kill a run that saves for more than 30 seconds after a signal, and restart
it after every error.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch.distributed import DistError, PrefixStore, TCPStore

from util.errors import UserError, print_error
from util.interrupt import SIGNALS, handling
from util.rendezvous import RESTARTS, exchange, remote_failure, rendezvous_timeout, time_limit

CONSEQUENCES = (1, -signal.SIGABRT, -signal.SIGTERM)
"""Exit codes that the end of another rank may cause: an error, an abort by NCCL, a batch system."""
GRACE = 1.0
"""Seconds to wait for the rank that failed first: the ranks that it stops may end before it."""
STOP_TIMEOUT = 30.0
"""Seconds for ranks to end after a failure."""
REPORT_TIMEOUT = 120.0
"""Seconds for other nodes to report a failure."""
LEAVE_TIMEOUT = 10.0
"""Seconds for other nodes to read the last report."""
SHARED = ("nproc_per_node", "nnodes", "max_restarts")
"""Options that must be equal on all nodes."""
POLL = 0.2
"""Seconds between two checks of processes and nodes."""


class Launch:
    """The processes of one node, and the store in which all nodes meet."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.stopping = False
        """True once a signal asked the launch to stop."""

    def run(self) -> int:
        """Run the script until it ends or cannot be restarted; return the exit code.

        Raises `UserError` as `_meet` does, and for machines that are started differently.
        """
        try:
            launches = self._meet()
            try:
                require_equal_launches(launches)
                with handling(SIGNALS, self._pass_on):
                    return self._run_until_it_ends()
            finally:
                self._stop()
                self._leave()
        except DistError as error:
            reason = str(error).partition("\n")[0]
            print_error(f"error: the first machine no longer answers ({reason})")
            return 1

    def _run_until_it_ends(self) -> int:
        most, start = self.args.max_restarts, 0
        while True:
            codes, stopping = self._run_once(start)
            if not codes:
                return 0
            rank = first_to_fail(codes)
            if stopping or not is_killed(codes[rank]) or start >= most:
                return self._end(start, rank, codes[rank])
            start += 1
            if self.args.node_rank == 0:
                print_error(
                    f"process {rank} was {killed_by(codes[rank])}; all restart from the last "
                    f"checkpoint (restart {start} of {most})"
                )

    def _end(self, start: int, rank: int, code: int) -> int:
        """Print the reason for the end, unless a process of this node did; return the exit code."""
        if code < 0:
            print_error(
                f"error: process {rank} was {killed_by(code)}; the same command resumes from the "
                "last checkpoint"
            )
            return 128 - code  # as shells do
        # Ranks of this node may have hung in a collective until they were stopped.
        store = PrefixStore(f"start {start}", self.store)
        if reason := remote_failure(store, str(self.args.node_rank)):
            print_error(f"error: {reason}")
        return code

    def _pass_on(self, number: int, _: object) -> None:
        """Send a signal to all processes, which save together and end."""
        self.stopping = True
        for process in self.processes.values():
            process.send_signal(number)

    def _run_once(self, start: int) -> tuple[dict[int, int], bool]:
        """Return the exit codes of the failed ranks of all nodes, and whether one was stopped."""
        self._start(start)
        failed = f"failed {start}"
        while None in (codes := self._codes()).values():
            if any(codes.values()) or self.store.check([failed]):
                break
            time.sleep(POLL)
        codes = {rank: code for rank, code in codes.items() if code}
        if codes and all(code in CONSEQUENCES for code in codes.values()):
            time.sleep(GRACE)
            codes = {rank: code for rank, code in self._codes().items() if code}
        if codes:
            self.store.set(failed, "")
        self._stop()
        end = [[*codes.items()], self.stopping]
        ends = self._exchange(f"ends {start}", end, limit=REPORT_TIMEOUT if codes else None)
        return {r: code for pairs, _ in ends for r, code in pairs}, any(stop for _, stop in ends)

    def _start(self, start: int) -> None:
        """Start the processes of this node; `start`: number of restarts before."""
        args, local_ranks = self.args, self.args.nproc_per_node
        if local_ranks > 1:
            os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
        for local in range(local_ranks):
            rank = args.node_rank * local_ranks + local
            variables = {
                "RANK": rank, "LOCAL_RANK": local, "GROUP_RANK": args.node_rank,
                "WORLD_SIZE": local_ranks * args.nnodes, "LOCAL_WORLD_SIZE": local_ranks,
                "MASTER_ADDR": args.master_addr, "MASTER_PORT": self.store.port,
                "TORCHELASTIC_USE_AGENT_STORE": True, RESTARTS: start,
            }  # fmt: skip
            command = [sys.executable, "-u", *["-m"] * args.module, args.script]
            self.processes[rank] = subprocess.Popen(
                [*command, *args.arguments],
                env=os.environ | {name: str(value) for name, value in variables.items()},
                start_new_session=True,  # a terminal's Ctrl-C reaches them through this process
            )
        if self.stopping:  # a signal between two starts
            self._pass_on(signal.SIGTERM, None)

    def _codes(self) -> dict[int, int | None]:
        """Return the exit codes by rank, None for processes that run."""
        return {rank: process.poll() for rank, process in self.processes.items()}

    def _stop(self) -> None:
        running = [process for process in self.processes.values() if process.poll() is None]
        for process in running:
            process.terminate()
        end = time.monotonic() + STOP_TIMEOUT
        for process in running:
            try:
                process.wait(max(0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _meet(self) -> list[dict[str, int]]:
        """Wait for the other nodes; return the `SHARED` options of each.

        Raises `UserError` for a port in use, a first node that does not answer, and nodes that are
        late.
        """
        args = self.args
        node, nodes = args.node_rank, args.nnodes
        address = args.master_addr
        port = 0 if args.standalone else args.master_port
        if nodes > 1:
            print(f"waiting for {nodes} machines on {address}:{port}", file=sys.stderr, flush=True)
        if node == 0:
            require_free_port(port)
        else:
            wait_for_port(address, port)
        self.store = TCPStore(
            address, port, is_master=node == 0, timeout=rendezvous_timeout(), wait_for_workers=False
        )
        if self.store.add(f"node {node}", 1) > 1:
            raise UserError(
                f"NODE_RANK {node}: used by two machines; expected 0 to {nodes - 1}, each once"
            )
        return self._exchange("here", {name: getattr(args, name) for name in SHARED})

    def _exchange(self, name: str, value: Any, limit: float | None = None) -> list[Any]:
        """Return the `value` (JSON) of every node."""
        args = self.args
        return exchange(self.store, name, args.node_rank, args.nnodes, value, limit, "NODE_RANK")

    def _leave(self) -> None:
        """Keep the store of the first node until no other node needs it."""
        with suppress(DistError, UserError):
            if self.args.node_rank == 0:
                self._exchange("left", None, LEAVE_TIMEOUT)
            else:
                self.store.set(f"left {self.args.node_rank}", "null")


def require_equal_launches(launches: Sequence[dict[str, int]]) -> None:
    """Raise `UserError` where the `SHARED` options of a node differ from those of the first one."""
    for node, launch in enumerate(launches):
        for name, value in launch.items():
            if value != launches[0][name]:
                raise UserError(
                    f"NODE_RANK {node}: found --{name} {value}, expected {launches[0][name]} as on "
                    "NODE_RANK 0. Fix: start all machines with the same"
                )


def first_to_fail(codes: dict[int, int]) -> int:
    """Return the rank that caused the end: one with an exit code of its own, else a killed one."""

    def order(rank: int) -> tuple[int, bool, int]:
        code = codes[rank]
        likely_consequence = CONSEQUENCES.index(code) + 1 if code in CONSEQUENCES else 0
        return likely_consequence, code < 0, rank

    return min(codes, key=order)


def is_killed(code: int) -> bool:
    """Return True if a process was ended by a signal other than a request to stop."""
    return code < 0 and -code not in SIGNALS


def killed_by(code: int) -> str:
    number = signal.Signals(-code)
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    return f"killed by {number.name}{hint}"


def require_free_port(port: int) -> None:
    """Raise `UserError` for a port in use, which `TCPStore` reports in several lines."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(f"port {port}: not available ({error}). Fix: use another port") from None


def wait_for_port(address: str, port: int) -> None:
    """Wait until the first node listens; `TCPStore` would not react to signals meanwhile."""
    end = time.monotonic() + rendezvous_timeout().total_seconds()
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"MASTER_ADDR {address}, port {port}: no answer ({error}); {time_limit()}"
                ) from None
            time.sleep(POLL)
