"""Show tables and curves of any number of runs: mean and standard deviation over seeds.

Runs of the same method, network, dataset, partition and settings are one row.  Runs that are
unfinished, repeat another run, or differ in commit or device are named below the table.
"""

import argparse
from pathlib import Path

from util.cli import exit_with_one_line
from util.errors import print_error


def main() -> None:
    options = arguments()
    # Here, so that --help does not wait for pandas.
    from tools.results.collect import collect
    from tools.results.tables import FORMATS

    with exit_with_one_line():
        results = collect(options.runs, options.score, options.published)
        if options.plot:
            from tools.results.plots import draw

            draw(results.table, options.plot, results.score, options.at)
        print(FORMATS[options.format](results))
        if options.format == "csv":
            for remark in results.remarks:
                print_error(remark)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, folders that "
        "hold some, or patterns such as 'runs/pascal/*/92'")  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "markdown", "csv", "latex", "json"), default="text"
    )
    parser.add_argument(
        "--score", default="miou", help="miou, accuracy, dice, or the name of a class (its IoU)"
    )
    parser.add_argument(
        "--published",
        nargs="+",
        metavar="DATASET[/PARTITION]",
        help="show published scores beside the runs",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="draw curves into FOLDER, as PNG and SVG"
    )
    parser.add_argument(
        "--at", choices=("best", "last"), default="best", help="epoch of the label-efficiency curve"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
