"""No source calls functions that may run code from a file: eval, a shell, pickle, YAML's full
loader, all of Pillow's formats."""

import ast

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
"""Files that load only what they have just written."""
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}


def dangers(source):
    """Return the names of the dangerous functions that a source calls."""
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
            return False  # a copy
        return (
            name in NEVER
            or (name == "yaml.load" and dotted(loader) not in safe)
            or (name == "torch.load" and not is_constant(given.get("weights_only"), True))
            or not is_constant(given.get("shell", ast.Constant(False)), False)
            or not is_constant(given.get("allow_pickle", ast.Constant(False)), False)
            or (name == "PIL.Image.open" and "formats" not in given)
        )

    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [dotted(call.func) for call in calls if is_danger(call)]


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def test_sources():
    folders = {str(path.parent) for path in SOURCES}
    assert len(SOURCES) > 250 and {"util", "tests", "tools/prepare/own", "."} <= folders
    found = {}
    for path in SOURCES:
        names = set(dangers((REPOSITORY / path).read_text(encoding="utf-8")))
        if path.parts[0] == "tests":  # tests open images that they have written
            names -= {"PIL.Image.open"}
        if names:
            found[path.as_posix()] = names
    assert found == OWN


DANGEROUS = [
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
]
SAFE = [
    "model.eval()",
    "import pickle\npickle.loads(pickle.dumps(x))",
    "import subprocess\nsubprocess.run(['x'], shell=False)",
    "import torch\ntorch.load(x, weights_only=True)",
    "import yaml\nclass L(yaml.SafeLoader): pass\nyaml.load(x, L)\nyaml.safe_load(x)",
]


def test_dangerous_calls_are_found():
    assert [source for source in DANGEROUS + SAFE if dangers(source)] == DANGEROUS
