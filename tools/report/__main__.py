"""Show a run as one self-contained HTML page.

The page contains curves, class scores, confusion matrix, best and worst images, and the config.
The best checkpoint predicts the validation images again; the page says where the checkpoint or the
data are missing.
"""

from pathlib import Path

from tools.results.runs import Run
from util.cli import add_device, exit_with_one_line, importing
from util.io import check_target, write_text
from util.optional import require_optional
from util.parser import Parser, at_least


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        out = args.out or args.run / "report.html"
        run = Run(args.run)
        check_target(out, "tools.report")
        if args.embedding:
            require_optional("--embedding", "sklearn")
        with importing():
            from tools.report.page import page
            from util import distributed
        device = distributed.choose_device(args.device)
        write_text(out, page(run, device, args.limit, args.embedding))
        print(f"written  {out}")


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.report runs/mine/unimatch",
        "python -m tools.report runs/mine/unimatch --out report.html --limit 100",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", type=Path, help="file to write (default: RUN/report.html)")
    parser.add_argument(
        "--limit",
        type=at_least(1),
        metavar="N",
        help="predict only the first N validation images (default: all)",
    )
    parser.add_argument(
        "--embedding",
        action="store_true",
        help="add a t-SNE of decoder features: a point for each class of each validation image",
    )
    add_device(parser)
    return parser


if __name__ == "__main__":
    main()
