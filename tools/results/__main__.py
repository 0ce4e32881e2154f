"""Compare runs: tables over seeds, curves, published scores.

Runs of the same method, network, dataset, partition, images and settings form one row. Remarks
below the table name runs that are unfinished, repeat another, or differ in commit or device.
"""

from pathlib import Path

from tools.results.runs import run_folders
from util.cli import exit_with_one_line, importing
from util.errors import print_error
from util.parser import Parser


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        run_folders(args.runs)  # reports a missing folder before pandas is imported
        with importing():
            from tools.results.tables import FORMATS, collect
        results = collect(args.runs, args.score, args.published)
        if args.plot:
            from tools.results.plots import write_figures

            write_figures(results.table, args.plot, results.score, args.at)
        print(FORMATS[args.format](results))
        if args.format == "csv":
            for remark in results.remarks:
                print_error(remark)


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.results runs/",
        "python -m tools.results 'runs/pascal/*/92' --published pascal/92 --plot figures/",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, folders "
        "that contain some, or patterns such as 'runs/pascal/*/92'")  # fmt: skip
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "latex", "json"),
        default="text",
        help="format of the table",
    )
    parser.add_argument(
        "--score", default="miou", help="miou, accuracy, dice, or the name of a class (its IoU)"
    )
    parser.add_argument(
        "--published",
        nargs="+",
        metavar="DATASET[/PARTITION]",
        help="show published scores beside the runs (default: none)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FOLDER",
        help="draw curves into FOLDER, as PNG and SVG (default: none)",
    )
    parser.add_argument(
        "--at", choices=("best", "last"), default="best", help="epoch of the label-efficiency curve"
    )
    return parser


if __name__ == "__main__":
    main()
