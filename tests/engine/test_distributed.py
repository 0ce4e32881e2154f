"""Two processes on one machine (gloo)."""

import json

import pytest
import torch

from dataset.folders import read_samples
from dataset.loaders import ProcessInfo, evaluation_loader
from inference.evaluation import evaluate
from metrics.calibration import PseudoLabelScores
from model.build import build_network
from model.files import best_checkpoint
from model.trained import load_trained
from tests.conftest import METHODS, Toy, json_lines, saved
from tests.forked import spread
from tests.prototypes import Prototypes
from util import distributed
from util.config.loading import load_config
from util.config.schema import Model

SPIED = METHODS | {"prototypes": Prototypes}


@pytest.fixture(scope="module")
def spied(tmp_path_factory):
    """A folder with a run of every method, made by one launch, and a record of its steps."""
    folder = tmp_path_factory.mktemp("spied")
    toy = Toy(folder / "toy")
    toy.change(epoch_length=3, save_every=2, log={"pictures": 2})
    argv = ["--config", toy.config, "--device", "cpu"]
    done = spread("-m", "tests.spying_training", folder, ",".join(SPIED), *argv)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    return folder


@pytest.mark.parametrize("method", SPIED)
def test_two_processes(method, spied):
    steps, run = [json_lines(spied / f"{method}-{rank}.jsonl") for rank in (0, 1)], spied / method
    assert len(steps[0]) == 6
    for a, b in zip(*steps, strict=True):
        assert a["digest"] == b["digest"], f"step {a['step']}: weights differ"
    assert len({step["digest"] for step in steps[0]}) == 6, "weights do not change"
    seen = sorted(tuple(key) for rank in steps for step in rank for key in step["seen"])
    assert seen == [(epoch, position) for epoch in (0, 1) for position in range(12)]
    networks = json_lines(run / "metrics.jsonl")[-1]["scores"]
    assert {p.name for p in run.iterdir()} == {
        "config.yaml", "latest.pth", "log.txt", "metrics.jsonl", "previous.pth", "pictures",
        "run.lock", "starts.jsonl", "tensorboard",
        *(best_checkpoint(run, name).name for name in networks),
    }  # fmt: skip
    before = saved(run / "previous.pth")
    assert (before["epoch"], before["done"]) == (1, 2)
    assert len(list((run / "tensorboard").iterdir())) == 1
    pictures = [p for p in (run / "pictures").rglob("*") if p.is_file()]
    assert len(pictures) == 2 * (5 if SPIED[method].unlabeled else 2)  # of two validations


@pytest.mark.parametrize("method", ["corrmatch", "unimatch_v2"])
def test_two_processes_judge_pseudo_labels_as_one(method, spied):
    *_, last = json_lines(spied / method / "metrics.jsonl")
    (name, quality) = next((n, s["pseudo_labels"]) for n, s in last["scores"].items()
                           if "pseudo_labels" in s)  # fmt: skip
    assert name == ("model_ema" if method == "unimatch_v2" else "model")
    config, cpu = load_config(spied / method / "config.yaml"), torch.device("cpu")
    network = load_trained(config, spied / method / "latest.pth", name, cpu)
    scores = PseudoLabelScores(config.num_classes, quality["threshold"], cpu)
    samples = read_samples(config.data.val, config.data, masks=True).samples
    loader = evaluation_loader(config, samples, ProcessInfo(0, 1, 0, cuda=False))
    evaluate(network, loader, config, mode="original", device=cpu, volumes=[0] * len(samples),
             pseudo_labels=scores)  # fmt: skip
    assert scores.summary() == quality


def test_two_processes_score_as_one(spied, tmp_path):
    run = spied / "supervised"
    logged = json_lines(run / "metrics.jsonl")[-1]["scores"]["model"]
    by_class, written = [], []
    for processes in (1, 2):
        out, folder = tmp_path / f"{processes}.json", tmp_path / f"scores {processes}"
        done = spread(
            "evaluate.py", "--config", spied / "toy/toy.yaml", "--checkpoint", run / "latest.pth",
            "--json", out, "--device", "cpu", "--boundary-iou", "--save-path", folder,
            "--worst", 3, processes=processes,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        scores = json.loads(out.read_text())
        assert {k: scores[k] for k in logged} == logged
        by_class.append(scores["class_scores"])
        written.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert by_class[0] == by_class[1] and "boundary IoU" in by_class[0]
    assert written[0] == written[1] and len(written[0]) == 3 + 3  # tables, worst images


def refused(*command):
    """Run a program in two processes, which must tell an error once; return it."""
    done = spread(*command, "--device", "cpu")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("error: ") == 1
    return done.stderr


def test_a_users_mistake_is_told_once_with_exit_code_2(toy, tmp_path):
    argv = "supervised.py", *toy.argv(tmp_path / "run")
    assert "epochs" in refused(*argv, "--set", "epochs=0")
    (toy.root / "images/l1.jpg").unlink()
    assert "images/l1.jpg" in refused(*argv)


def test_global_batch_that_cannot_be_divided(toy, tmp_path):
    error = refused("corrmatch.py", *toy.change(batch_size=3).argv(tmp_path / "run"))
    assert "batch_size: a global batch of 3" in error and "2 processes" in error


def test_a_checkpoint_that_cannot_be_written_ends_all_processes_alike(toy, tmp_path):
    toy.change(epochs=1, epoch_length=1, batch_size=4)
    (tmp_path / "run/metrics.jsonl").mkdir(parents=True)
    error = refused("supervised.py", *toy.argv(tmp_path / "run"))
    assert "metrics.jsonl: cannot be written" in error


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["resnet10t", "test_efficientnet"])
def test_synchronised_batch_norms_keep_their_activations(backbone, monkeypatch):
    network = build_network(Model(backbone=backbone, channels=8), 3).eval()
    x = torch.randn(1, 3, 64, 64)
    before = network(x)
    monkeypatch.setattr(distributed, "batchnorm_processes", lambda device: 2)
    distributed.sync_batchnorm(network, torch.device("cuda"))
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in network.backbone.modules())
    assert torch.equal(network(x), before)
