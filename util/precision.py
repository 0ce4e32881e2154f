"""Mixed precision as the config asks for it."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from util.errors import print_error

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


def is_emulated(device: torch.device, precision: str) -> bool:
    """Return True for a 16-bit precision on a CPU without bfloat16 instructions: it emulates both
    16-bit types, many times slower."""
    is_16_bit = precision in ("bfloat16", "float16")
    return device.type == "cpu" and is_16_bit and precision_on(device, "auto") == "float32"


def warn_if_emulated(device: torch.device, precision: str) -> None:
    """Warn, for commands with `--set`, of a precision that `is_emulated`."""
    if is_emulated(device, precision):
        print_error(
            f"warning: precision: this CPU emulates {precision}, which is slow. Fix: --set "
            "precision=float32"
        )


@functools.cache
def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the flags that all CPUs of this machine have; none without /proc/cpuinfo."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    fields = (line.partition(":") for line in lines)
    flags = [set(value.split()) for name, _, value in fields if name.strip() in FLAG_LINES]
    return frozenset(set.intersection(*flags)) if flags else frozenset()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision."""
    resolved = precision_on(device, precision)
    dtype = torch.float16 if resolved == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=resolved != "float32")


def at_least_float32(x: Tensor) -> Tensor:
    """Return float64 unchanged, and any other tensor as float32."""
    return x if x.dtype == torch.float64 else x.float()
