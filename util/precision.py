"""Mixed precision as the config asks for it."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from util import dist

FLAG_LINES = ("flags", "Features")
"""Names of the lines of /proc/cpuinfo that list what an x86 or an ARM CPU can do."""
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16", "svebf16"}
"""Of what is listed there, what a CPU that computes in bfloat16 has; others would emulate it."""


def precision_on(device: torch.device, precision: str) -> str:
    """What `auto` means on a device; the others mean themselves."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "bfloat16" if BFLOAT16_FLAGS & cpu_flags() else "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


@functools.cache
def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What all CPUs of this machine can do; none is known where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    named = (line.partition(":") for line in lines)
    flags = [set(found.split()) for name, _, found in named if name.strip() in FLAG_LINES]
    return frozenset(set.intersection(*flags)) if flags else frozenset()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision as the config says."""
    found = precision_on(device, precision)
    dtype = torch.float16 if found == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=found != "float32")


class LossScale:
    """Dynamic loss scale of float16, on the device; 1 in the other precisions.

    It halves when gradients overflow, and doubles after `PATIENCE` steps without overflow.  Unlike
    torch's `GradScaler`, it ignores steps whose loss is not finite, which no scale can help, and
    does not fall below `FLOOR`, where gradients underflow to 0.
    """

    START, FLOOR, PATIENCE = 2.0**16, 1.0, 2000

    def __init__(self, device: torch.device, precision: str):
        self.is_dynamic = precision_on(device, precision) == "float16"
        self._scale = torch.full((), self.START if self.is_dynamic else 1.0, device=device)
        self._steps = torch.zeros((), dtype=torch.int, device=device)

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self._scale if self.is_dynamic else loss

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide the gradients by the scale, in place."""
        if self.is_dynamic:
            torch._foreach_mul_(gradients, self._scale.reciprocal())

    def update(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Adapt the scale to a step; every rank adapts it alike, whichever loss is not finite."""
        if not self.is_dynamic:
            return
        bad_loss = dist.all_reduce((~loss.isfinite()).int(), "max").bool()
        overflow = ~grad_norm.isfinite() & ~bad_loss
        steps = torch.where(overflow, 0, self._steps + 1)
        grows = steps >= self.PATIENCE
        factor = torch.where(overflow, 0.5, torch.where(grows, 2.0, 1.0))
        self._scale = (self._scale * factor).clamp(min=self.FLOOR)
        self._steps = torch.where(grows, 0, steps)

    def state(self) -> dict[str, float]:
        return {"scale": self._scale.item(), "_growth_tracker": int(self._steps.item())}

    def load_state(self, state: dict[str, float]) -> None:
        """Continue with a saved scale; start anew from one below the floor."""
        if self.is_dynamic and state["scale"] >= self.FLOOR:
            self._scale.fill_(state["scale"])
            self._steps.fill_(state["_growth_tracker"])
