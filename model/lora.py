"""LoRA (Hu et al., ICLR 2022) on the attention of a ViT, through peft."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from model.dpt import DPT
from model.network import Network
from util.config.schema import Config
from util.errors import UserError

ATTENTION = r".*attn\.(qkv|q_proj|k_proj|v_proj|proj)"
"""Linear layers with adapters, by their names in timm."""
BASE_HASH = "base_hash"


class AdaptedDPT(DPT):
    """DPT whose backbone is trained through low-rank adapters only.

    Its state holds adapters, decoder and a hash of the pretrained weights, which do not change.
    Loading it needs the pretrained weights in place; raises `UserError` for others.
    """

    def __init__(self, backbone: Any, num_classes: int, layers: Sequence[int], rank: int):
        super().__init__(backbone, num_classes, layers)
        add_adapters(backbone, rank)
        backbone.register_buffer(BASE_HASH, torch.zeros((), dtype=torch.int64))

    def store_base_hash(self) -> None:
        """Store the hash of the current backbone weights, on which the adapters are trained."""
        digest, state = hashlib.sha256(), self.backbone.state_dict()
        for name in sorted(base_names(self.backbone).values()):
            digest.update(state[name].cpu().contiguous().numpy().tobytes())
        self.backbone.base_hash.fill_(int.from_bytes(digest.digest()[:7], "big"))

    def state_dict(self, *arguments: Any, **more: Any) -> Any:
        state = super().state_dict(*arguments, **more)
        for name in base_names(self.backbone).values():
            del state[f"{more.get('prefix', '')}backbone.{name}"]
        return state

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        saved = state.get(f"{prefix}backbone.{BASE_HASH}")
        if saved is not None and int(saved) != int(self.backbone.base_hash):
            raise UserError(
                "model.pretrained: found other weights than those that the adapters were trained "
                "on. Fix: set it to the file of that training"
            )
        own = self.backbone.state_dict()
        for name in base_names(self.backbone).values():
            state[f"{prefix}backbone.{name}"] = own[name]
        super()._load_from_state_dict(state, prefix, *more)


def base_names(backbone: nn.Module) -> dict[str, str]:
    """Return the names of a backbone's entries with adapters, by their names without."""
    names = [k for k in backbone.state_dict() if ".lora_" not in k and k != BASE_HASH]
    return {name.replace(".base_layer.", "."): name for name in names}


def add_adapters(backbone: nn.Module, rank: int) -> None:
    """Add adapters of this rank to the attention, in place, and freeze all other weights.

    The update of a layer is `B A x`, without a scale; B starts at 0. Raises `UserError` without
    peft, and for a ViT whose attention does not call its layers.
    """
    if any(name.endswith("attn.q_bias") for name, _ in backbone.named_parameters()):
        raise UserError(
            "model.lora: the attention of this backbone reads its weights directly, so adapters "
            "would have no effect. Fix: set model.lora to 0, or choose a ViT without q_bias"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("model.lora: needs peft. Fix: pip install peft, or set it to 0") from None
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION)
    try:
        inject_adapter_in_model(config, backbone)
    except ValueError:  # no layer has such a name
        raise UserError(
            "model.lora: found no attention layers in this backbone. Fix: set it to 0"
        ) from None


def merge_adapters(network: Network, config: Config) -> Config:
    """Merge the adapters of a network into its weights, in place; return the config of the network
    without adapters. Networks without adapters and their configs stay unchanged."""
    if not isinstance(network, AdaptedDPT):
        return config
    vit = network.backbone
    for name, layer in list(vit.named_modules()):
        if hasattr(layer, "base_layer"):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(vit.get_submodule(parent), child, layer.base_layer)
    delattr(vit, BASE_HASH)
    network.__class__ = DPT  # type: ignore[assignment]
    return config.model_copy(update={"model": config.model.model_copy(update={"lora": 0})})
