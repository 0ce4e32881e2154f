"""What `python -m tools.benchmark gpu` measures: a function per part, which returns figures.

In miniature the same code runs on tiny networks and images.
"""

import argparse
import gc
import re
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from engine.build import build_trainer
from engine.cost import GIB, flop_counter, step_cost
from engine.run_dir import RunDir
from tools.benchmark import evaluation
from tools.benchmark.measure import Call, read, timed
from tools.benchmark.steps import COMPILED, PARTS, PLAIN, TUNED, compare_steps
from tools.make_shapes.files import generate
from tools.methods import method_of
from util.config.loading import load_config
from util.errors import UserError

Rows = dict[str, dict[str, Any]]
"""Figures by row and column; a column's name ends with its unit."""
TINY = "{backbone: test_resnet, channels: 8, aspp_rates: [1, 2, 3], pretrained: none}"
TINY_VIT = "{network: dpt, backbone: test_vit, channels: 8, pretrained: none}"


class Bench(NamedTuple):
    """What the parts are measured on."""

    device: torch.device
    miniature: bool
    data: dict[str, Any]
    """A config's data section: photos."""
    camvid: Path
    """CamVid's folder, if it is there."""

    def options(self, script: str, dataset: str = "pascal", **more: Any) -> argparse.Namespace:
        """Those of a benchmark, for a method's published settings; tiny ones in miniature."""
        own = Path(f"configs/{dataset}_{script}.yaml")
        model = TINY_VIT if script == "unimatch_v2" else TINY
        tiny = [f"model={model}", "crop_size=48", "batch_size=2", "data.workers=0"]
        return argparse.Namespace(
            config=own if own.exists() else Path(f"configs/{dataset}.yaml"),
            set=tiny if self.miniature else ["model.pretrained=none"],
            device=self.device.type,
            repeats=1 if self.miniature else 7,
            **more,
        )


def tests(bench: Bench) -> Rows:
    """`tests/engine/test_gpu.py`; raises where pytest did not come to testing."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command = [*pytest, "tests/engine/test_gpu.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    *lines, last = (done.stdout.strip() or done.stderr.strip() or "nothing said").splitlines()
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {done.returncode}: {last}")
    failed = [line for line in lines if line.startswith("FAILED")]
    return {"test_gpu.py": {"result": "; ".join([last, *failed])}}


def method(bench: Bench, script: str) -> Rows:
    """A method's step, plain and tuned; tuned alone where there is no memory for both."""
    with suppress(torch.OutOfMemoryError):
        return {script: _method(bench, script, {"plain": PLAIN, "tuned": TUNED})}
    gc.collect()
    return {script: _method(bench, script, {"tuned": TUNED})}


def _method(bench: Bench, script: str, settings: dict[str, list[str]]) -> dict[str, Any]:
    options = bench.options(script)
    cases = {name: (script, keys) for name, keys in settings.items()}
    rows, calls = compare_steps(cases, options, bench.data)
    tuned = rows[-1]
    found: dict[str, Any] = {f"{row.setting}, ms": 1e3 * row.seconds for row in rows}
    if rows[0] is not tuned:
        found["times as fast"] = tuned.ratio
        if bench.device.type == "cuda":
            found["of plain's memory"] = tuned.memory / rows[0].memory
    with flop_counter() as counter:
        calls["tuned"]()
    tflop = counter.get_total_flops() / 1e12
    return found | {
        "GiB": tuned.memory / GIB,
        "estimated, GiB": estimate(bench, script),
        "TFLOP": tflop,
        "of the card's bfloat16 rate": tflop / tuned.seconds / matrix_rate(bench),
        "waits": ", ".join(waits(calls["tuned"], bench.device)) or "none",
    }


def estimate(bench: Bench, script: str) -> float | str:
    """GiB at the peak of a tuned step, as `engine.cost` knows them beforehand, or why not."""
    options, method_class = bench.options(script), method_of(script)
    options.set += TUNED
    config = read(options, data=bench.data)
    images = method_class.images_per_step(config)
    try:
        return step_cost(method_class, config, images, images).peak / GIB
    except UserError as error:
        return str(error)


