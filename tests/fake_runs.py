"""Run directories with given scores, without training."""

import json

import yaml

IMAGES = {"labeled": 3, "unlabeled": 5, "val": 3}


def fake_run(
    folder, toy, scores, *, method="UniMatch", seed=0, settings=None, epochs=None, images=None,
    digest="a", commit="c0ffee", command=(), teacher=None, labeled=None, val=None, starts=1,
    dice=None, unlabeled=None, class_weights=None, identities=None,
    folds=None,
):  # fmt: skip
    """Write the files of a run.

    `identities`: of the split files, instead of `images` and `digest`.
    `scores`: mIoU after each epoch; `teacher`: the same for model_ema; `epochs`: of the config, by
    default the number of scores; `images`: number per split; `dice`: volume Dice by class.
    """
    folder.mkdir(parents=True)
    tree = json.loads(json.dumps(toy.tree)) | {"seed": seed, "epochs": epochs or len(scores)}
    tree |= settings or {}
    lists = {"labeled": labeled, "val": val, "unlabeled": unlabeled}
    tree["data"] |= {
        kind: path if isinstance(path, dict) else str(path)
        for kind, path in lists.items() if path is not None
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    counts = IMAGES | (images or {})
    start = {
        "command": [f"{method.lower()}.py", *command], "first_step": 0, "method": method,
        "images": identities
        or {k: {"images": n, "sha256": f"{digest}-{n}-{k}"} for k, n in counts.items()},
        "folds": folds, "python": "3", "torch": "2", "device": "cpu", "commit": commit,
        "class_weights": class_weights,
    }  # fmt: skip
    all_starts = [start | {"first_step": number} for number in range(starts)]
    (folder / "starts.jsonl").write_text("".join(json.dumps(s) + "\n" for s in all_starts))

    def scored(miou):
        return {"mode": "original", "miou": miou, "miou_present": miou, "accuracy": 90.0,
                "iou": [miou - 10, miou, miou + 10], "dice": dice}  # fmt: skip

    lines = []
    for epoch, miou in enumerate(scores, start=1):
        networks = {"model": scored(miou)}
        if teacher:
            networks["model_ema"] = scored(teacher[epoch - 1])
        lines.append({
            "epoch": epoch, "steps": 10 * epoch, "train": {"loss": 1 / epoch}, "seconds": 5.0,
            "step_seconds": 0.5, "validation_seconds": 1.0, "peak_memory": 2**30,
            "scores": networks,
        })  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
