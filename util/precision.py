"""Mixed precision as the config asks for it."""

import torch


def precision_on(device: torch.device, precision: str) -> str:
    """What `auto` means on a device; the others mean themselves."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


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
