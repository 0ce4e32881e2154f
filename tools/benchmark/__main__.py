"""Measure what the settings bring, against plain ones in the same run; or all about a GPU.

Run from the repository root; docs/performance.md has the commands and their results.
"""

import argparse

from tools.benchmark import data, evaluation, gpu, start, steps
from util.cli import exit_with_one_line

BENCHMARKS = {"step": steps, "data": data, "eval": evaluation, "start": start, "gpu": gpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in BENCHMARKS.items():
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.add_arguments(command)
    options = parser.parse_args()
    with exit_with_one_line():
        BENCHMARKS[options.benchmark].run(options)


if __name__ == "__main__":
    main()
