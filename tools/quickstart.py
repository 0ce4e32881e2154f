"""Train SupOnly and FixMatch on simple shapes; compare them.

Both use the same network, labelled images and number of optimizer steps. The same command resumes
an interrupted training and shows the results of a finished one.
"""

from pathlib import Path

from dataset.folders import read_samples
from tools.compare import write_comparison
from tools.make_shapes.files import generate
from tools.results.runs import Run
from util.cli import add_settings, exit_with_one_line, run_script
from util.config.loading import load_config
from util.parser import Parser
from util.tables import text_table

CONFIG = "configs/quickstart.yaml"
METHODS = {"SupOnly": "supervised", "FixMatch": "fixmatch"}


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        config = load_config(CONFIG, args.set)
        print(f"Simple shapes, 16 labelled and 400 unlabelled images, in {config.data.root}")
        generate(config.data.root, labeled=16, unlabeled=400, val=60, size=48, simple=True)
        folders = {name: args.save_path / script for name, script in METHODS.items()}
        checkpoints = {name: folder / "best.pth" for name, folder in folders.items()}
        common = ["--config", CONFIG, *(["--set", *args.set] if args.set else [])]
        for name, folder in folders.items():
            run_script(f"{METHODS[name]}.py", *common, "--save-path", folder, "--seed", args.seed)
        pictures = args.save_path / "pictures.png"
        samples = read_samples(config.data.val, config.data, masks=True).samples[:8]
        write_comparison(checkpoints, samples, args.set, config.data, pictures)
        print("", text_table(score_rows(folders), "<>"), "", sep="\n")
        print(f"pictures      {pictures}  (rows: image, ground truth, {', '.join(METHODS)})")
        print(f"checkpoints   {' and '.join(map(str, checkpoints.values()))}")
        print(f"TensorBoard   tensorboard --logdir {args.save_path}")
        print("next          train on your own images: see 'Your own data' in README.md")


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.quickstart",
        "python -m tools.quickstart --save-path runs/try --seed 1 --set epochs=2",
    )
    parser.add_argument(
        "--save-path", type=Path, default=Path("runs/quickstart"), help="folder of both runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of both runs")
    add_settings(parser)
    return parser


def score_rows(folders: dict[str, Path]) -> list[list[str]]:
    """Return the rows of the closing table, read from the runs' files."""
    rows = [["", "mIoU (best)", "last epoch", "steps", "minutes"]]
    for name, folder in folders.items():
        run = Run(folder)
        *_, last = scores = [*run.curve("model", "miou").values()]
        numbers = f"{max(scores):.2f}", f"{last:.2f}", str(run.steps_done)
        rows.append([name, *numbers, f"{run.seconds / 60:.1f}"])
    return rows


if __name__ == "__main__":
    main()
