"""All about a GPU in under nine minutes: what fails is noted, and the next call goes on."""

import argparse
import functools
import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from tools.benchmark import gpu_parts, photos
from tools.benchmark.gpu_parts import Bench
from tools.benchmark.gpu_table import markdown
from tools.benchmark.options import METHODS, MINUTES
from util import distributed
from util.errors import UserError, reason
from util.io import write_atomically
from util.log import versions

START = 45.0
"""Seconds in which a process must be ready to measure."""


class Part(NamedTuple):
    seconds: float
    """It is ended after so many, and those that earlier parts have left over."""
    measure: Callable[[Bench], dict[str, Any]]


PARTS = {
    **{s: Part(30, functools.partial(gpu_parts.method, script=s)) for s in METHODS},
    "tests": Part(50, gpu_parts.tests),
    "shares": Part(50, gpu_parts.shares),
    "windows": Part(20, gpu_parts.windows),
    "start": Part(30, gpu_parts.start),
    "training": Part(65, gpu_parts.training),
    "compile": Part(65, gpu_parts.compiled),
}


def run(options: argparse.Namespace) -> None:
    """Measure the parts that gpu.json lacks, each in its time; raises `UserError`."""
    file = options.out / "gpu.json"
    record = read(file)
    if options.table:
        print(markdown(record))
        return
    device = distributed.choose_device("auto")
    if device.type != "cuda" and not options.miniature:
        raise UserError("gpu: found no GPU; --miniature runs the same parts, tiny, without one")
    todo = [p for p in options.parts if options.again or "found" not in record["parts"].get(p, {})]
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        data = photos.make_dataset(Path(folder), None, 20 if options.miniature else photos.COUNT)
        bench = Bench(device, options.miniature, data, options.camvid)
        while todo:
            with closing(answers(todo, bench, options.minutes / MINUTES)) as found:
                for name, answer in found:
                    if name is None:
                        check_same(record, {**answer, "miniature": options.miniature}, file)
                        continue
                    keep(record, name, answer, file)
                    todo.remove(name)


def keep(record: dict[str, Any], name: str, answer: dict[str, Any], file: Path) -> None:
    """Note what a part found, or its failure, at once."""
    record["parts"][name] = answer
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(file, lambda out: out.write(text.encode()))
    print(f"{name:<12} {answer['took']:6.1f} s  {answer.get('failure', '')}", flush=True)


def read(file: Path) -> dict[str, Any]:
    """What has been measured so far; raises `UserError` for a file that is no such record."""
    if not file.exists():
        return {"where": None, "parts": {}}
    with suppress(OSError, ValueError):
        record = json.loads(file.read_bytes())
        if isinstance(record, dict) and {"where", "parts"} <= record.keys():
            return record
    raise UserError(f"{file}: no record of this benchmark; choose another --out")


def check_same(record: dict[str, Any], where: dict[str, Any], file: Path) -> None:
    """Note where it is measured; raises `UserError` for a record of another place."""
    for key in ("device", "torch", "miniature"):
        before, now = (record["where"] or where)[key], where[key]
        if before != now:
            found = f"measured with {key} {before}, found {now}"
            raise UserError(f"{file}: {found}; choose another --out")
    record["where"] = where


def answers(
    names: list[str], bench: Bench, patience: float
) -> Generator[tuple[str | None, Any], None, None]:
    """Measure parts in a process of their own, up to the first that fails, as what follows in it
    may be spoilt: (None, where), then (name, what was found or the failure)."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe(duplex=False)
    parts = {name: PARTS[name] for name in names}
    process = context.Process(target=work, args=(theirs, parts, bench))
    process.start()
    assert process.pid is not None
    theirs.close()
    try:
        where, spare = receive(pipe, START * patience), 0.0
        if "failure" not in where:
            yield None, where
        for name, part in parts.items():
            begin, budget = time.monotonic(), part.seconds * patience + spare
            answer = where if "failure" in where else receive(pipe, budget)
            took = time.monotonic() - begin
            spare = budget - took  # for those that follow
            yield name, {**answer, "took": took}
            if "failure" in answer:
                return
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it started
        process.kill()
        process.join()


def receive(pipe: Connection, seconds: float) -> dict[str, Any]:
    try:
        return pipe.recv() if pipe.poll(seconds) else {"failure": f"not done in {seconds:.0f} s"}
    except EOFError:
        return {"failure": "its process died"}


def work(pipe: Connection, parts: dict[str, Part], bench: Bench) -> None:
    """Say where this is, then what each part found; end with the first failure."""
    os.setpgrp()
    if bench.device.type == "cuda":
        torch.cuda.init()  # or versions would not name the card
    pipe.send(versions())
    for part in parts.values():
        try:
            pipe.send({"found": part.measure(bench)})
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {reason(error)}"
            pipe.send({"failure": f"{said} ({Path(last.filename).name}:{last.lineno})"})
            return
