"""Forbidden imports, and the map in ARCHITECTURE.md."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, SOURCES

FLOORS = {
    "util": set(),
    "metrics": {"util"},
    "model": {"util"},
    "dataset": {"util"},
    "inference": {"dataset", "metrics", "model", "util"},
    "semi": {"dataset", "metrics", "model", "util"},
    "engine": {"dataset", "inference", "metrics", "model", "semi", "util"},
}
"""Each package, and those that it may import beside itself."""
OF_A_METHOD = {"dataset", "engine", "model", "semi", "unimatch", "util"}
"""UniMatch is the base of methods that add to it."""
OF_A_COMMAND = {"dataset", "inference", "metrics", "model", "util"}
"""Of evaluate.py, export.py and predict.py."""
SCRIPTS = {path.stem for path in SOURCES if not path.parts[1:]}
METHODS = SCRIPTS - {"evaluate", "export", "predict"}
FILES = [path for path in SOURCES if path.parts[0] != "tests"]
BY_NAME = {"tools/methods.py"}
"""What imports modules whose names it is given, which this test cannot see."""
PRIVATE = {"engine/cost.py", "model/deploy.py", "util/distributed.py"}
"""Files that use names which torch keeps to itself; tools/launch/ inherits some of torchrun's."""


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


def allowed(path):
    """Packages that a file may import."""
    package = path.parts[0]
    if package == path.name:
        return OF_A_METHOD if path.stem in METHODS else OF_A_COMMAND
    return {*FLOORS, "tools"} if package == "tools" else {package, *FLOORS[package]}


def test_files_are_found():
    assert len(FILES) > 80 and {"corrmatch", "supervised", "evaluate"} <= SCRIPTS


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports(path):
    names, stars = imported(path)
    assert not stars, f"{path}: import *"
    forbidden = {*FLOORS, *SCRIPTS, "tools", "tests"} - allowed(path)
    crossing = {name for name in names if name.partition(".")[0] in forbidden}
    assert not crossing, f"{path} must not import {crossing}"
    by_name = names & {"importlib", "importlib.import_module", "runpy"}
    assert not by_name or path.as_posix() in BY_NAME
    if path.parts[0] == "dataset":
        assert not {n for n in names if n.startswith(("torch.distributed", "util.distributed"))}


def test_private_names_of_torch_are_used_in_few_places():
    found = {}
    for path in FILES:
        nodes = ast.walk(ast.parse((REPOSITORY / path).read_text()))
        attributes = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
        names = imported(path)[0].union(map(ast.unparse, attributes))
        private = r"(torch|nn|F)\.(\w+\.)*_(?!_)\w.*"
        if used := [name for name in names if re.fullmatch(private, name)]:
            found[path.as_posix()] = used
    assert found.keys() == PRIVATE, found


def test_what_every_start_imports_is_required():
    """Not only by another package, as long as that one wants it."""
    text = (REPOSITORY / "requirements.txt").read_text().lower().replace("-", "_")
    required = set(re.findall(r"^\w+(?=[>=<])", text, re.MULTILINE))
    called = {"PIL": "pillow", "yaml": "pyyaml"}
    own = {path.parts[0] for path in FILES} | SCRIPTS
    used = set()
    for path in (path for path in FILES if path.parts[0] != "tools"):
        for node in ast.parse((REPOSITORY / path).read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names} - own - sys.stdlib_module_names
            used |= {called.get(root, root) for root in roots}
    assert used <= required, f"not in requirements.txt: {used - required}"


def test_libraries_of_some_commands_are_imported_late():
    """Neither a training nor `--help` waits for them."""
    commands = "results", "sweep", "report", "check_data"
    modules = ["engine.command", "evaluate", *(f"tools.{name}.__main__" for name in commands)]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not {"pandas", "matplotlib", "jinja2"} & set(done.stdout.split())


def test_the_map_names_every_package():
    drawing = (REPOSITORY / "ARCHITECTURE.md").read_text().split("```")[1]
    packages = {path.parts[0] for path in FILES if path.parts[1:]}
    missing = [name for name in packages if f"\n{name}/ " not in drawing]
    assert not missing, f"not in ARCHITECTURE.md's map: {missing}"
    assert SCRIPTS == set(re.findall(r"(\w+)\.py", drawing.split("configs/")[0]))
