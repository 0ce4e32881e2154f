"""No call in the sources that runs code it is given: eval, a shell, pickle, YAML's full
loader, any of Pillow's formats."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, SOURCES

NEVER = {
    "eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.load", "marshal.loads", "shelve.open", "yaml.unsafe_load", "yaml.full_load",
    "yaml.unsafe_load_all", "yaml.full_load_all", "yaml.load_all", "torch.hub.load",
    "torch.jit.load", "torch.package.PackageImporter", "joblib.load",
}  # fmt: skip
OWN = {
    "model/deploy.py": {"torch.jit.load"},
    "tests/inference/test_export.py": {"torch.jit.load"},
    "tests/robustness/test_security.py": {"yaml.unsafe_load"},
}
"""Files that load what they have made a moment before."""
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}


def dangers(source):
    """Lines of a source that call something of the kind, with what they call."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    names = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } | {
        alias.asname: alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname
    }

    def dotted(node):
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    safe = SAFE_LOADERS | {
        node.name
        for node in nodes
        if isinstance(node, ast.ClassDef) and SAFE_LOADERS & {dotted(base) for base in node.bases}
    }

    def is_danger(call):
        name, given = dotted(call.func), {k.arg: k.value for k in call.keywords}
        loader = given.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        if name == "pickle.loads" and dotted(getattr(call.args[0], "func", call)) == "pickle.dumps":
            return False  # a copy of one's own
        return (
            name in NEVER
            or (name == "yaml.load" and dotted(loader) not in safe)
            or (name == "torch.load" and not is_constant(given.get("weights_only"), True))
            or not is_constant(given.get("shell", ast.Constant(False)), False)
            or not is_constant(given.get("allow_pickle", ast.Constant(False)), False)
            or (name == "PIL.Image.open" and "formats" not in given)
        )

    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [(call.lineno, dotted(call.func)) for call in calls if is_danger(call)]


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def test_files_are_found():
    folders = {str(path.parent) for path in SOURCES}
    assert len(SOURCES) > 250 and {"util", "tests", "tools/prepare/own", "."} <= folders


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_sources(path):
    found = {name for _, name in dangers((REPOSITORY / path).read_text(encoding="utf-8"))}
    if path.parts[0] == "tests":  # which open what they have made
        found -= {"PIL.Image.open"}
    assert found == OWN.get(path.as_posix(), set())


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import os\nos.system(x)",
        "from os import system as run\nrun(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "import subprocess\nsubprocess.run(x, shell=y)",
        "import torch\ntorch.load(x)",
        "import torch as t\nt.load(x, weights_only=False)",
        "import torch\ntorch.load(x, weights_only=y)",
        "from pickle import loads\nloads(x)",
        "import yaml\nyaml.load(x, yaml.Loader)",
        "import yaml\nclass L(yaml.FullLoader): pass\nyaml.load(x, Loader=L)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "from PIL import Image\nImage.open(x)",
    ],
)
def test_dangers_are_seen(source):
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import pickle\npickle.loads(pickle.dumps(x))",
        "import subprocess\nsubprocess.run(['x'], shell=False)",
        "import torch\ntorch.load(x, weights_only=True)",
        "import yaml\nclass L(yaml.SafeLoader): pass\nyaml.load(x, L)\nyaml.safe_load(x)",
    ],
)
def test_what_is_safe_passes(source):
    assert not dangers(source)


def test_importing_changes_no_setting_of_other_libraries():
    """A Python program that imports the project keeps Pillow's limit, its warnings and TF32."""
    program = """
import warnings, torch
from PIL import Image
def settings():
    backends = torch.backends
    filters = [f for f in warnings.filters if 'PIL' in str(f)]
    return (Image.MAX_IMAGE_PIXELS, filters, torch.get_num_threads(),
            backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark)
before = settings()
import inference, evaluate, export, predict, unimatch, tools.prepare.own.init, dataset.image_files
assert settings() == before, (before, settings())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
