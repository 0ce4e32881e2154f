"""The Hugging Face hub: asked once whether it is there, and folders that were published on it."""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from model.files import HUB
from util.errors import UserError, reason


def ask_hub_once() -> None:
    """Where the hub cannot be reached, have its client look into its cache alone: it would ask
    again and again for a minute, even for what lies there."""
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whichever client of the hub's
        constants.HF_HUB_OFFLINE = True


def is_on_hub(backbone: str) -> bool:
    """Return whether timm's weights of a backbone can be had, from the hub or its cache."""
    import timm

    known = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        return False
    ask_hub_once()
    if not constants.HF_HUB_OFFLINE:
        return True
    names = ("model.safetensors", "pytorch_model.bin")
    cached = (huggingface_hub.try_to_load_from_cache(known.hf_hub_id, name) for name in names)
    return any(isinstance(path, str) for path in cached)


def hub_folder(name: str) -> Path:
    """Weights, config and card of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, in the hub's cache.

    Raises `UserError` for what is no such name, or cannot be had.
    """
    found = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:@(.+))?", name)
    if found is None:
        raise UserError(f"--checkpoint {name}: expected {HUB}OWNER/NAME, or that @REVISION")
    ask_hub_once()
    wanted = ["*.safetensors", "config.yaml", "README.md"]
    try:
        folder = huggingface_hub.snapshot_download(
            found[1], revision=found[2], allow_patterns=wanted
        )
    except Exception as error:  # whatever the network, the hub or its client raises
        problem = reason(error)
        if constants.HF_HUB_OFFLINE:
            problem = "the hub cannot be reached, and its cache has nothing of that name"
        raise UserError(
            f"--checkpoint {name}: cannot be had ({problem}); name a folder or file of yours"
        ) from None
    return Path(folder)
