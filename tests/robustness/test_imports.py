"""Rules for imports, and the map in ARCHITECTURE.md."""

import ast
import re
import sys
from functools import cache

from tests.conftest import REPOSITORY, SOURCES, run_python

FLOORS = {
    "util": set(),
    "metrics": {"util"},
    "model": {"util"},
    "dataset": {"util"},
    "inference": {"dataset", "metrics", "model", "util"},
    "semi": {"dataset", "metrics", "model", "util"},
    "engine": {"dataset", "inference", "metrics", "model", "semi", "util"},
}
"""Packages, and the other packages that each may import."""
OF_A_METHOD = {"dataset", "engine", "model", "semi", "unimatch", "util"}
"""Packages that a method may import; UniMatch is the base of other methods."""
OF_A_COMMAND = {"dataset", "inference", "metrics", "model", "util"}
"""Packages that evaluate.py, export.py and predict.py may import."""
SCRIPTS = {path.stem for path in SOURCES if not path.parts[1:]}
METHODS = SCRIPTS - {"evaluate", "export", "predict"}
FILES = [path for path in SOURCES if path.parts[0] != "tests"]
BY_NAME = {"engine/__init__.py", "tools/methods.py", "util/optional.py"}
"""Files that may import modules by a computed name, which this test cannot see."""
PRIVATE = {"engine/cost.py", "model/acceleration.py", "model/deploy.py", "util/distributed.py"}
"""Files that use private names of torch."""


@cache
def parsed(path):
    return ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))


def imported(path):
    """Return the dotted names that a file imports; both a and a.b for `from a import b`."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {str(node.module)} | {f"{node.module}.{a.name}" for a in node.names}
    return names


def allowed(path):
    package = path.parts[0]
    if package == path.name:
        return OF_A_METHOD if path.stem in METHODS else OF_A_COMMAND
    return {*FLOORS, "tools"} if package == "tools" else {package, *FLOORS[package]}


def forbidden(path):
    names = imported(path)
    others = {*FLOORS, *SCRIPTS, "tools", "tests"} - allowed(path)
    found = {name for name in names if name.partition(".")[0] in others or name.endswith(".*")}
    if path.as_posix() not in BY_NAME:
        found |= names & {"importlib", "importlib.import_module", "runpy"}
    if path.parts[0] == "dataset":
        found |= {n for n in names if n.startswith(("torch.distributed", "util.distributed"))}
    return found


def test_imports():
    assert len(FILES) > 80 and {"corrmatch", "supervised", "evaluate"} <= SCRIPTS
    found = {str(path): names for path in FILES if (names := forbidden(path))}
    assert not found


def test_private_names_of_torch_are_used_in_few_places():
    found = {}
    for path in FILES:
        nodes = ast.walk(parsed(path))
        attributes = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
        names = imported(path).union(map(ast.unparse, attributes))
        private = r"(torch|nn|F)\.(\w+\.)*_(?!_)\w.*"
        if used := [name for name in names if re.fullmatch(private, name)]:
            found[path.as_posix()] = used
    assert found.keys() == PRIVATE, found


def test_direct_imports_are_required():
    """List every imported library in requirements.txt, also one that another library installs."""
    text = (REPOSITORY / "requirements.txt").read_text().lower().replace("-", "_")
    required = set(re.findall(r"^\w+(?=[>=<])", text, re.MULTILINE))
    called = {"PIL": "pillow", "yaml": "pyyaml"}
    own = {path.parts[0] for path in FILES} | SCRIPTS
    used = set()
    for path in (path for path in FILES if path.parts[0] != "tools"):
        for node in parsed(path).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            roots = {name.partition(".")[0] for name in names} - own - sys.stdlib_module_names
            used |= {called.get(root, root) for root in roots}
    assert used <= required, f"not in requirements.txt: {used - required}"


def test_imports_in_a_new_process():
    """Check in a new process: commands load some libraries late, settings of other libraries stay,
    and no module of `engine` hides the function `main`."""
    program = """
import sys, warnings, torch
from PIL import Image
def settings():
    backends = torch.backends
    filters = [f for f in warnings.filters if 'PIL' in str(f)]
    return (Image.MAX_IMAGE_PIXELS, filters, torch.get_num_threads(),
            backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark)
before = settings()
import engine.command, evaluate, tools.results.__main__, tools.sweep.__main__
import tools.report.__main__, tools.check_data.__main__
early = {'pandas', 'matplotlib', 'jinja2'} & set(sys.modules)
assert not early, early
import inference, export, predict, unimatch, tools.prepare.own.init, dataset.image_files
assert settings() == before, (before, settings())
from engine import Batch, main
assert callable(main)
"""
    run_python("-c", program).output()


def test_the_map_names_every_package():
    drawing = (REPOSITORY / "ARCHITECTURE.md").read_text().split("```")[1]
    packages = {path.parts[0] for path in FILES if path.parts[1:]}
    missing = [name for name in packages if f"\n{name}/ " not in drawing]
    assert not missing, f"not in ARCHITECTURE.md's map: {missing}"
    assert SCRIPTS == set(re.findall(r"(\w+)\.py", drawing.split("configs/")[0]))
