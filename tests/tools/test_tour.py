"""docs/tour.ipynb: all cells run in order, with a training of a few steps."""

import json
import os
import subprocess
import sys

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "docs/tour.ipynb"
RUNNER = """
import subprocess
def shell(command):
    subprocess.run(command, shell=True, check=True)
"""


def test_the_cells_of_the_tour_run_in_order(tmp_path):
    (tmp_path / "docs").mkdir()
    for entry in REPOSITORY.iterdir():
        if entry.name not in ("docs", "data", "runs", "pretrained", ".git"):
            (tmp_path / entry.name).symlink_to(entry)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    first, *others = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    code = "\n".join([first, first, *others])  # it must not leave the repository when run again
    lines = code.replace("\\\n", "").splitlines()
    program = "\n".join(f"shell({x[1:]!r})" if x.startswith("!") else x for x in lines)
    shorter = program.replace("epochs=2 ", "epochs=1 data.workers=0 ").replace(
        "length=250", "length=3 "
    )
    assert "epochs=1" in shorter and "length=3 " in shorter
    end = "assert len(columns) == 8 and masks[1].shape == (48, 48) and masks[1].max() < 4"
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", f"{RUNNER}{shorter}\n{end}\n"],
        cwd=tmp_path / "docs", env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/tour/best.pth").exists()
