"""Mixed precision as the config asks for it."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from util import distributed

FLAG_LINES = ("flags", "Features")
"""Names of the lines of /proc/cpuinfo that list what an x86 or an ARM CPU can do."""
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16", "svebf16"}
"""Flags of CPUs that compute in bfloat16; others would emulate it."""


def precision_on(device: torch.device, precision: str) -> str:
    """Resolve `auto` for a device; return other precisions unchanged."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "bfloat16" if BFLOAT16_FLAGS & cpu_flags() else "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


@functools.cache
def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the flags that all CPUs of this machine have; none without /proc/cpuinfo."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    flags = [set(found.split()) for name, _, found in named if name.strip() in FLAG_LINES]
    return frozenset(set.intersection(*flags)) if flags else frozenset()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision."""
    found = precision_on(device, precision)
    dtype = torch.float16 if found == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=found != "float32")


def at_least_float32(x: Tensor) -> Tensor:
    """Return a tensor of half precision as float32, any other unchanged."""
    return x if x.dtype == torch.float64 else x.float()


class LossScale:
    """Dynamic loss scale of float16, on the device; 1 in the other precisions.

    It halves when gradients overflow, and doubles after `PATIENCE` steps without overflow.  Unlike
    torch's `GradScaler`, it ignores steps whose loss is not finite, which no scale can help, and
    does not fall below `FLOOR`, where gradients underflow to 0.
    """

    START, FLOOR, CEILING, PATIENCE = 2.0**16, 1.0, 2.0**64, 2000

    def __init__(self, device: torch.device, precision: str):
        is_dynamic = precision_on(device, precision) == "float16"
        self.value = torch.full((), self.START, device=device) if is_dynamic else None
        """The scale; None is 1."""
        self._steps = torch.zeros((), dtype=torch.int, device=device)

    def scale(self, loss: Tensor) -> Tensor:
        return loss if self.value is None else loss * self.value

    def unscale(self, grad_norm: Tensor) -> Tensor:
        """Return the norm of the gradients without the scale; the optimizer unscales them."""
        return grad_norm if self.value is None else grad_norm / self.value

    def update(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Adapt the scale to a step; every rank adapts it alike, whichever loss is not finite."""
        if self.value is None:
            return
        bad_loss = distributed.all_reduce((~loss.isfinite()).int(), "max").bool()
        overflow = ~grad_norm.isfinite() & ~bad_loss
        steps = torch.where(overflow, 0, self._steps + 1)
        grows = steps >= self.PATIENCE
        factor = torch.where(overflow, 0.5, torch.where(grows, 2.0, 1.0))
        self.value = (self.value * factor).clamp(self.FLOOR, self.CEILING)
        self._steps = torch.where(grows, 0, steps)

    def state(self) -> dict[str, float]:
        scale = 1.0 if self.value is None else self.value.item()
        return {"scale": scale, "_growth_tracker": int(self._steps.item())}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue with a saved scale; start anew from one below the floor."""
        if self.value is not None and state["scale"] >= self.FLOOR:
            self.value.fill_(state["scale"])
            self._steps.fill_(state["_growth_tracker"])
