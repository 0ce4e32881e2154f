"""Train SupOnly and FixMatch on simple shapes; compare them.

The same network, labelled images and number of optimizer steps; running it again continues or
shows what is there.
"""

import json
from pathlib import Path

from dataset.folders import read_samples
from tools.compare import draw
from tools.make_shapes.files import generate
from util.cli import add_settings, exit_with_one_line, importing, run
from util.config.loading import load_config
from util.config.schema import Config
from util.parser import Parser
from util.tables import text_table

CONFIG = "configs/quickstart.yaml"
METHODS = {"SupOnly": "supervised", "FixMatch": "fixmatch"}


def main() -> None:
    parser = Parser(
        __doc__,
        (
            "python -m tools.quickstart",
            "python -m tools.quickstart --save-path runs/try --seed 1 --set epochs=2",
        ),
    )
    parser.add_argument(
        "--save-path", type=Path, default=Path("runs/quickstart"), help="folder of both runs"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of both runs")
    add_settings(parser)
    options = parser.parse_args()
    with exit_with_one_line():
        config = load_config(CONFIG, options.set)
        print(f"Simple shapes, 16 labelled and 400 unlabelled images, in {config.data.root}")
        generate(config.data.root, labeled=16, unlabeled=400, val=60, size=48, simple=True)
        missing = [s for s in METHODS.values() if not (options.save_path / s / "best.pth").exists()]
        if missing:
            print(
                f"Training takes about {minutes(config, missing)} min on this machine", flush=True
            )
        overrides = ["--set", *options.set] if options.set else []
        for script in METHODS.values():
            folder = options.save_path / script
            common = ["--config", CONFIG, *overrides]
            run(f"{script}.py", *common, "--save-path", folder, "--seed", options.seed)
            run("evaluate.py", *common, "--checkpoint", folder / "best.pth",
                "--json", folder / "scores.json")  # fmt: skip
        pictures = options.save_path / "pictures.png"
        checkpoints = {n: options.save_path / s / "best.pth" for n, s in METHODS.items()}
        samples = read_samples(config.data.val, config.data, masks=True).samples[:8]
        draw(checkpoints, samples, options.set, pictures)
        print(summary(options.save_path, pictures))


def minutes(config: Config, scripts: list[str]) -> int:
    """Measure steps of each method; return the minutes that training and validation take."""
    with importing():
        from engine.dry_run import measure_method
        from tools.methods import method_of
    hours = 0.0
    for script in scripts:
        found, steps, images = measure_method(method_of(script), config)
        hours += found.hours(config.epochs, steps, images, config.evaluation.every)
    return max(1, round(60 * hours + 0.3 * len(scripts)))  # and the start of each


def summary(folder: Path, pictures: Path) -> str:
    """Return the closing table, from what the runs wrote."""
    rows = [["", "mIoU (best)", "last epoch", "steps", "minutes"]]
    for name, script in METHODS.items():
        best = json.loads((folder / script / "scores.json").read_text())["miou"]
        text = (folder / script / "metrics.jsonl").read_text()
        epochs = [json.loads(line) for line in text.splitlines()]
        last = epochs[-1]["scores"]["model"]["miou"]
        seconds = sum(e["seconds"] + e.get("validation_seconds", 0) for e in epochs)
        steps = epochs[-1]["steps"]
        rows.append([name, f"{best:.2f}", f"{last:.2f}", str(steps), f"{seconds / 60:.1f}"])
    checkpoints = " and ".join(str(folder / script / "best.pth") for script in METHODS.values())
    lines = [
        "",
        text_table(rows, "<>"),
        "",
        f"pictures      {pictures}  (rows: image, ground truth, {', '.join(METHODS)})",
        f"checkpoints   {checkpoints}",
        f"TensorBoard   tensorboard --logdir {folder}",
        "next          train on your own images: see 'Your own data' in README.md",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
