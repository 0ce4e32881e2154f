"""The quickstart, with a few steps."""

import subprocess
import sys

from PIL import Image

from tests.conftest import REPOSITORY


def test_quickstart(tmp_path):
    root = tmp_path / "data"
    sets = [
        f"data.root={root}",
        *(f"data.{k}={root}/{k}.txt" for k in ("labeled", "unlabeled", "val")),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tools.quickstart", "--save-path", tmp_path / "runs", "--set", *sets,
         "epochs=1", "epoch_length=2", "data.workers=0"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Training takes about 1 min on this machine" in done.stdout
    *_, table = done.stdout.partition("mIoU (best)")
    assert all(name in table for name in ("SupOnly", "FixMatch", "pictures.png", "next"))
    with Image.open(tmp_path / "runs/pictures.png") as pictures:
        assert pictures.width > pictures.height
