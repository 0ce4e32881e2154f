"""All that knows of processes and devices; every function is a no-op when alone.

`torchrun` sets RANK, LOCAL_RANK and WORLD_SIZE; plain python sets nothing.
"""

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as td
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from util.errors import Echo, UserError

PATIENCE = timedelta(hours=1)
"""How long processes wait for each other: NCCL's 10 minutes are too few for the main process to
look at all files on a slow disk.  One that died is noticed at once, by torchrun."""
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
"""The variable in which a launcher says how many times its processes were restarted."""


_is_alone = ContextVar("is_alone", default=False)


def world_size() -> int:
    return td.get_world_size() if td.is_initialized() and not _is_alone.get() else 1


@contextmanager
def alone() -> Iterator[None]:
    """For a while this process counts as the only one, and waits for no other."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def rank() -> int:
    return td.get_rank() if td.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def processes_here() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def choose_device(name: str) -> torch.device:
    """This process's device, by `--device`: auto takes GPUs where there is one per process.

    Raises `UserError` where GPUs are demanded and there are too few.
    """
    gpus, needed = torch.cuda.device_count(), processes_here()
    if name == "cuda" and gpus < needed:
        raise UserError(
            f"--device cuda: found {gpus} GPUs for {needed} processes on this machine; start "
            "fewer, or use --device cpu"
        )
    if name == "cpu" or gpus < needed:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def is_restart() -> bool:
    """Whether this process takes the place of one that ended: after a death, as tools/launch.py
    does it, or in a job that Slurm queued again."""
    return any(int(os.environ.get(count, 0)) for count in (RESTARTS, "SLURM_RESTART_COUNT"))


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: of its GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Join the other processes, if there are any."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # The launcher's store outlives its processes: a restart must not meet its dead ones there.
        store, number, processes = next(td.rendezvous("env://"))
        store = td.PrefixStore(f"start {os.environ.get(RESTARTS, 0)}", store)
        backend, own = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        td.init_process_group(
            backend,
            timeout=PATIENCE,
            world_size=processes,
            rank=number,
            store=store,
            device_id=own,
        )
    finished = False
    try:
        yield
        # Gloo's threads must have let go of the last tensors before they are joined: freeing one
        # takes Python's lock, which the joining thread holds (a deadlock seen with torch 2.6).
        barrier()
        finished = True
    finally:
        # After a failure NCCL would wait here for what other processes never join; the end of this
        # one aborts it.
        if td.is_initialized() and (finished or td.get_backend() != "nccl"):
            td.destroy_process_group()


def all_reduce(x: Tensor, op: str = "sum") -> Tensor:
    """`x` reduced over all processes ('sum' or 'max'), in place."""
    if world_size() > 1:
        td.all_reduce(x, getattr(td.ReduceOp, op.upper()))
    return x


def anywhere(*flags: bool) -> list[bool]:
    """Whether each flag is set on any process."""
    if world_size() == 1:
        return list(flags)
    device = "cuda" if td.get_backend() == "nccl" else "cpu"
    return all_reduce(torch.tensor(flags, dtype=torch.int, device=device), "max").bool().tolist()


def barrier() -> None:
    if world_size() > 1:
        td.barrier()


def on_main(run: Callable[[], None]) -> None:
    """Run something on the main process while all others wait for it.  Its `UserError` is an
    `Echo` on them, so that none waits for one that left."""
    problem: list[Any] = [None]
    if is_main():
        try:
            run()
        except UserError as error:
            problem = [str(error)]
    if world_size() > 1:
        td.broadcast_object_list(problem)
    if problem[0]:
        raise (UserError if is_main() else Echo)(problem[0])


def wrap(method: nn.Module, device: torch.device) -> nn.Module:
    """The module whose forward is the training step on all processes together."""
    if world_size() == 1:
        return method
    # Buffers are averaged after the step (`average_batchnorm`), so DDP need not send them before.
    return DistributedDataParallel(
        method,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,  # no second copy of them
    )


def batchnorm_processes(device: torch.device) -> int:
    """Processes whose images a batch norm counts together: all of them, on CUDA only."""
    return world_size() if device.type == "cuda" else 1


def sync_batchnorm(method: nn.Module, device: torch.device) -> None:
    """Make the batch norms inside `method` count over all processes, where they can."""
    if batchnorm_processes(device) > 1:
        convert_sync_batchnorm(method)  # torch's would lose the activations that timm fuses with it


def average_batchnorm(method: nn.Module) -> None:
    """Running statistics of batch norms that each process updates alone become their mean."""
    if world_size() == 1:
        return
    statistics = [
        buffer
        for m in method.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, nn.SyncBatchNorm)
        for buffer in (m.running_mean, m.running_var)
        if buffer is not None
    ]
    if statistics:
        flat = all_reduce(torch.cat([s.flatten() for s in statistics])) / world_size()
        for s, mean in zip(statistics, flat.split([s.numel() for s in statistics]), strict=True):
            s.copy_(mean.view_as(s))


def no_sync(wrapped: nn.Module, last: bool) -> Any:
    """Gradients cross processes with the last micro-batch of a step only."""
    if last or not isinstance(wrapped, DistributedDataParallel):
        return nullcontext()
    return wrapped.no_sync()
