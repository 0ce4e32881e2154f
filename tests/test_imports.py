"""The imports that must never be (ARCHITECTURE.md)."""

import ast

import pytest
from conftest import REPOSITORY

SCRIPTS = {path.stem for path in REPOSITORY.glob("*.py")}
FILES = sorted(
    path.relative_to(REPOSITORY)
    for folder in ("", "model", "dataset", "dataset/prepare", "util", "tools", "benchmarks")
    for path in (REPOSITORY / folder).glob("*.py")
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


def within(name, package):
    return name == package or name.startswith(package + ".")


def forbidden(path):
    folder = path.parts[0] if len(path.parts) > 1 else ""
    rules = {
        "model": ["dataset", "util.training", "util.engine"],
        "dataset": ["model", "torch.distributed", "util.dist", "util.training", "util.engine"],
        "util": ["model", "dataset", "util.training", "util.engine"],
        "util/training.py": ["util.engine"],
        "util/engine.py": [],
    }
    return rules.get(path.as_posix(), rules.get(folder, []))


def test_files_are_found():
    assert len(FILES) > 25 and {"corrmatch", "supervised", "evaluate"} <= SCRIPTS


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports(path):
    names, stars = imported(path)
    assert not stars, f"{path}: import *"
    for package in forbidden(path):
        crossing = {name for name in names if within(name, package)}
        assert not crossing, f"{path} must not import {crossing}"
    assert not names & SCRIPTS, f"{path} imports a top-level script"
