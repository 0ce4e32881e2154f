"""Odd values, and random damage to trees and files."""

import copy
import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

NUMBERS = [
    -1, 0, 1, 2, 3, 254, 256, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30, 0.5, 1.5, 5e-324, 1e308,
    -1e308, math.nan, math.inf, -math.inf,
]  # fmt: skip
TEXTS = [
    "", " ", ".", "..", "/", "~", "none", "null", "-1", "%s", "{}", "=", "a\0b", "a\nb", "\x1b[31m",
    "\u2028", "\ud800", "ä漢🙂", "x" * 300, "x" * 10_000, "../x", "/dev/null", "$(touch x)",
]  # fmt: skip

# Other numbers up to NUMBERS are plausible sizes, with which a command takes long.
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(-300, 300), st.floats())
texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=20))
plain = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(texts, numbers), inner, max_size=4)
    ),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, tree: Any) -> Any:
    """Generate a tree of dicts and lists with one to three changes."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        if not tree:
            break
        node, key = place(draw, tree)
        action = draw(st.sampled_from(("replace", "drop", "rename", "add")))
        value = node[key] if action == "rename" else draw(values)
        if action in ("drop", "rename"):
            del node[key]
        if action == "replace":
            node[key] = value
        elif isinstance(node, list) and action != "drop":
            node.insert(key, value)
        elif action != "drop":
            node[draw(texts)] = value
    return tree


def place(draw: st.DrawFn, node: Any) -> tuple[Any, Any]:
    """Draw a node below the root of a tree; return its parent and its key there."""
    keys = [*range(len(node))] if isinstance(node, list) else [*node]
    key = keys[draw(st.integers(0, len(keys) - 1))]
    inside = isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3))
    return place(draw, node[key]) if inside else (node, key)


PIECES = [b"", b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\n", b"\r"]
positions = st.one_of(st.integers(0, 200), st.integers(-300, -1), st.integers(0, 2**24))


@st.composite
def edited(draw: st.DrawFn, data: bytes) -> bytes:
    """Generate a file with one to three parts replaced, inserted or removed, or bits flipped."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(positions) % max(1, len(data))
        flipped = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at : at + 1])
        piece = draw(st.one_of(st.sampled_from([*PIECES, flipped]), st.binary(max_size=8)))
        length = draw(st.sampled_from([0, len(piece), len(piece), 8, len(data)]))
        data = data[:at] + piece + data[at + length :]
    return data


INSTEAD = ("nothing", "a folder", "a loop", "a dangling link")
Damage = bytes | str
"""The content of a damaged file, or what is in its place: one of `INSTEAD`."""


def damage(path: Path, by: Damage) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(by, bytes):
        path.write_bytes(by)
    elif by == "a folder":
        path.mkdir()
    elif by != "nothing":
        path.symlink_to(path if by == "a loop" else path.with_name("gone"))


# YAML

YAML = [
    "*nowhere", "&a [*a]", "&a {b: *a}", "[" * 3000, "{a: " * 3000, "- " * 3000, "[1", "}", "\t",
    "!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!!python/tuple [1]",
    "!!binary '*'", "!!int ''", "!!int x", "!!float ''", "!!float x", "!!bool x", "!!timestamp x",
    "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str [1]", "!!map [1]", "!!seq {a: 1}",
    "!x 1", "2001-99-99", "2001-01-01", "9999-12-31T23:59:59-23:59", "1:99:99", "0x" + "f" * 5000,
    "9" * 5000, "1e999", "'\\0'", '"\\0"', '"\\ud800"', "<<", "{<<: 1}", "{<<: [1]}", "{[1]: 2}",
    "{{a: 1}: 2}", "{null: 1}", "{1: 2, true: 3}", "|\n  a\n  b", "1\n---\n2", "%YAML 9.9",
    "\ufeff", "{a: 1, a: 2}", "[[[]]]", "{a: {b: {c: {d: 1}}}}",
]  # fmt: skip
yaml_scalars = st.one_of(
    st.sampled_from(YAML), texts, values.map(lambda v: yaml.safe_dump(v, width=10**9).strip())
)
"""Values to follow a colon or an equals sign."""


def keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys in a tree of dicts."""
    for key, value in tree.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


def yaml_lines(known: list[str]) -> st.SearchStrategy[bytes]:
    """Generate lines with odd values, some with anchors that explode when expanded."""
    name = st.one_of(st.sampled_from(known), texts)
    laugh = st.sampled_from(["*a5", "*a29", "{data: *a29}", "{classes: *a29}", "[*a29, *a29]"])
    line = st.builds("{}: {}\n".format, name, st.one_of(yaml_scalars, laugh))
    heads = ["", "base: toy.yaml\n", "LAUGHS\n", "LAUGHS\nbase: toy.yaml\n", "base: [1]\n"]
    parts = st.tuples(st.sampled_from(heads), st.lists(line, min_size=1, max_size=3))
    return parts.map(lambda p: (p[0] + "".join(p[1])).encode("utf-8", "surrogatepass"))


def yaml_files(tree: Any) -> st.SearchStrategy[bytes]:
    """Generate config files; LAUGHS stands for text that is too long for a message."""

    def dumped(tree: Any) -> bytes:
        return yaml.safe_dump(tree, sort_keys=False).encode()

    encodings = st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "cp037"])
    return st.one_of(
        changed(tree).map(dumped),
        changed(tree).map(dumped),
        edited(dumped(tree)),
        yaml_lines([*tree]),
        encodings.map(lambda encoding: dumped(tree).decode().encode(encoding)),
        st.binary(max_size=100),
    )


# Images and checkpoints


def picture(kind: tuple[str, str], size: tuple[int, int]) -> bytes:
    """Return an encoded image of a format and mode; as a mask it has classes 0, 1 and 2."""
    with io.BytesIO() as file:
        image = Image.linear_gradient("L").resize(size).point(lambda value: value // 86)
        if kind[1] == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        image.convert(kind[1]).save(file, kind[0])
        return file.getvalue()


def saved(state: Any, zipped: bool) -> bytes:
    with io.BytesIO() as file:
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()
