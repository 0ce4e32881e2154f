"""Ranks, devices and collectives; every function is a no-op in a single process.

The launcher sets RANK, LOCAL_RANK and WORLD_SIZE; plain python sets nothing.
"""

import inspect
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as td
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves, tree_map_only

from util.errors import UserError, counted
from util.launcher import launched_rank, launched_world_size, processes_here
from util.rendezvous import RESTARTS, meeting_store, rendezvous_timeout, require_equal

P = ParamSpec("P")
T = TypeVar("T")

_is_single = ContextVar("is_single", default=False)


def world_size() -> int:
    return td.get_world_size() if td.is_initialized() and not _is_single.get() else 1


@contextmanager
def single_process() -> Iterator[None]:
    """Treat this process as the only one inside: no function here waits for other ranks."""
    token = _is_single.set(True)
    try:
        yield
    finally:
        _is_single.reset(token)


def rank() -> int:
    return td.get_rank() if td.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def gpu_count() -> int:
    """Count the GPUs that PyTorch can use; `device_count` includes those with an old driver."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device of this rank by `--device`; auto: GPUs where each rank gets one.

    A program may also name one GPU, `cuda:1`. Raises `UserError` for other names, and for too few
    GPUs.
    """
    name = str(name)
    gpus, needed = gpu_count(), processes_here()
    if name not in ("auto", "cpu", "cuda"):
        number = re.fullmatch(r"cuda:(\d+)", name)
        if number is None or int(number[1]) >= gpus:
            raise UserError(
                f"device: found {name}, expected auto, cpu, cuda, or cuda:N with N below the "
                f"number of GPUs, {gpus}"
            )
        return torch.device(name)
    if name == "cuda" and gpus < needed:
        raise UserError(
            f"--device cuda: found {counted(gpus, 'GPU')}, expected {needed}, one for each process "
            "on this machine. Fix: start fewer processes, or use --device cpu"
        )
    if name == "cpu" or gpus < needed:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def is_restart() -> bool:
    """Return True if this process replaces one that ended: restarted by tools.launch, or in a job
    that Slurm queued again."""
    return any(int(os.environ.get(count, 0)) for count in (RESTARTS, "SLURM_RESTART_COUNT"))


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: on its GPU, or else in the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Join the other ranks, if there are any."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if launched_world_size() > 1:
        require_equal("device", {"--device": device.type})
        on_gpu = device.type == "cuda"
        td.init_process_group(
            "nccl" if on_gpu else "gloo",
            timeout=rendezvous_timeout(),
            world_size=launched_world_size(),
            rank=launched_rank(),
            store=meeting_store(),
            device_id=device if on_gpu else None,
        )
    finished = False
    try:
        yield
        # Gloo's threads must release the last tensors before they are joined: that needs Python's
        # lock, which the joining thread holds (a deadlock seen with torch 2.6).
        barrier()
        finished = True
    finally:
        # After a failure NCCL would wait here for collectives that other ranks never join; the end
        # of this process aborts them.
        if td.is_initialized() and (finished or td.get_backend() != "nccl"):
            td.destroy_process_group()


def all_reduce(x: Tensor, op: str = "sum") -> Tensor:
    """Reduce `x` over all ranks ('sum' or 'max') in place; return it."""
    if world_size() > 1:
        td.all_reduce(x, getattr(td.ReduceOp, op.upper()))
    return x


def any_rank(*flags: bool) -> list[bool]:
    """Return for each flag whether it is set on any rank."""
    if world_size() == 1:
        return list(flags)
    values = torch.tensor(flags, dtype=torch.int, device=_collective_device())
    return all_reduce(values, "max").bool().tolist()


def barrier() -> None:
    if world_size() > 1:
        td.barrier()


def on_main(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on rank 0 only; return its result, or raise its `UserError`, on all ranks."""
    result = None
    problem = None
    if is_main():
        try:
            result = function(*args, **kwargs)
        except UserError as error:
            problem = str(error)
    if world_size() > 1:
        result, problem = _broadcast((result, problem))
    if problem is not None:
        raise UserError(problem)
    return cast(T, result)


def _broadcast(value: T) -> T:
    """Return rank 0's `value` on all ranks.

    Tensors are sent one by one: pickling the state of a run would take twice its size in memory.
    """
    form = [tree_map_only(Tensor, _form, value) if is_main() else None]
    td.broadcast_object_list(form)
    if not is_main():
        value = tree_map_only(Tensor, _allocate, form[0])
    for tensor, sent in zip(tree_leaves(value), tree_leaves(form[0]), strict=True):
        if isinstance(sent, Tensor) and sent.is_meta and sent.numel():
            content = tensor.detach().contiguous().view(-1).view(torch.uint8)
            moved = content.to(_collective_device())
            td.broadcast(moved, 0)
            if not is_main():
                content.copy_(moved)
    return value


def _form(tensor: Tensor) -> Tensor:
    """Return an ordinary tensor without its content; any other, which is pickled, unchanged."""
    plain = type(tensor) is Tensor and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.layout != torch.strided or tensor.is_complex():
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _allocate(form: Tensor) -> Tensor:
    return torch.empty_like(form, device="cpu") if form.is_meta else form


def _collective_device() -> str:
    return "cuda" if td.get_backend() == "nccl" else "cpu"


def wrap(method: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a method for training on all ranks; its forward is the training step."""
    if world_size() == 1:
        return method
    known = inspect.signature(DistributedDataParallel).parameters
    is_old = "forward_sync_buffers" not in known  # PyTorch before 2.13
    send: dict[str, Any] = {"broadcast_buffers" if is_old else "forward_sync_buffers": False}
    return DistributedDataParallel(
        method,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # no second copy of the gradients
        **send,  # no buffers, which are averaged after the step (`average_batchnorm`)
    )


def batchnorm_processes(device: torch.device) -> int:
    """Return the number of ranks that share batch norm statistics: all on CUDA, else 1."""
    return world_size() if device.type == "cuda" else 1


def sync_batchnorm(method: nn.Module, device: torch.device) -> None:
    """Make batch norms compute statistics over all ranks, on CUDA."""
    if batchnorm_processes(device) > 1:
        from timm.layers import convert_sync_batchnorm  # not needed by the launcher

        convert_sync_batchnorm(method)  # torch's would drop activations that timm fuses


def average_batchnorm(method: nn.Module) -> None:
    """Average the running statistics of batch norms that are not synchronised."""
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
    """Skip the exchange of gradients for all but the last micro-batch of a step."""
    if last or not isinstance(wrapped, DistributedDataParallel):
        return nullcontext()
    return wrapped.no_sync()
