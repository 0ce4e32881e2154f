"""Faulty config files: changed trees, changed bytes, odd YAML syntax."""

from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.robustness.fuzzing.odd import (
    changed,
    changes,
    edits,
    one_of_many,
    places,
    rebuilt,
    texts,
    values,
)

VALUES = [
    "*nowhere", "&a [*a]", "&a {b: *a}", "[" * 3000, "{a: " * 3000, "- " * 3000, "[1", "}", "\t",
    "!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!!python/tuple [1]",
    "!!binary '*'", "!!int ''", "!!int x", "!!float ''", "!!float x", "!!bool x", "!!timestamp x",
    "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!str [1]", "!!map [1]", "!!seq {a: 1}",
    "!x 1", "2001-99-99", "2001-01-01", "9999-12-31T23:59:59-23:59", "1:99:99", "0x" + "f" * 5000,
    "9" * 5000, "1e999", "'\\0'", '"\\0"', '"\\ud800"', "<<", "{<<: 1}", "{<<: [1]}", "{[1]: 2}",
    "{{a: 1}: 2}", "{null: 1}", "{1: 2, true: 3}", "|\n  a\n  b", "1\n---\n2", "%YAML 9.9",
    "\ufeff", "{a: 1, a: 2}", "[[[]]]", "{a: {b: {c: {d: 1}}}}",
]  # fmt: skip


def keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys in a tree of dicts."""
    for key, value in tree.items():
        yield prefix + str(key)
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")


def dumped(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False).encode()


def scalars() -> st.SearchStrategy[str]:
    """Generate values to follow a colon or an equals sign."""
    return st.one_of(
        st.sampled_from(VALUES), texts, values.map(lambda v: yaml.safe_dump(v, width=10**9).strip())
    )


def lines(known: list[str]) -> st.SearchStrategy[bytes]:
    """Generate lines with odd values, some with anchors that explode when expanded."""
    names = st.one_of(st.sampled_from([key for key in known if "." not in key]), texts)
    laugh = st.sampled_from(["*a5", "*a29", "{data: *a29}", "{classes: *a29}", "[*a29, *a29]"])
    line = st.builds("{}: {}\n".format, names, st.one_of(scalars(), laugh))
    heads = ["", "base: toy.yaml\n", "LAUGHS\n", "LAUGHS\nbase: toy.yaml\n", "base: [1]\n"]
    head = st.sampled_from(heads)
    parts = st.tuples(head, st.lists(line, min_size=1, max_size=3))
    return parts.map(lambda p: (p[0] + "".join(p[1])).encode("utf-8", "surrogatepass"))


def configs(tree: Any) -> st.SearchStrategy[bytes]:
    text = dumped(tree)
    by_changes = changes(one_of_many(places(tree))).map(lambda by: dumped(rebuilt(tree, by)))
    encodings = st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "cp037"])
    return st.one_of(
        by_changes,
        by_changes,
        edits.map(lambda by: changed(text, by)),
        lines(list(keys(tree))),
        encodings.map(lambda encoding: text.decode().encode(encoding)),
        st.binary(max_size=100),
    )
