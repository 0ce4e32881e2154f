"""Checks that need a GPU."""

import pytest
import torch

from engine.command import build_trainer
from engine.run_dir import RunDir
from engine.visualize import take_pictures
from prevmatch import PrevMatch
from tests.conftest import every_method
from util.config.loading import load_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@every_method
def test_pictures_leave_the_generator_as_it_was(kind, toy, tmp_path):
    config = load_config(toy.config, ["precision=bfloat16", "log.pictures=2"])
    training = build_trainer(kind, config, torch.device("cuda"), RunDir(tmp_path / "run"), "never")
    training.method.after_epoch(0, is_best=True)
    before = torch.cuda.get_rng_state()
    assert len(take_pictures(training)) == (4 if kind.unlabeled else 2)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@every_method
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_step_never_waits_for_the_gpu(kind, precision, toy, tmp_path):
    """Only the first step, from raw batch to optimizer, may synchronise: it allocates memory."""
    config = load_config(toy.config, ["data.workers=0", f"precision={precision}"])
    training = build_trainer(kind, config, torch.device("cuda"), RunDir(tmp_path / "run"), "never")
    if kind is PrevMatch:
        training.method.after_epoch(0, is_best=True)
    raw = next(iter(training.train_loader))
    training.optimize(raw, 0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            training.optimize(raw, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
