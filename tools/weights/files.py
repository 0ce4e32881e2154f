"""Subcommands of `python -m tools.weights`."""

import argparse
import os
import shutil
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

from model.build import check_name, is_backbone
from model.checkpoint import load, save_atomically
from model.pretrained import hub_weights
from tools.weights.convert import EXPECTED, Converted, StateDict, convert, expected_backbone, unwrap
from tools.weights.published import Source, known_backbones, source_by_hash, sources_of
from util.errors import UserError, join_first, reason
from util.io import file_sha256, make_folder

DOWNLOAD_TIMEOUT = 30.0
"""Seconds to wait for an answer of a server."""


def list_weights(args: argparse.Namespace) -> None:
    """List the published files of the backbones that the configs use."""
    for name in known_backbones():
        is_here = "in" if _path(args, name).exists() else "not in"
        print(f"{name}: {_megabytes(name)} MB in float32, {is_here} {args.folder}")
        for source in sources_of(name):
            print(f"  {source.file}, {source.hash}\n    {source.where}")
            if source.note:
                print(f"    {source.note}")
    print("Other backbones of timm: python -m tools.weights fetch NAME, from timm's hub")


def fetch_weights(args: argparse.Namespace) -> None:
    """Download the weights of a backbone, or read them from a file, and write them with the names
    that training expects."""
    name, path = args.backbone, _path(args, args.backbone)
    check_name(name)
    if os.path.lexists(path):
        raise UserError(
            f"{path}: exists already; python -m tools.weights check {name} identifies it. Fix: "
            "move it away to fetch another file"
        )
    source = next((s for s in sources_of(name) if s.direct), None)
    if args.file:
        converted = convert(unwrap(load(args.file), args.file)[0], name, args.file)
        origin = str(args.file)
    elif source:
        converted = download(source, args.folder)
        origin = source.where
    else:
        origin = f"timm's hub, {name}"
        converted = convert(hub_weights(name), name, origin)
    make_folder(args.folder)
    save_atomically({key: value.clone() for key, value in converted.state.items()}, path)
    print(f"written  {path}, from {origin}")
    print(_summary(converted))


def download(source: Source, folder: Path) -> Converted:
    """Download a published file and convert it.

    Raises `UserError` without network, and for a file with an unexpected hash.
    """
    make_folder(folder)
    print(f"downloading {source.where} ({_megabytes(source.backbone)} MB or more)", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / source.file
        try:
            with (
                urllib.request.urlopen(source.where, timeout=DOWNLOAD_TIMEOUT) as answer,
                path.open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
        except (OSError, HTTPException) as error:
            raise UserError(
                f"{source.where}: cannot be downloaded ({reason(error)}). Fix: download it "
                f"elsewhere, then python -m tools.weights fetch {source.backbone} --from FILE"
            ) from None
        if not (found := file_sha256(path)).startswith(source.sha256):
            raise UserError(
                f"{source.where}: expected {source.hash}, found {found}; nothing is written. Fix: "
                "try again, or name another file with --from"
            )
        return convert(unwrap(load(path), path)[0], source.backbone, source.where)


def identify_files(args: argparse.Namespace) -> int:
    """Identify files of weights, and name missing entries; return exit code 1 unless training can
    read each file unchanged."""
    targets = args.target or [str(path) for path in sorted(args.folder.glob("*.pth"))]
    if not targets:
        raise UserError(
            f"{args.folder}: holds no .pth file. Fix: fetch one; python -m tools.weights list "
            "names them"
        )
    return int(not all([_check(target, args) for target in targets]))


def _check(target: str, args: argparse.Namespace) -> bool:
    """Identify a file; return True if training can read it."""
    is_name = is_backbone(target)
    path = _path(args, target) if is_name and not os.path.exists(target) else Path(target)
    if is_name and not path.exists():
        print(f"{path}: missing. Fix: python -m tools.weights fetch {target}")
        return False
    state, is_plain = unwrap(load(path), path)
    digest = file_sha256(path)
    source = source_by_hash(digest)
    identity = source.file if source else "not a published file with a known hash"
    print(f"{path}: {len(state)} entries, sha256 {digest}, {identity}")
    wanted = args.backbone or (target if is_name and path != Path(target) else None)
    fits, problems = _fitting(state, path, wanted)
    for name, found in fits.items():
        print(f"  model.backbone={name}: {_summary(found)}")
        if found.scheme != EXPECTED or not is_plain:
            print(f"    convert it: python -m tools.weights fetch {name} --from {path}")
    if not fits:
        print(f"  {problems[0]}")
        if not wanted:
            print("  Fix: name the backbone for which it is meant with --backbone")
    return is_plain and any(found.scheme == EXPECTED for found in fits.values())


def _fitting(
    state: StateDict, path: Path, backbone: str | None
) -> tuple[dict[str, Converted], list[str]]:
    """Return the backbones that weights fit, and the problems with the others.

    Tries `backbone` if given, else the one in the file's name and all with published files.
    """
    names = [backbone] if backbone else [path.stem, *known_backbones()]
    fits, problems = {}, []
    for name in dict.fromkeys(name for name in names if backbone or is_backbone(name)):
        try:
            fits[name] = convert(state, name, path)
        except UserError as error:
            problems.append(str(error))
    return fits, problems


def _summary(converted: Converted) -> str:
    state, scheme, unused = converted
    text = f"{len(state)} entries, {scheme}"
    if unused:
        text += f", {len(unused)} unused: {join_first(unused, 3)}"
    if "order" in scheme:
        text += "; the order may mislead: check the score of a training"
    return text


def _path(args: argparse.Namespace, name: str) -> Path:
    return args.folder / f"{name}.pth"


def _megabytes(name: str) -> int:
    return round(sum(v.numel() for v in expected_backbone(name).state_dict().values()) * 4e-6)
