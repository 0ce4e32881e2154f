"""Check of a method's command line, before PyTorch is imported."""

import argparse
import ast
import os
import sys
from pathlib import Path
from typing import Any

from util.interrupt import leave_when_asked, quit_on_interrupt


def check_command(name: str, unlabeled: bool = True) -> None:
    """Answer `--help`, misspelt options and keys, and missing files of a method's command at once:
    importing PyTorch takes seconds.  `main` checks again, with everything that depends on the data.

    Ctrl-C and a batch system's signals end the following imports without a traceback.
    """
    quit_on_interrupt()
    leave_when_asked()
    from util.cli import arguments, exit_with_one_line
    from util.launched import launched_rank

    options = arguments(name, unlabeled)
    with exit_with_one_line():
        _check(options, name, unlabeled)
    if "torch" not in sys.modules and launched_rank() == 0:
        print("loading PyTorch ...", flush=True)  # in a log file, too


def _check(options: argparse.Namespace, name: str, unlabeled: bool) -> None:
    from dataset.folders import require_sources
    from dataset.validation import required_source
    from model.files import pretrained_file, require_pretrained, require_resumable
    from util.config.loading import load_config
    from util.launched import launched_rank

    config = load_config(options.config, options.set, options.overrides)
    _check_keys(config.method, Path(sys.argv[0]), name)
    for kind in ("labeled", "unlabeled", "val") if unlabeled else ("labeled", "val"):
        require_sources(required_source(getattr(config.data, kind), kind), config.data)
    if launched_rank() or os.path.exists(options.save_path / "latest.pth"):
        return  # rank 0 finds the checkpoint to resume from
    if options.resume not in ("auto", "never"):
        require_resumable(options.resume)
    elif file := pretrained_file(config.model):
        require_pretrained(file)


def _check_keys(options: dict[str, Any], script: Path, name: str) -> None:
    """Raise `UserError` for keys that a method's class `Options` lacks.

    Reads the class from the source: importing it would need PyTorch.
    """
    from pydantic import create_model

    from util.config.loading import parse
    from util.config.types import Section

    if not options or not script.is_file():  # or started by another program
        return
    files = [script.with_name("engine") / "method.py", *script.parent.glob("*.py"), script]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")).body for file in files}
    methods = {n.name: n for tree in trees.values() for n in tree if isinstance(n, ast.ClassDef)}
    waiting = [n for n in trees[script] if isinstance(n, ast.ClassDef)]
    known: dict[str, Any] = {}
    while waiting:
        method = waiting.pop()
        own = [n for n in method.body if isinstance(n, ast.ClassDef) and n.name == "Options"]
        bases = {ast.unparse(base).removesuffix(".Options") for one in own for base in one.bases}
        if bases - methods.keys() - {"Section"}:
            return  # keys of a class elsewhere: `main` checks them
        lines = [line for one in own for line in one.body if isinstance(line, ast.AnnAssign)]
        known |= {ast.unparse(line.target): (Any, None) for line in lines}
        waiting += [methods[base] for base in map(ast.unparse, method.bases) if base in methods]
    model: Any = create_model("Options", __base__=Section, **known)
    parse(model, options, f"config of {name}", "method.")
