"""Tests in processes forked from one that has imported torch, but none of the repository's own
modules: so that each imports these with a fault in one of them, and no file is ever changed."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest

from faults.plant import Fault

AT_WORK = ("__main__", "faults", "tools.faults")
FAILED = 70
"""The exit code of a child that could not do its work."""
HEAVY = ("torch._dynamo", "torch.utils.tensorboard", "timm", "torchvision", "hypothesis", "scipy")


def warm_up() -> None:
    """Import what every test would."""
    for name in HEAVY:
        import_module(name)


class Planted(SourceFileLoader):
    """Loads a module with a fault in it."""

    fault: Fault

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.fault.code, self.path, "exec", dont_inherit=True)


class Planting:
    """Finds the module of the fault's file, however it is named, and leaves all others alone."""

    def __init__(self, root: Path, fault: Fault):
        self.fault, self.origin = fault, str(root / fault.path)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin != self.origin:
            return None
        spec.loader = Planted(name, self.origin)
        spec.loader.fault = self.fault
        return spec


class Fork(NamedTuple):
    """A child process."""

    pid: int
    deadline: float

    def end(self) -> int | None:
        """Its exit code, negative if it was killed, as it is once its time is over; None while it
        runs."""
        if time.monotonic() > self.deadline:
            self.kill()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def kill(self) -> None:
        """With all processes that it began."""
        os.killpg(self.pid, signal.SIGKILL)


def fork(work: Callable[[], int], root: Path, output: Path, seconds: float) -> Fork:
    """Do `work` in a child process, in the repository; what it prints goes to a file."""
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid)
        return Fork(pid, time.monotonic() + seconds)
    code = FAILED
    try:
        os.setpgid(0, 0)
        os.chdir(root)
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        forget(root)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def forget(root: Path) -> None:
    """The repository's modules are imported anew, but those that are at work here."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(f"{root}/") and not name.startswith(AT_WORK):
            del sys.modules[name]


def run_tests(arguments: Sequence[str], plugin: object | None = None) -> int:
    """pytest's exit code, without plugins that happen to be installed."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    quiet = ["-q", "--no-header", "-p", "no:cacheprovider"]
    return int(pytest.main([*quiet, *arguments], plugins=[plugin] if plugin else []))


def run_planted(root: Path, fault: Fault, tests: Sequence[str]) -> int:
    """pytest's exit code with a fault: 0 where none of the tests finds it."""
    sys.meta_path.insert(0, Planting(root, fault))
    return run_tests(["-x", *tests])
