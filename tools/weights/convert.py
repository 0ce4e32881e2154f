"""Rename published weights to the names that training expects in pretrained/."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from model.build import CNNS_NOT_IN_TIMM, build_vit, check_name
from model.checkpoint import network_state, shape_of
from model.files import network_in
from model.pretrained import pair_names
from util.errors import UserError, join_first

StateDict = Mapping[str, Tensor]
WRAPPERS = ("state_dict", "model", "teacher", "net")
"""Keys of the weights in published files."""
STATISTICS = "num_batches_tracked"
EXPECTED = "names as expected (of timm, torchvision or official DINOv2)"
KINDS = {"weight", "bias", "running_mean", "running_var"}

# OpenMMLab's name -> timm's. ResNetV1c's stem; mmpretrain's and mmsegmentation's ViT.
_OPENMMLAB = [
    (r"^stem\.7\.", "bn1."),
    (r"^stem\.", "conv1."),
    (r"^ln1\.", "norm."),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.(\d+)\.", r"blocks.\1."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    (r"\.ffn\.w(12|3)\.", r".mlp.w\1."),
]


class Converted(NamedTuple):
    """Weights by the backbone's names, the naming scheme of the file, and its unused entries."""

    state: dict[str, Tensor]
    scheme: str
    unused: list[str]


def expected_backbone(name: str) -> nn.Module:
    """Build a backbone on the meta device; a CNN includes its classifier.

    Raises `UserError` for a name that timm lacks.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        if name in CNNS_NOT_IN_TIMM:
            return CNNS_NOT_IN_TIMM[name](16, 3)
        check_name(name)
        try:
            return build_vit(name, None, 3)
        except UserError:
            return timm.create_model(name)


def unwrap(whole: Any, path: Path) -> tuple[StateDict, bool]:
    """Return the weights of a backbone from the content of a file, without wrappers and prefixes of
    larger networks; and whether training, too, finds them in that file.

    Raises `UserError` for a file that holds no weights.
    """
    outer = whole if isinstance(whole, Mapping) else {}
    inner = next((outer[k] for k in WRAPPERS if isinstance(outer.get(k), Mapping)), whole)
    state = network_state(inner, path, network_in(path))
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    return inside or state, not inside and (inner is whole or inner is outer.get("model"))


def convert(state: StateDict, name: str, source: object) -> Converted:
    """Rename weights of torchvision, timm, OpenMMLab, DINOv2 or DINOv3 for `model.backbone: name`.

    Entries of the same shapes in the same order are renamed one to one where no naming scheme fits.
    Raises `UserError` that names the missing entries otherwise.
    """
    backbone = expected_backbone(name)
    own = _without_classifier(backbone)
    lacking: list[list[str]] = []
    for scheme, rename in SCHEMES.items():
        given = rename(state, name, backbone)
        names, missing = pair_names(own, given)
        if not missing:
            used = {k: given[v] for k, v in names.items()}
            return Converted(used, scheme, [k for k in given if k not in names.values()])
        lacking.append(missing)
    ordered = _by_order(state, own)
    if isinstance(ordered, Converted):
        return ordered
    fewest = min(lacking, key=len)
    raise UserError(
        f"{source}: not the weights of {name}: {len(fewest)} of {len(own)} entries missing or of "
        f"another shape ({join_first(fewest, 3)}); and not the same shapes in the same order: "
        f"{ordered}"
    )


def _without_classifier(backbone: Any) -> dict[str, Tensor]:
    heads = getattr(backbone, "default_cfg", {}).get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    return {k: v for k, v in backbone.state_dict().items() if not k.startswith(prefixes)}


def _openmmlab(state: StateDict, name: str, backbone: nn.Module) -> StateDict:
    renamed = {}
    for key, value in state.items():
        for pattern, timms in _OPENMMLAB:
            key = re.sub(pattern, timms, key)
        renamed[key] = value
    return renamed


def _timm_dinov2(state: StateDict, name: str, backbone: nn.Module) -> StateDict:
    """Rename timm's DINOv2, which lacks the mask token of the pre-training and names the giant's
    gated MLP otherwise."""
    names = backbone.state_dict()
    renamed = dict(state)
    if "blocks.0.mlp.w12.weight" in names:
        gates = ((".mlp.fc1.", ".mlp.w12."), (".mlp.fc2.", ".mlp.w3."))
        for timms, published in gates:
            renamed = {k.replace(timms, published): v for k, v in renamed.items()}
    if "mask_token" in names and "pos_embed" in renamed:
        renamed.setdefault("mask_token", torch.zeros(names["mask_token"].shape))
    return renamed


def _by_timm(state: StateDict, name: str, backbone: nn.Module) -> StateDict:
    """Convert a model's official file as timm does: DINOv3, DINOv2 with registers, BEiT, ..."""
    if not timm.is_model(name):
        return {}
    module = sys.modules[timm.models.model_entrypoint(name).__module__]
    rename = getattr(module, "checkpoint_filter_fn", None)
    if rename is None:
        return {}
    if "storage_tokens" in state and "blocks.0.attn.q_bias" not in backbone.state_dict():
        _refuse_biases(state, name)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints its attempts
            return rename(dict(state), backbone)
    except Exception:  # timm raises anything for a file of another model
        return {}


def _refuse_biases(state: StateDict, name: str) -> None:
    """Raise `UserError` where timm would drop nonzero biases of queries or values."""
    for key, value in state.items():
        if key.endswith("qkv.bias"):
            queries, _, values = value.chunk(3)
            if queries.any() or values.any():
                raise UserError(
                    f"{key}: has biases, but {name} has none. Fix: set model.backbone to "
                    f"{name}_qkvb"
                )


SCHEMES: dict[str, Callable[[StateDict, str, nn.Module], StateDict]] = {
    EXPECTED: lambda state, name, backbone: state,
    "names of timm's DINOv2": _timm_dinov2,
    "names of OpenMMLab": _openmmlab,
    "official names, converted by timm": _by_timm,
}


def _by_order(state: StateDict, own: StateDict) -> Converted | str:
    """Rename entries one to one in their order; return the first difference where that fails.

    Where both names end in a kind (weight, bias, running mean or variance), the kinds must agree.
    Only a classifier may follow.
    """
    given = [key for key in state if not key.endswith(STATISTICS)]
    wanted = [key for key in own if not key.endswith(STATISTICS)]
    for key, other in zip(wanted, given, strict=False):
        kinds = {key.rpartition(".")[2], other.rpartition(".")[2]}
        if shape_of(own[key]) != shape_of(state[other]) or (len(kinds) == 2 and kinds <= KINDS):
            return f"found {other} {shape_of(state[other])}, expected {key} {shape_of(own[key])}"
    rest = given[len(wanted) :]
    is_classifier = [state[key].ndim for key in rest] in ([], [2], [2, 1])
    if len(given) < len(wanted) or not is_classifier:
        return f"found {len(given)} entries, expected {len(wanted)}"
    renamed = {key: state[other] for key, other in zip(wanted, given, strict=False)}
    return Converted(renamed, "other names, renamed by order", rest)
