"""Commands answer --help and mistakes at once: before PyTorch and the like are imported."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import METHODS, REPOSITORY

HEAVY = ["torch", "torchvision", "timm", "matplotlib", "pandas"]
RUNNER = """
import contextlib, io, json, runpy, sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise AssertionError(f"imports {name}")

def run(command, arguments):
    sys.argv = [command, *arguments.split()]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            if command.endswith(".py"):
                runpy.run_path(command, run_name="__main__")
            else:
                runpy.run_module(command, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except AssertionError as error:
            code = str(error)
    return code, said.getvalue()

HEAVY = json.loads(sys.argv[1])
sys.meta_path.insert(0, Forbidden())
sys.path.insert(0, "")
cases = json.load(sys.stdin)
json.dump([run(*case) for case in cases], sys.stdout)
"""
"""Runs commands one after the other in a process in which the heavy packages do not exist."""
ON_SHAPES = "--config configs/shapes.yaml --save-path /no/run"
OF_NONE = "--checkpoint README.md --config configs/shapes.yaml"
"""A file that is no checkpoint, which is found out only by reading it."""
MISTAKES = {
    **{
        f"{name}.py": {
            f"{ON_SHAPES} --set epohs=2": "unknown key 'epohs'; did you mean 'epochs'?",
            "--config configs/shapse.yaml --save-path /no/run": "mean 'configs/shapes.yaml'",
            f"{ON_SHAPES} --set data.labeled=none.txt": "none.txt: no such list",
        }
        for name in METHODS
    },
    "evaluate.py": {
        "--checkpoint docs --config configs/shapes.yaml": "found neither best.pth",
        "--checkpoint no.pth": "--checkpoint no.pth: no such checkpoint or run",
        f"{OF_NONE} --set epohs=2": "did you mean 'epochs'",
    },
    "predict.py": {
        "--checkpoint READNE.md --images docs --save-path /no": "did you mean 'README.md'",
        f"{OF_NONE} --images docx --save-path /no": "--images docx: no such file",
        f"{OF_NONE} --images docs --save-path /no --set epohs=2": "did you mean 'epochs'",
    },
    "export.py": {
        "--checkpoint no.pth --format torchscript --out no.ts": "no such checkpoint",
        f"{OF_NONE} --set epohs=2 --format torchscript --out no.ts": "did you mean 'epochs'",
    },
    "tools.autolabel": {
        "--checkpoint no.pth --out /no": "no such checkpoint",
        f"{OF_NONE} --set epohs=2 --out /no": "did you mean 'epochs'",
        f"{OF_NONE} --images docx --out /no": "did you mean 'docs'",
    },
}
"""Command lines with a misspelt key or path, and what their errors say."""
CASES = [
    (command, line, expected)
    for command, mistakes in MISTAKES.items()
    for line, expected in {
        "--help": "usage: ",
        "--hepl": "unknown option --hepl; did you mean '--help'?",
        **mistakes,
    }.items()
]


@pytest.fixture(scope="module")
def answers():
    """Exit code and output of each case."""
    run = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(HEAVY)],
        input=json.dumps([case[:2] for case in CASES]),
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {case[:2]: answer for case, answer in zip(CASES, json.loads(run.stdout), strict=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case[:2])[:60])
def test_help_and_mistakes_need_no_heavy_import(case, answers):
    code, said = answers[case[:2]]
    assert code == (0 if case[1] == "--help" else 2), (code, said)
    assert case[2] in said
    assert code == 0 or said.count("\n") == 1


def test_misspelt_key_of_a_method(answers):
    """Answered without the method's class, which needs PyTorch."""
    command = [sys.executable, "corrmatch.py", *ON_SHAPES.split(), "--set", "method.regios=2"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 2 and "did you mean 'regions'?" in run.stderr


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.0])
def test_ctrl_c_during_imports(seconds, toy, tmp_path):
    command = [sys.executable, "supervised.py", *toy.argv(tmp_path / "run")]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=os.environ,
    )  # fmt: skip
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
