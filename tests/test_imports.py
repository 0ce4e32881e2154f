"""The imports that must never be, and the map of the house (ARCHITECTURE.md)."""

import ast
import re

import pytest

from tests.conftest import REPOSITORY

FLOORS = {
    "util": [],
    "model": ["util"],
    "dataset": ["util"],
    "semi": ["model", "util"],
    "data_tools": ["dataset", "util"],
    "engine": ["dataset", "model", "semi", "util"],
}
"""Each package, and those that it may import."""
SCRIPTS = {path.stem for path in REPOSITORY.glob("*.py")}
METHODS = SCRIPTS - {"evaluate", "export", "predict"}
ABOVE = {*SCRIPTS, "tools", "benchmarks", "experiments", "faults", "prediction",
         "tests"}  # fmt: skip
"""What nothing below imports."""
FILES = sorted(
    path.relative_to(REPOSITORY)
    for folder in ("", *FLOORS, "tools", "benchmarks", "experiments", "faults", "prediction")
    for path in (REPOSITORY / folder).glob("**/*.py" if folder else "*.py")
)


def imported(path):
    """Dotted names that a file imports, each `from a import b` as both a and a.b; and stars."""
    names, stars = set(), False
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module)} | {f"{node.module}.{a.name}" for a in node.names}
            stars = stars or any(alias.name == "*" for alias in node.names)
    return names, stars


def forbidden(path):
    """Packages and scripts that a file must not import."""
    if path.stem in METHODS and len(path.parts) == 1:
        return {*ABOVE, "dataset", "data_tools"}
    if path.parts[0] in FLOORS:
        allowed = {path.parts[0], *FLOORS[path.parts[0]]}
        return (ABOVE | FLOORS.keys()) - allowed
    return {*SCRIPTS, "tests"}


def test_files_are_found():
    assert len(FILES) > 80 and {"corrmatch", "supervised", "evaluate"} <= SCRIPTS


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports(path):
    names, stars = imported(path)
    assert not stars, f"{path}: import *"
    crossing = {name for name in names if name.partition(".")[0] in forbidden(path)}
    assert not crossing, f"{path} must not import {crossing}"
    if path.parts[0] == "dataset":
        assert not {n for n in names if n.startswith(("torch.distributed", "util.dist"))}


def test_the_map_names_every_module():
    """Each stands in ARCHITECTURE.md, in the lines of its package, or its whole folder does."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text()
    drawing = text.split("```")[1]
    room, rooms = "", {}
    for line in drawing.splitlines():
        if found := re.match(r"(\w+)/ ", line):
            room = found[1]
        elif not line.startswith(" "):
            room = ""
        rooms[room] = rooms.get(room, "") + line + "\n"
    missing = []
    for path in FILES:
        lines = rooms.get(path.parts[0] if path.parts[1:] else "", "")
        named = path.name == "__init__.py" or re.search(rf"\b{path.name}\b", lines)
        if not named and "prepare" not in path.parts:  # a folder of one file per dataset
            missing.append(str(path))
    assert not missing, f"not in ARCHITECTURE.md's map: {missing}"
