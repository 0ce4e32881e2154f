"""Commands answer --help and mistakes before they import PyTorch and other large libraries."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import COMMANDS, TOOLS, parsers, refusal
from tests.conftest import METHODS, REPOSITORY
from tools import __main__ as list_commands
from util.cli import exit_with_one_line, run_script
from util.config.loading import load_config
from util.errors import UserError
from util.interrupt import EXIT_CODE
from util.optional import import_optional
from util.paths import find_path, nearest_hint

HEAVY = ["torch", "torchvision", "timm", "matplotlib", "pandas"]
RUNNER = """
import contextlib, io, json, runpy, sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise AssertionError(f"imports {name}")

def run(command, arguments):
    sys.argv = [command, *arguments.split()]
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            if command.endswith(".py"):
                runpy.run_path(command, run_name="__main__")
            else:
                runpy.run_module(command, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:
            code = repr(error)
    return code, output.getvalue()

HEAVY = json.loads(sys.argv[1])
sys.meta_path.insert(0, Forbidden())
sys.path.insert(0, "")
cases = json.load(sys.stdin)
json.dump([run(*case) for case in cases], sys.stdout)
"""
"""Program that runs commands in a process without the heavy packages."""
ON_SHAPES = "--config configs/shapes.yaml --save-path /no/run"
OF_NONE = "--checkpoint README.md --config configs/shapes.yaml"
"""Options with a file that turns out not to be a checkpoint only when it is read."""
MISTAKES = {
    **{
        f"{name}.py": {
            f"{ON_SHAPES} --set epohs=2": "unknown key 'epohs'; did you mean 'epochs'?",
            "--config configs/shapse.yaml --save-path /no/run": "mean 'configs/shapes.yaml'",
            f"{ON_SHAPES} --set data.labeled=none.txt": "none.txt: no such split file",
            f"{ON_SHAPES} --port 1": "unknown option --port; see python",
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
    "tools.active_learning": {
        "--pool no.txt": "no.txt: no such split file",
        "--pool no.txt --set epohs=2": "did you mean 'epochs'",
    },
    "tools.benchmark": {
        "step settings --set epohs=2": "did you mean 'epochs'",
        "data --config configs/pascl.yaml": "did you mean 'configs/pascal.yaml'",
        "step settings --methd unimatch": "did you mean '--method'",
    },
    "tools.check_data": {
        "--config configs/shapes.yaml --set epohs=2": "did you mean 'epochs'",
        "--config configs/shapes.yaml --set data.labeled=none.txt": "none.txt: no such split file",
    },
    "tools.cost": {
        "configs/shapes.yaml --set epohs=2": "did you mean 'epochs'",
        "configs/shaeps.yaml": "did you mean 'configs/shapes.yaml'",
        "configs/shapes.yaml --methods unimach": "did you mean 'unimatch'",
    },
    "tools.launch": {"unimach.py --config x": "did you mean 'unimatch.py'"},
    "tools.prepare": {
        "pascal --source /no": "no such folder",
        "init --images /no --masks /none --out /no.yaml": "no such folder",
    },
    "tools.publish": {"runz --out no --license mit": "no run"},
    "tools.quickstart": {"--set epohs=2": "did you mean 'epochs'"},
    "tools.report": {"runz": "no run"},
    "tools.results": {"doks": "did you mean 'docs'"},
    "tools.splits": {
        "fetch pascla/92": "pascla",
        "make --config configs/shapes.yml --labeled 1/8 --out /no": "'configs/shapes.yaml'",
    },
    "tools.sweep": {"configs/sweeps/shape.yaml": "did you mean 'configs/sweeps/shapes.yaml'"},
}
"""Command lines with a misspelt key or path, and parts of their errors."""
CASES = [
    (command, line, expected)
    for command in COMMANDS
    for line, expected in {
        "--help": "usage: ",
        "--hepl": "unknown option --hepl; did you mean '--help'?",
        **MISTAKES.get(command, {}),
    }.items()
]


def test_help_and_mistakes_need_no_heavy_import():
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(HEAVY)],
        input=json.dumps([case[:2] for case in CASES]),
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    wrong = []
    for case, (code, output) in zip(CASES, json.loads(done.stdout), strict=True):
        right = code == 0 if case[1] == "--help" else code == 2 and output.count("\n") == 1
        if not right or case[2] not in output:
            wrong.append((case, code, output))
    assert not wrong


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(0.3, "SIGINT"), (0.7, "SIGINT"), (None, "SIGINT"), (None, "SIGUSR1"), (None, "SIGTERM")],
)
def test_signals_during_imports(seconds, number, toy, tmp_path):
    """A batch system's signals end a training with the code of one that can be resumed."""
    command = [sys.executable, "supervised.py", *toy.argv(tmp_path / "run")]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # Background processes of a shell, which may run this test, ignore the signal.
        env=os.environ, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    if seconds is None:  # a log file gets the line, too
        assert process.stdout.readline() == "loading PyTorch ...\n"
    time.sleep(seconds or 0.5)
    process.send_signal(signal.Signals[number])
    _, output = process.communicate(timeout=60)
    # During its own start, Python is killed by the signal; a shell shows 130 for both.
    expected = (130, -signal.SIGINT) if number == "SIGINT" else (EXIT_CODE,)
    assert process.returncode in expected and "Traceback" not in output


def test_examples_of_help_are_valid():
    for names, parser in (found for command in COMMANDS for found in parsers(command)):
        assert parser.examples, parser.prog
        for example in parser.examples:
            program, *words = shlex.split(example)
            words = words[2:] if words[0] == "-m" else words[1:]
            assert program == "python" and words[: len(names)] == names
            assert not refusal(parser, words[len(names) :]), example


def test_the_list_of_commands(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tools"])
    list_commands.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [f"tools.{line.split()[0]}" for line in lines] == sorted(TOOLS)


def test_relative_paths_are_found_from_any_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert find_path(Path("configs/shapes.yaml")) == REPOSITORY / "configs/shapes.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/shapes.yaml").touch()
    assert find_path(Path("configs/shapes.yaml")) == Path("configs/shapes.yaml")
    with pytest.raises(SystemExit, match="2"):
        run_script("supervised.py", "--config", "configs/coco.yaml", "--save-path", "run")
    assert "data.labeled: not set" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("existing", "missing", "is_suggested"),
    [
        ("labeled.txt", "unlabeled.txt", False),
        ("valtest.txt", "test.txt", False),
        ("labeled.txt", "lbeled.txt", True),
        ("labeled.txt", "label.txt", True),
        ("shapes.yaml", "shape.yaml", True),
        ("unlabeled.txt", "unlabelled.txt", True),
    ],
)
def test_a_hint_names_a_typo_but_no_other_file(existing, missing, is_suggested, tmp_path):
    (tmp_path / existing).touch()
    hint = f"; did you mean '{tmp_path / existing}'?"
    assert nearest_hint(tmp_path / missing) == (hint if is_suggested else "")


def test_the_home_folder_in_configs(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(REPOSITORY / "configs/shapes.yaml", ["data.root=~/data"])
    assert config.data.root == tmp_path / "data"
    assert find_path(Path("~/weights.pth")) == tmp_path / "weights.pth"
    assert find_path(Path("~nobody at all/x")) == Path("~nobody at all/x")


def test_a_path_without_permission_is_named(capsys):
    with pytest.raises(SystemExit) as end, exit_with_one_line():
        raise PermissionError(errno.EACCES, "Permission denied", "runs/private/config.yaml")
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: runs/private/config.yaml: permission denied.")


def test_a_library_that_is_installed_but_broken(monkeypatch, tmp_path):
    (tmp_path / "broken_library.py").write_text("import not_there")
    monkeypatch.syspath_prepend(tmp_path)
    message = (
        r"^acdc: broken_library is installed but cannot be imported \(No module named 'not_there"
    )
    with pytest.raises(UserError, match=message):
        import_optional("broken_library", "acdc")


def test_a_command_whose_reader_ends_is_stopped_without_a_traceback():
    command = "from util.cli import exit_with_one_line\nwith exit_with_one_line():\n"
    command += "    for i in range(10**5):\n        print(i)\nprint('still running')"
    process = subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE
