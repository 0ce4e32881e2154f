"""Odd values, and random changes of trees and files."""

import copy
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st

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


def one_of_many(items: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Sample an item; `sampled_from` would put all items into its description."""
    return st.integers(0, len(items) - 1).map(lambda index: items[index])


Place = tuple[Any, ...]
"""Path in a tree of dicts and lists: keys and indices from the root."""


def places(tree: Any, depth: int = 99) -> list[Place]:
    """Return the paths of all nodes of a tree down to a depth."""
    keys = range(len(tree)) if isinstance(tree, list) else list(tree)
    inside = [key for key in keys if depth > 1 and isinstance(tree[key], dict | list)]
    deeper = [(key, *place) for key in inside for place in places(tree[key], depth - 1)]
    return [(key,) for key in keys] + deeper


class Change(NamedTuple):
    """Change at one place of a tree; `name` is the new key, if one is needed."""

    action: str
    place: Place
    name: str
    value: Any

    def make(self, tree: Any) -> None:
        *way, key = self.place
        for step in way:
            tree = tree[step]
        if self.action in ("add", "rename"):
            value = self.value if self.action == "add" else tree[key]
            tree.insert(key, value) if isinstance(tree, list) else tree.update({self.name: value})
        if self.action in ("drop", "rename"):
            del tree[key]
        elif self.action == "replace":
            tree[key] = self.value


def changes(
    where: st.SearchStrategy[Place], new: st.SearchStrategy[Any] = values
) -> st.SearchStrategy[list[Change]]:
    actions = st.sampled_from(("replace", "drop", "rename", "add"))
    return st.lists(st.builds(Change, actions, where, texts, new), min_size=1, max_size=3)


def rebuilt(tree: Any, by: list[Change]) -> Any:
    """Return a tree after changes; skip changes at places that earlier changes removed."""
    tree = copy.deepcopy(tree)
    for change in by:
        with suppress(LookupError, TypeError, AttributeError):
            change.make(tree)
    return tree


class Edit(NamedTuple):
    """Change of bytes; `at` counts modulo the length."""

    kind: str
    at: int
    value: bytes = b""

    def of(self, data: bytes) -> bytes:
        at = self.at % len(data) if data else 0
        before, after = data[:at], data[at:]
        match self.kind:
            case "flip":
                return before + bytes(byte ^ 1 << self.at % 8 for byte in after[:1]) + after[1:]
            case "overwrite":
                return before + self.value + after[len(self.value) :]
            case "insert":
                return before + self.value + after
            case "remove":
                return before + after[len(self.value) :]
            case "truncate":
                return before
            case "behead":
                return after
            case _:  # append
                return data + before


positions = st.one_of(st.integers(0, 200), st.integers(-300, -1), st.integers(0, 2**24))
pieces = st.one_of(
    st.sampled_from([b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\n", b"\r"]),
    st.binary(min_size=1, max_size=8),
)
edits = st.lists(
    st.one_of(
        st.builds(Edit, st.sampled_from(("flip", "truncate", "behead", "append")), positions),
        st.builds(Edit, st.sampled_from(("overwrite", "insert", "remove")), positions, pieces),
    ),
    min_size=1,
    max_size=3,
)


def changed(data: bytes, by: list[Edit]) -> bytes:
    for edit in by:
        data = edit.of(data)
    return data


INSTEAD = ("nothing", "a folder", "a loop", "a dangling link", "an empty file")
Damage = list[Edit] | str
"""Damage to a file: edits, or a replacement, one of `INSTEAD` or another file by its name."""


def damages(*others: str) -> st.SearchStrategy[Damage]:
    """Generate edits, twice as often as replacements; `others`: names of other files."""
    return st.one_of(edits, edits, st.sampled_from([*INSTEAD, *others]))


def damage(path: Path, data: bytes, by: Damage, others: Mapping[str, bytes]) -> None:
    """Write the damaged form of a file with `data` to `path`."""
    remove(path)
    if isinstance(by, list):
        path.write_bytes(changed(data, by))
    elif by == "a folder":
        path.mkdir()
    elif by in ("a loop", "a dangling link"):
        path.symlink_to(path if by == "a loop" else path.with_name("gone"))
    elif by != "nothing":
        path.write_bytes(others.get(by, b""))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
