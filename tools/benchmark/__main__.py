"""Time steps, data, evaluation and start-up, or measure a GPU.

Settings are compared with plain ones in the same run. docs/performance.md shows results.
"""

import os

from tools.benchmark.options import TEXTS, add_options
from util.cli import exit_with_one_line, importing
from util.config.loading import load_config
from util.errors import UserError
from util.parser import Parser
from util.paths import nearest_hint


def main() -> None:
    parser = Parser(
        __doc__,
        "python -m tools.benchmark step settings --repeats 5",
        "python -m tools.benchmark gpu --out runs/gpu",
    )
    command = parser.subcommands("tools.benchmark", "BENCHMARK")
    for name, (text, *examples) in TEXTS.items():
        add_options(name, command(name, text, *examples))
    args = parser.parse_args()
    with exit_with_one_line():
        if args.benchmark != "gpu":
            load_config(args.config, args.set)
        images = getattr(args, "images", None)
        if images and not os.path.exists(images):  # also for impossible paths
            raise UserError(f"--images {images}: no such folder{nearest_hint(images)}")
        with importing():
            from tools.benchmark import data, evaluation, gpu, start, steps
        modules = {"step": steps, "data": data, "eval": evaluation, "start": start, "gpu": gpu}
        modules[args.benchmark].run(args)


if __name__ == "__main__":
    main()