def matrix_rate(bench: Bench) -> float:
    """TFLOP a second of the card's own bfloat16 matrix products."""
    n, count = (64, 2) if bench.miniature else (8192, 20)
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    runs = [timed(lambda: [a @ b for _ in range(count)], bench.device) for _ in range(4)]
    return count * 2 * n**3 / min(run.seconds for run in runs) / 1e12


def waits(call: Call, device: torch.device) -> list[str]:
    """The line of each operation of a step for which the host waits, as torch warns of them."""
    mode = torch.cuda.set_sync_debug_mode if device.type == "cuda" else lambda _: None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mode("warn")
        try:
            call()
        finally:
            mode("default")
    found = [w for w in caught if "synchronizing CUDA operation" in str(w.message)]
    return [f"{Path(w.filename).name}:{w.lineno}" for w in found]


def shares(bench: Bench) -> Rows:
    """What parts of a tuned step cost of it."""
    found: Rows = {}
    for part, cases in PARTS.items():
        tuned = {name: (script, [*TUNED, *keys]) for name, (script, keys) in cases.items()}
        (script, _), *_ = cases.values()
        rows, _ = compare_steps(tuned, bench.options(script), bench.data)
        found[part] = {f"{row.setting}, ms": 1e3 * row.seconds for row in rows}
        found[part]["share"] = 1 - rows[1].ratio
    return found


def compiled(bench: Bench) -> Rows:
    """UniMatch's tuned step as it is, and compiled (which miniatures only pretend to be)."""
    if bench.miniature:
        torch.compiler.set_stance("force_eager")
    found: Rows = {}
    for name, keys in (("as it is", TUNED), ("compiled", COMPILED)):
        begin = time.monotonic()
        cases = {name: ("unimatch", keys)}
        ((row,), _) = compare_steps(cases, bench.options("unimatch"), bench.data)
        ready = time.monotonic() - begin
        found[name] = {"ms": 1e3 * row.seconds, "GiB": row.memory / GIB, "all of it, s": ready}
    return found


def windows(bench: Bench) -> Rows:
    """Images of Cityscapes' size in sliding windows, by setting."""
    size = (64, 96) if bench.miniature else (1024, 2048)
    options = bench.options("", "cityscapes", size=size)
    return {
        row.setting: {"s an image": row.seconds, "times as fast": row.ratio}
        for row in evaluation.measure(options).rows
    }


def start(bench: Bench) -> Rows:
    """UniMatch's start-up, in a process of its own."""
    command = [sys.executable, "-m", "tools.benchmark", "start", "--device", bench.device.type]
    if bench.miniature:
        command += ["--counts", "30", "40", "5", "--set", *bench.options("unimatch").set]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = re.findall(r"^(.*?) +([\d.]+) s ", done.stdout, re.MULTILINE)
    return {part: {"s": float(seconds)} for part, seconds in lines}


def training(bench: Bench) -> Rows:
    """100 steps of UniMatch, on CamVid if it is there and else on shapes: losses and score."""
    found: Rows = {}
    with TemporaryDirectory() as folder:
        if bench.camvid.is_dir() and not bench.miniature:
            dataset, root, lists = "camvid", bench.camvid, bench.camvid / "splits"
            places = {"labeled": lists / "46/labeled.txt", "unlabeled": lists / "46/unlabeled.txt"}
        else:
            dataset, root, places = "shapes", Path(folder, "shapes"), {}
            counts = (4, 8, 4) if bench.miniature else ()
            generate(root, *counts, progress=False)  # type: ignore[misc]
            lists, places = root, {k: root / f"{k}.txt" for k in ("labeled", "unlabeled")}
        places |= {"root": root, "val": lists / "val.txt"}
        keys = [f"data.{key}={path}" for key, path in places.items()]
        keys += ["epochs=1", f"epoch_length={2 if bench.miniature else 100}"]
        options = bench.options("unimatch", dataset)
        for precision in ("float32", "bfloat16"):
            config = load_config(options.config, [*options.set, *keys, f"precision={precision}"])
            place = RunDir(Path(folder, precision))
            run = build_trainer(method_of("unimatch"), config, bench.device, place, "never")
            run.fit()
            (record,) = run.history
            miou = record["scores"]["model"]["miou"]
            losses = {f"mean {name}": value for name, value in record["train"].items()}
            found[f"{dataset}, {precision}"] = {"mIoU": miou, "s": record["seconds"], **losses}
    return found
