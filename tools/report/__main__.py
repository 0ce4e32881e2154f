"""Show a run as one self-contained HTML page: curves, classes, confusion, best and worst images,
config.

The best checkpoint predicts the validation images again; where the checkpoint or the data are
missing, the page says so.
"""

import argparse
from pathlib import Path

from tools.results.runs import Run
from util import distributed
from util.cli import add_device, exit_with_one_line
from util.io import check_target, write_text


def main() -> None:
    options = arguments()
    with exit_with_one_line():
        out = options.out or options.run / "report.html"
        run = Run(options.run)
        check_target(out, "tools.report")
        device = distributed.choose_device(options.device)
        from tools.report.page import page  # imports jinja2

        write_text(out, page(run, device, options.limit))
        print(f"written: {out}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", type=Path, help="file to write (default: RUN/report.html)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="predict only the first N validation images"
    )
    add_device(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
