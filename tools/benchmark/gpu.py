"""Run the other benchmarks on a GPU, at the published settings for Pascal (evaluation: Cityscapes).

Each part runs in a process of its own. The next call measures the parts without a result: those
that failed or hung, and those whose file was removed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from tools.benchmark.options import PARTS
from util.errors import UserError, duration, print_error
from util.io import make_folder
from util.paths import REPOSITORY


def run(args: argparse.Namespace) -> None:
    """Measure the parts and print all results; end with exit code 1 if a part failed."""
    if not torch.cuda.is_available():
        raise UserError("gpu: found no GPU. Fix: use the other benchmarks, which also run on a CPU")
    make_folder(args.out)
    ok = True
    for name in PARTS:
        file = args.out / f"{name}.txt"
        if not file.exists():
            ok &= measure(name, file, args.seconds)
        if file.exists():
            print(f"== {name} ==", file.read_text(), sep="\n", flush=True)
    if not ok:
        sys.exit(1)


def measure(name: str, file: Path, seconds: float) -> bool:
    """Write the output of a benchmark to a file; where it fails, print the reason instead and
    return False."""
    partial = file.with_suffix(".partial")
    command = [sys.executable, "-m", "tools.benchmark", *PARTS[name]]
    try:
        with partial.open("w") as out:
            subprocess.run(command, cwd=REPOSITORY, stdout=out, timeout=seconds, check=True)
        partial.rename(file)
        return True
    except subprocess.TimeoutExpired:
        print_error(f"{name}: not done within {duration(seconds)}. Fix: raise --seconds")
    except subprocess.CalledProcessError as error:
        print_error(f"{name}: failed with exit code {error.returncode}")
    return False
