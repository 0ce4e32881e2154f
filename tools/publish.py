"""Prepare a run for upload: weights, config and model card.

The weights are safetensors. The card has the classes with their scores, method, command and
versions. Absolute paths, which are of this machine alone, are shortened to their names in all of
it.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from model.files import PUBLISHED, find_checkpoint
from tools.results.runs import Epoch, Run, best_epoch
from util.cli import exit_with_one_line, importing
from util.colours import palette
from util.config.loading import dump_config, portable
from util.errors import UserError
from util.io import write_atomically, write_text
from util.parser import Parser
from util.tables import markdown_table


def main() -> None:
    options = command_line().parse_args()
    with exit_with_one_line():
        run = Run(options.run)
        if os.path.lexists(options.out):
            raise UserError(f"--out {options.out}: exists already; choose another folder")
        if not options.license.strip():
            raise UserError("--license: found nothing, expected a name such as mit or cc-by-4.0")
        epoch = published_epoch(run, options.which)
        checkpoint = find_checkpoint(options.run, options.which)
        with importing():
            import torch

            from model.deploy import Deployed, describe, to_safetensors
            from model.lora import merge_adapters
            from model.trained import load_trained
        network = load_trained(run.config, checkpoint, options.which, torch.device("cpu"))
        config = merge_adapters(network, run.config)
        deployed = Deployed(network, config, ())
        weights = to_safetensors(deployed, describe(config, deployed))
        card = model_card(run, options.which, epoch, options.license)
        write_folder(options.out, weights, dump_config(portable(config)), card)
        print(f"written: {options.out}, from {checkpoint}")
        print(f"upload:  hf upload OWNER/NAME {shlex.quote(str(options.out))}")
        print("use:     python predict.py --checkpoint hf:OWNER/NAME --images ... --save-path ...")


def command_line() -> Parser:
    parser = Parser(
        __doc__,
        (
            "python -m tools.publish runs/mine/unimatch --out published/ --license mit",
            "python -m tools.publish runs/mine/fixmatch --which model_ema --out published/ "
            "--license cc-by-4.0",
        ),
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the files")
    parser.add_argument(
        "--license",
        required=True,
        help="yours to choose: the weights' licence as the hub names it, such as mit, cc-by-4.0",
    )
    parser.add_argument("--which", default="model", help="network of the run, such as model_ema")
    return parser


def published_epoch(run: Run, network: str) -> Epoch:
    """The one whose network the run kept as its best; raises `UserError` where there is none."""
    curve = run.selected(network) if network in run.networks else {}
    if not curve:
        names = ", ".join(run.networks) or "none"
        raise UserError(f"{run.path}: no validation of '{network}' in it; validated: {names}")
    best = best_epoch(curve)
    return next(epoch for epoch in run.epochs if epoch.epoch == best)


def write_folder(folder: Path, weights: bytes, config: str, card: str) -> None:
    """Write the folder; raises `UserError` where it cannot be."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error})") from None
    write_text(folder / "README.md", card)
    write_text(folder / "config.yaml", config)
    write_atomically(folder / PUBLISHED, lambda file: file.write(weights))


def shortened(argument: str) -> str:
    """An argument, or the value in one of the form KEY=VALUE, without the folders of an absolute
    path."""
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if os.path.isabs(value) else argument


def interval_text(interval: tuple[float, float] | None) -> str:
    """Return an interval in percent as text; runs of older versions record none."""
    return "{:.1f} to {:.1f}".format(*interval) if interval else "not recorded"


def model_card(run: Run, network: str, epoch: Epoch, license: str) -> str:
    """The text of README.md, with the hub's YAML header."""
    from inference.evaluation import score_title  # which needs PyTorch

    config, start, scores = run.config, run.starts[-1], epoch.scores[network]
    data = config.data
    command = [shortened(part) for part in start.command]
    intervals: Sequence[tuple[float, float] | None] = scores.iou_intervals or [None] * len(
        data.classes
    )
    rows = [
        [index, name, "#{:02x}{:02x}{:02x}".format(*colour), f"{iou:.2f}", interval_text(interval)]
        for index, (name, colour, iou, interval) in enumerate(
            zip(data.classes, palette(data), scores.iou, intervals, strict=True)
        )
    ]
    images = ", ".join(f"{name} {found.images}" for name, found in run.images.items())
    unfinished = "" if run.is_finished else f"The training was not finished: {run.progress}.\n"
    return f"""---
license: {license}
pipeline_tag: image-segmentation
tags:
- semantic-segmentation
- semi-supervised-learning
metrics:
- mean_iou
---

# {run.method} on {data.name}, {run.network}

Semantic segmentation, trained with {run.method}; {data.dates} image(s) of {data.num_bands} band(s)
({data.bands}) give {len(data.classes)} classes. `config.yaml` has all settings, `{PUBLISHED}` the
weights of `{network}` after epoch {epoch.epoch} of {config.epochs}.
{unfinished}
## Use

```sh
python predict.py --checkpoint FOLDER --images photos/ --save-path out/
python evaluate.py --checkpoint FOLDER --set data.root=... data.val=...
```

FOLDER is this folder, or `hf:OWNER/NAME`. Paths in `config.yaml` are of the training machine.

## Scores

Of the validation images, which also chose the epoch (by {score_title(config)}); prediction mode
`{scores.mode}`, in percent. The 95 % intervals are bootstrap intervals over these images: they say
how far a score may be off for images of the same kind, not for other training runs.

| mIoU | 95 % interval | pixel accuracy |
|--:|--:|--:|
| {scores.miou:.2f} | {interval_text(scores.miou_interval)} | {scores.accuracy:.2f} |

{markdown_table([["class", "name", "colour", "IoU", "95 % interval"], *rows], "><<>")}

## Training

- images: {images or "not recorded"}; seed {config.seed}
- Python {start.python}, torch {start.torch}, {start.device}, commit {start.commit}

```sh
python {shlex.join(command)}
```
"""


if __name__ == "__main__":
    main()
