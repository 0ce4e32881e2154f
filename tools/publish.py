"""Prepare a run for upload: weights, config, log, model card.

The folder holds the weights as safetensors, config.yaml, metrics.jsonl (scores and losses of each
epoch), curves.png, and a model card with scores by class, hashes of the split files, command and
versions. Absolute paths are shortened to their last part.
"""

import os
import re
import shlex
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from inference.cli import predict_command
from model.files import PUBLISHED_WEIGHTS, find_checkpoint
from tools.results.records import Validation
from tools.results.runs import Run
from util.cli import exit_with_one_line, importing
from util.colours import palette
from util.config.loading import dump_config, portable
from util.errors import UserError, counted, shell_quoted
from util.io import make_folder, require_new, write_atomically, write_text
from util.parser import Parser
from util.tables import markdown_table

ABSOLUTE = re.compile(r"""(?:^|(?<=[=\[{,:"'\s]))/(?=[\w.])(?:[^,\]}"']*/)?(?=[^,\]}"'/])""")
"""The folders of an absolute path, at the start of an argument or of a YAML value in it."""


def main() -> None:
    args = command_line().parse_args()
    with exit_with_one_line():
        run = Run(args.run)
        require_new(args.out)
        if not args.license.strip():
            raise UserError("--license: found nothing, expected a name such as mit or cc-by-4.0")
        checkpoint = published_checkpoint(run, args.which)
        with importing():
            import torch

            from inference.overlay import save_picture
            from model.checkpoint import load
            from model.deploy import Deployed, metadata, to_safetensors
            from model.lora import merge_adapters
            from model.trained import load_trained
            from tools.report.charts import curves
        epoch, scores = published_scores(run, args.which, checkpoint, load(checkpoint))
        network = load_trained(run.config, checkpoint, args.which, torch.device("cpu"))
        config = merge_adapters(network, run.config)
        deployed = Deployed(network, config, ())
        weights = to_safetensors(deployed, metadata(config, deployed))
        digests = [sha256(weights).hexdigest(), sha256(to_safetensors(deployed, {})).hexdigest()]
        card = model_card(
            run,
            scores,
            license=args.license,
            network=args.which,
            epoch=epoch,
            weights=PUBLISHED_WEIGHTS,
            digests=digests,
        )
        make_folder(args.out)
        write_text(args.out / "README.md", card)
        write_text(args.out / "config.yaml", dump_config(portable(config)))
        write_text(args.out / "metrics.jsonl", (run.path / "metrics.jsonl").read_text("utf-8"))
        save_picture(curves(run), args.out / "curves.png")
        write_atomically(args.out / PUBLISHED_WEIGHTS, lambda file: file.write(weights))
        names = ", ".join(sorted(path.name for path in args.out.iterdir()))
        print(f"written  {args.out}: {names}; weights from {checkpoint}")
        print(f"upload   hf upload OWNER/NAME {shell_quoted(args.out)}")
        command = predict_command("--checkpoint hf:OWNER/NAME", config.data.dates)
        print(f"next     {command}")


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        "python -m tools.publish runs/mine/unimatch --out published/ --license mit",
        "python -m tools.publish runs/mine/fixmatch --which model_ema --out published/ "
        "--license cc-by-4.0",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the files")
    parser.add_argument(
        "--license",
        required=True,
        help="licence of the weights, as the hub names it, such as mit or cc-by-4.0",
    )
    parser.add_argument("--which", default="model", help="network of the run, such as model_ema")
    return parser


def published_checkpoint(run: Run, network: str) -> Path:
    """Return the network's best checkpoint; raises `UserError` where none was validated."""
    if network not in run.networks:
        names = ", ".join(run.networks) or "none"
        raise UserError(
            f"{run.path}: found no validation of '{network}'; expected --which from: {names}"
        )
    return find_checkpoint(run.path, network, "RUN")


def published_scores(
    run: Run, network: str, checkpoint: Path, state: Any
) -> tuple[int, Validation]:
    """Return the epoch of a best checkpoint with content `state`, and its scores; raises
    `UserError` where the log has no comparable scores of it.

    The best epoch of the log may be another one: it also holds the epochs before a resume from
    another folder or with other settings.
    """
    epoch = state.get("epoch") if isinstance(state, dict) else None
    if epoch is None or epoch not in (validations := run.validations(network)):
        raise UserError(
            f"{checkpoint}: metrics.jsonl has no comparable scores of '{network}' for its epoch "
            f"{epoch}"
        )
    return epoch, validations[epoch]


def shortened(argument: str) -> str:
    """Return an argument of a command with the absolute paths in it shortened to their names."""
    key, equals, value = argument.rpartition("=")
    if os.path.isabs(value) and not set(value) & set("[{"):  # nothing but a path
        return f"{key}{equals}{Path(value).name}"
    return ABSOLUTE.sub("", argument)


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return an interval in percent as text; runs of older versions record none."""
    return "{:.1f} to {:.1f}".format(*interval) if interval else "not recorded"


def model_card(run: Run, scores: Validation, **facts: Any) -> str:
    """Return the text of README.md with the hub's YAML header; `facts`: further variables of its
    template."""
    from inference.evaluation import describe_prediction  # these import PyTorch
    from inference.scores import score_title
    from tools.html import render  # imports jinja2

    config, data = run.config, run.config.data
    means = {
        "mIoU": f"{scores.miou:.2f}",
        "95 % interval": interval_text(scores.miou_interval),
        "pixel accuracy": f"{scores.accuracy:.2f}",
    }
    intervals: Sequence[Any] = scores.iou_intervals or [None] * config.num_classes
    by_class: dict[str, Sequence[object]] = {
        "class": range(config.num_classes),
        "name": data.classes,
        "colour": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(data)],
        "IoU": [f"{iou:.2f}" for iou in scores.iou],
        "95 % interval": [*map(interval_text, intervals)],
    }
    if scores.absent:
        means["mIoU of the classes present"] = f"{scores.miou_present:.2f}"
    if scores.dice is not None:  # volumes only
        means["mean Dice without class 0"] = f"{scores.score('dice', data.classes):.2f}"
        by_class["volume Dice"] = [f"{dice:.2f}" for dice in scores.dice]
    splits = [
        [name, identity.images, f"`{identity.sha256}`"] for name, identity in run.identities.items()
    ]
    splits = splits or [["not recorded", "", ""]]
    return render(
        "model_card.md.j2",
        run=run,
        data=data,
        images=counted(data.dates, "image"),
        bands=counted(data.num_bands, "band"),
        score=score_title(config),
        prediction=describe_prediction(config.evaluation),
        units="images" if config.evaluation.volume_pattern is None else "volumes",
        means=markdown_table([[*means], [*means.values()]], ">"),
        by_class=markdown_table([[*by_class], *zip(*by_class.values(), strict=True)], "><<>"),
        start=run.starts[-1],
        command=shlex.join(map(shortened, run.starts[-1].command)),
        splits=markdown_table([["split", "images", "SHA-256"], *splits], "<><"),
        **facts,
    )


if __name__ == "__main__":
    main()
