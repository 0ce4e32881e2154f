"""Check of a method's command line, before PyTorch is imported."""

import argparse
import os
import sys

from util.interrupt import exit_on_ctrl_c, exit_on_sigterm


def check_command(name: str, unlabeled: bool = True) -> None:
    """Answer `--help` of a method's command, and report misspelt options, misspelt keys and missing
    files, before PyTorch is imported, which takes seconds. `main` checks again, also the method's
    own keys and everything that depends on the data.

    Ctrl-C and a batch system's signals end the following imports without a traceback.
    """
    exit_on_ctrl_c()
    exit_on_sigterm()
    from util.cli import arguments, exit_with_one_line
    from util.launcher import launched_rank

    args = arguments(name, unlabeled)
    with exit_with_one_line():
        _check(args, unlabeled)
    if "torch" not in sys.modules and launched_rank() == 0:
        print("loading PyTorch ...", flush=True)  # in a log file, too


def _check(args: argparse.Namespace, unlabeled: bool) -> None:
    from dataset.folders import require_sources
    from dataset.validation import required_source
    from model.files import pretrained_file, require_pretrained, require_resumable
    from util.config.loading import load_config
    from util.launcher import launched_rank

    config = load_config(args.config, args.set, args.overrides)
    for split in ("labeled", "unlabeled", "val") if unlabeled else ("labeled", "val"):
        require_sources(required_source(getattr(config.data, split), split), config.data)
    if launched_rank() or os.path.exists(args.save_path / "latest.pth"):
        return  # rank 0 finds the checkpoint to resume from
    if args.resume not in ("auto", "never"):
        require_resumable(args.resume)
    elif file := pretrained_file(config.model):
        require_pretrained(file)
