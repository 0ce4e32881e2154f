"""A run as a folder ready to upload: weights as safetensors, config, and a model card.

The card has the classes with their scores, method, command and versions.  Absolute paths, which are
of this machine alone, are shortened to their names in all of it.
"""

import argparse
import os
import shlex
from pathlib import Path

import torch

from inference.evaluation import score_title
from model.checkpoint import PUBLISHED, find_checkpoint
from model.deploy import Deployed, describe, to_safetensors
from model.lora import merge_adapters
from model.trained import load_trained
from tools.results.runs import Epoch, Run, best_epoch
from util.cli import exit_with_one_line
from util.colours import palette
from util.config.loading import dump_config, portable
from util.errors import UserError
from util.io import write_atomically, write_text


def main() -> None:
    options = arguments()
    with exit_with_one_line():
        run = Run(options.run)
        if os.path.lexists(options.out):
            raise UserError(f"--out {options.out}: exists already; choose another folder")
        if not options.license.strip():
            raise UserError("--license: found nothing, expected a name such as mit or cc-by-4.0")
        epoch = published_epoch(run, options.which)
        checkpoint = find_checkpoint(options.run, options.which)
        network = load_trained(run.config, checkpoint, options.which, torch.device("cpu"))
        config = merge_adapters(network, run.config)
        deployed = Deployed(network, config, ())
        weights = to_safetensors(deployed, describe(config, deployed))
        card = model_card(run, options.which, epoch, options.license)
        write_folder(options.out, weights, dump_config(portable(config)), card)
        print(f"written: {options.out}, from {checkpoint}")
        print(f"upload:  hf upload OWNER/NAME {shlex.quote(str(options.out))}")
        print("use:     python predict.py --checkpoint hf:OWNER/NAME --images ... --save-path ...")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--license",
        required=True,
        help="yours to choose: the weights' licence as the hub names it, such as mit, cc-by-4.0",
    )
    parser.add_argument("--which", default="model", help="network of the run, such as model_ema")
    return parser.parse_args()


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


def model_card(run: Run, network: str, epoch: Epoch, license: str) -> str:
    """The text of README.md, with the hub's YAML header."""
    config, start, scores = run.config, run.starts[-1], epoch.scores[network]
    data = config.data
    command = [shortened(part) for part in start.command]
    rows = [
        f"| {index} | {name} | {'#{:02x}{:02x}{:02x}'.format(*colour)} | {iou:.2f} |"
        for index, (name, colour, iou) in enumerate(
            zip(data.classes, palette(data), scores.iou, strict=True)
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
`{scores.mode}`, in percent.

| mIoU | pixel accuracy |
|--:|--:|
| {scores.miou:.2f} | {scores.accuracy:.2f} |

| class | name | colour | IoU |
|--:|---|---|--:|
{chr(10).join(rows)}

## Training

- images: {images or "not recorded"}; seed {config.seed}
- Python {start.python}, torch {start.torch}, {start.device}, commit {start.commit}

```sh
python {shlex.join(command)}
```
"""


if __name__ == "__main__":
    main()
