"""Mixed precision as the config asks for it."""

import functools
from pathlib import Path

import torch

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


def build_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Scales float16's losses; for the others it only keeps what is not finite from the weights."""
    if precision_on(device, precision) == "float16":
        return torch.amp.GradScaler(device.type)
    return torch.amp.GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)
