"""Hugging Face hub: its reachability, timm's weights, and published folders."""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from util.errors import UserError, reason

HUB_PREFIX = "hf:"
"""Prefix of folders on the hub."""
OFFLINE_BY_USER = constants.HF_HUB_OFFLINE
"""HF_HUB_OFFLINE of the environment, before `use_cache_if_offline` changes it."""


def use_cache_if_offline() -> None:
    """Switch the hub's client to its cache if the hub cannot be reached: it would retry for a
    minute, even for cached files."""
    constants.HF_HUB_OFFLINE = OFFLINE_BY_USER  # an earlier failure may have passed
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # any HTTP client's error
        constants.HF_HUB_OFFLINE = True


def is_on_hub(backbone: str) -> bool:
    """Return True if timm's weights of a backbone are on the hub or in its cache."""
    import timm

    pretrained = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    if pretrained is None or not pretrained.hf_hub_id:
        return False
    use_cache_if_offline()
    if not constants.HF_HUB_OFFLINE:
        return True
    names = ("model.safetensors", "pytorch_model.bin")
    cached = (huggingface_hub.try_to_load_from_cache(pretrained.hf_hub_id, name) for name in names)
    return any(isinstance(path, str) for path in cached)


def hub_folder(name: str, option: str) -> Path:
    """Return the cached folder of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`; download it first
    if needed. `option`: of the command line, for messages.

    Raises `UserError` for another name, and for a folder that cannot be downloaded.
    """
    match = re.fullmatch(rf"{HUB_PREFIX}([\w.-]+/[\w.-]+)(?:@(.+))?", name)
    if match is None:
        raise UserError(
            f"{option} {name}: expected {HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME@REVISION"
        )
    use_cache_if_offline()
    patterns = ["*.safetensors", "config.yaml", "README.md"]
    try:
        folder = huggingface_hub.snapshot_download(
            match[1], revision=match[2], allow_patterns=patterns
        )
    except Exception as error:  # raised by the network, the hub or its client
        problem = reason(error)
        if constants.HF_HUB_OFFLINE:
            problem = "the hub cannot be reached, and its cache has no such folder"
        raise UserError(
            f"{option} {name}: cannot be downloaded ({problem}). Fix: name a local folder"
        ) from None
    return Path(folder)
