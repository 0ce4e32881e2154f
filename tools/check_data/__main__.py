"""Check all data of a config: images, masks, classes, splits.

Exit code 0: no problems, or warnings alone; 1: something would break or spoil training; 2: the
config or a split file cannot be read.
"""

import json
import sys
from pathlib import Path

from dataset.folders import require_sources
from dataset.validation import required_source
from util.cli import add_settings, add_split_options, exit_with_one_line, importing, split_overrides
from util.config.loading import load_config
from util.io import check_target, write_text
from util.parser import Parser, at_least


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        config = load_config(args.config, args.set, split_overrides(args))
        for path in filter(None, (args.json, args.html)):
            check_target(path, "check_data")
        require_sources(required_source(config.data.labeled, "labeled"), config.data)
        require_sources(config.data.val, config.data)
        with importing():
            from tools.check_data.inspect import inspect
            from tools.check_data.problems import problems
            from tools.check_data.report import numbers, text
        splits = inspect(config)
        found = problems(splits, config)
        report = numbers(splits, found, config)
        print(text(report, found, args.show))
        if args.json:
            write(args.json, json.dumps(report, indent=1) + "\n")
        if args.html:
            from tools.check_data.html_report import page  # imports jinja2 and matplotlib

            write(args.html, page(report, splits, found, config, args.show))
        sys.exit(0 if report["ok"] else 1)


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.check_data --config configs/mine.yaml",
        "python -m tools.check_data --config configs/mine.yaml --html report.html --show 30",
    )
    add = parser.add_argument
    add("--config", required=True, help="YAML file, see configs/")
    add_split_options(parser)
    add_settings(parser)
    add("--json", type=Path, metavar="OUT", help="write all numbers to OUT (default: none)")
    add(
        "--html", type=Path, metavar="OUT", help="write a page with pictures to OUT (default: none)"
    )
    add("--show", type=at_least(0), default=10, help="number of problems to show of each kind")
    return parser


def write(path: Path, content: str) -> None:
    write_text(path, content)
    print(f"written  {path}")


if __name__ == "__main__":
    main()
