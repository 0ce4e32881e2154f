"""All of them, with the same config."""

import argparse

from benchmarks import data, evaluation, methods, propagation, step
from benchmarks.measure import report

MODULES = (
    step,
    methods,
    evaluation,
    propagation,
    data,
)  # the last one leaves torch a single thread


def add_arguments(parser: argparse.ArgumentParser) -> None:
    step.add_arguments(parser)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))


def run(options: argparse.Namespace) -> None:
    report([table for module in MODULES for table in module.measure(options)], options)
