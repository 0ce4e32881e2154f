"""An interrupted run, resumed by the same command, equals one that was never interrupted."""

import contextlib
import fcntl
import json

import pytest
import torch

from corrmatch import CorrMatch
from engine.checkpointing import state_to_resume
from engine.run_dir import RunDir
from engine.trainer import Trainer
from supervised import SupOnly
from tests.conftest import METHODS, json_lines, saved, write_sample
from tests.prototypes import Prototypes
from tests.runs import assert_equal, first_steps
from tools.results.runs import Run
from util.errors import UserError


class Killed(Exception):
    pass


def contents(run):
    return {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "run.lock"}


@pytest.mark.parametrize("kind", [*METHODS.values(), Prototypes], ids=[*METHODS, "prototypes"])
def test_resume_is_bit_exact(kind, toy, train, tmp_path, monkeypatch):
    toy.change(epochs=3, epoch_length=1)
    train(kind, toy.argv(tmp_path / "whole"))

    save = RunDir.save

    def save_then_die(self, state):
        save(self, state)
        raise Killed

    for _ in range(2):  # after the first epoch, and again after the second
        with monkeypatch.context() as patch:
            patch.setattr(RunDir, "save", save_then_die)
            with pytest.raises(Killed):
                train(kind, toy.argv(tmp_path / "parts"))
    train(kind, toy.argv(tmp_path / "parts"))

    runs = tmp_path / "whole", tmp_path / "parts"
    assert saved(runs[0] / "latest.pth")["epoch"] == 3
    assert [step > 0 for step in first_steps(runs[1])] == [False, True, True]
    assert_equal(*(saved(run / "latest.pth") for run in runs))
    assert_equal(*(saved(run / "best.pth")["method"] for run in runs))
    assert_equal(*(json_lines(run / "metrics.jsonl") for run in runs))


def test_settings_of_the_optimizer_are_those_of_the_config(toy, train, tmp_path):
    train(SupOnly, toy.argv(tmp_path / "run", "--set", "epochs=1"))
    train(SupOnly, toy.argv(tmp_path / "run", "--force", "--set", "optimizer.lr=0.5",
                            "optimizer.momentum=0.5"))  # fmt: skip
    for group in saved(tmp_path / "run/latest.pth")["optimizer"]["param_groups"]:
        assert group["base_lr"] == 0.5 and group["momentum"] == 0.5


def test_a_finished_run_stays_and_workers_change_nothing(toy, train, tmp_path, capsys):
    run = tmp_path / "alone"
    train(CorrMatch, toy.argv(run))
    before = contents(run)
    (run / "metrics.jsonl").unlink()  # as after a kill that came before it
    train(CorrMatch, toy.argv(run, "--set", "data.workers=1", "data.cache_mb=0"))
    assert (
        "finished. To train longer: --set epochs=N --force (N includes" in capsys.readouterr().out
    )
    assert contents(run) == before
    (run / "starts.jsonl").unlink()  # where only the checkpoint was kept
    train(CorrMatch, toy.argv(run))
    assert len(Run(run).starts) == 1
    train(CorrMatch, toy.argv(tmp_path / "workers", "--set", "data.workers=2"))
    assert_equal(*(saved(tmp_path / run / "latest.pth")["method"] for run in ("alone", "workers")))


def test_a_run_of_an_older_version_goes_on(toy, train, tmp_path):
    """Resume a run whose config lacks newer keys and whose best score has an older name."""
    train(SupOnly, toy.argv(tmp_path))
    latest = tmp_path / "latest.pth"
    state = saved(latest)
    state["epoch"], state["history"] = 1, state["history"][:1]
    state["best"] = {"model": {"miou": 99.0, "epoch": 1}}
    del state["config"]["log"], state["config"]["evaluation"]["select"]
    del state["images"], state["epoch_length"]
    torch.save(state, latest)
    train(SupOnly, toy.argv(tmp_path))
    state = saved(latest)
    assert state["epoch"] == 2 and state["best"] == {"model": {"score": 99.0, "epoch": 1}}
    assert state["epoch_length"] == 1 and state["images"]["val"]["images"] == 3


def test_what_an_older_version_recorded_is_compared(half, toy, train, training_error, capsys):
    state, starts = saved(half / "latest.pth"), half / "starts.jsonl"
    del state["images"]
    torch.save(state, half / "latest.pth")
    drop("val", 1)(toy)
    assert "data.val images (3 -> 2)" in training_error(SupOnly, toy.argv(half))
    (start,) = json_lines(starts)
    del start["images"], start["facts"]
    starts.write_text(json.dumps(start | {"commit": "old"}) + "\n")
    train(SupOnly, toy.argv(half))
    out = capsys.readouterr().out
    assert "records no split files (an older version); not compared" in out
    assert "resumed with other code, libraries or order of images: commit (old -> " in out


@pytest.fixture
def half(toy, train, tmp_path):
    """Make a run of two epochs of six steps that ended after the first, with a very good score."""
    toy.write_list("labeled", [write_sample(toy.root, f"l{i}") for i in range(12)])
    toy.change(batch_size=1)
    run = tmp_path / "run"
    train(SupOnly, toy.argv(run))
    state = saved(run / "latest.pth")
    state |= {"epoch": 1, "history": state["history"][:1]}
    state["best"] = {"model": {"score": 99.0, "epoch": 1}}
    torch.save(state, run / "latest.pth")
    return run


def drop(kind, count):
    return lambda toy: toy.path(kind).write_text(
        "".join(toy.path(kind).read_text().splitlines(keepends=True)[count:])
    )


def exchange(toy):
    others = [write_sample(toy.root, f"w{i}") for i in range(3)]
    toy.write_list("val", others)


CHANGES = {
    "data.labeled images (12 -> 4)": (drop("labeled", 8), [], True),
    "data.val images (3 -> 2)": (drop("val", 1), [], False),
    "data.val images (3 -> 3 other)": (exchange, [], False),
    "evaluation.select (miou -> iou:road)": (None, ["evaluation.select=iou:road"], False),
    "evaluation.every (1 -> 2)": (None, ["evaluation.every=2"], True),
}


@pytest.mark.parametrize("difference", CHANGES)
def test_other_images_and_scores_need_force(difference, half, toy, train, training_error, capsys):
    """Keep the length of epochs, and best scores only where they stay comparable."""
    change, settings, is_best_kept = CHANGES[difference]
    if change:
        change(toy)
    argv = toy.argv(half, *(f"--set={setting}" for setting in settings))
    before = {path: path.read_bytes() for path in half.iterdir() if path.is_file()}
    message = training_error(SupOnly, argv)
    assert f"started with other settings or split files: {difference}. Fix: " in message
    assert ("--force, which discards the best scores" in message) != is_best_kept
    assert all(path.read_bytes() == content for path, content in before.items()
               if path.name != "run.lock")  # fmt: skip
    train(SupOnly, [*argv, "--force"])
    log = capsys.readouterr().out
    assert difference in log and ("best scores are discarded" in log) != is_best_kept
    assert ("epochs keep their 6 steps" in log) == ("labeled" in difference)
    state = saved(half / "latest.pth")
    assert state["best"]["model"]["epoch"] == (1 if is_best_kept else 2)
    assert [record["steps"] for record in state["history"]] == [6, 12]
    assert state["epoch_length"] == 6 and first_steps(half) == [0, 6]
    assert ([*Run(half).curve("model", "miou")] == [2]) != is_best_kept
    train(SupOnly, argv)  # the same lists as last time


def test_fewer_epochs_than_a_checkpoint_has_are_refused(half, toy, training_error, train):
    train(SupOnly, toy.argv(half))
    output = training_error(SupOnly, toy.argv(half, "--set", "epochs=1", "--force"))
    assert "epochs: found 1, but " in output
    assert " already has 2 epochs and 0 steps; epochs counts the whole run. Fix: set ep" in output


def test_other_settings_of_a_finished_run_are_refused(toy, train, training_error, tmp_path):
    """No step would be trained with them, yet config.yaml and the tables would name them."""
    train(SupOnly, toy.argv(tmp_path / "run", "--set", "epochs=1"))
    names = ("config.yaml", "starts.jsonl", "metrics.jsonl", "latest.pth", "best.pth")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    other = ["--force", "--set", "optimizer.lr=0.5"]
    output = training_error(SupOnly, toy.argv(tmp_path / "run", *other, "epochs=1"))
    assert "the run is finished; nothing would be trained with other settings" in output
    assert "optimizer.lr (0.01 -> 0.5). Fix: pass --force and --set epochs=N, N above 1 (" in output
    assert before == [(tmp_path / "run" / name).read_bytes() for name in names]
    train(SupOnly, toy.argv(tmp_path / "run", *other))


def test_a_copied_split_file_and_other_code(half, toy, train, capsys, monkeypatch):
    """Compare split files by content, and code with that of the last start."""
    toy.path("labeled").rename(toy.root / "moved.txt")
    monkeypatch.setattr("engine.command.code_version", lambda: {"sources": "new"})
    val = f"data.val=[{toy.path('val')}]"
    train(SupOnly, toy.argv(half, "--labeled-id-path", str(toy.root / "moved.txt"), "--set", val))
    assert "resumed with other code, libraries or order of images: code.sources (" in (
        capsys.readouterr().out
    )


def test_learning_rates_continue_where_a_list_was_changed(half, toy, train, monkeypatch):
    drop("labeled", 8)(toy)
    rates = []
    monkeypatch.setattr(
        "engine.trainer.set_poly_lr", lambda _, step, steps, power: rates.append((step, steps))
    )
    monkeypatch.setattr("engine.trainer.Progress._show", lambda *_: None)
    train(SupOnly, toy.argv(half, "--force"))
    assert rates == [(step, 12) for step in range(5, 12)]  # from the last completed step on


OPTIONS = ["auto", "never", "latest.pth", "previous.pth", "best.pth", "elsewhere",
           "best_model_ema.pth"]  # fmt: skip
OUTCOMES = {
    "": ["new", "new", "no", "no", "no", "elsewhere", "no"],
    "latest.pth": ["latest", "no", "latest", "no", "no", "no", "no"],
    "previous.pth": ["previous", "no", "no", "previous", "no", "no", "no"],
    "best.pth": ["no", "no", "no", "no", "best", "no", "no"],
    "best_model_ema.pth": ["no", "no", "no", "no", "no", "no", "best_model_ema"],
    "best.pth best_model_ema.pth": ["no", "no", "no", "no", "no", "no", "best_model_ema"],
    "latest.pth previous.pth": ["latest", "no", "latest", "no", "no", "no", "no"],
    "latest.pth best.pth": ["latest", "no", "latest", "no", "no", "no", "no"],
    "previous.pth best.pth": ["previous", "no", "no", "previous", "no", "no", "no"],
    "latest.pth previous.pth best.pth": ["latest", "no", "latest", "no", "no", "no", "no"],
    "metrics.jsonl": ["no", "no", "no", "no", "no", "no", "no"],
    "config.yaml": ["no", "no", "no", "no", "no", "no", "no"],
    "best.pth metrics.jsonl config.yaml": ["no", "no", "no", "no", "best", "no", "no"],
    "config.yaml starts.jsonl log.txt": ["new", "new", "no", "no", "no", "elsewhere", "no"],
}
"""By the files in --save-path, for each option of --resume: the checkpoint that is continued, a
new run, or a refusal."""


@pytest.mark.parametrize("files", OUTCOMES)
def test_no_run_overwrites_what_is_there(files, tmp_path):
    folder = RunDir(tmp_path / "run")
    for epoch, name in enumerate(files.split()):
        torch.save({"name": name.partition(".")[0], "epoch": epoch}, folder.path / name)
    elsewhere = tmp_path / "elsewhere"
    torch.save({"name": "elsewhere"}, elsewhere)
    for option, outcome in zip(OPTIONS, OUTCOMES[files], strict=True):
        given = str(folder.path / option) if option.endswith(".pth") else option
        given = str(elsewhere) if option == "elsewhere" else given
        found = resumed(folder, given)
        assert found == outcome or (outcome == "no" and "Fix: " in found), option
        if outcome == "no" and option in ("auto", "never", "elsewhere"):
            assert all(name in found for name in files.split())
            assert ("Fix: pass --resume " in found) == ("pth" in files)


def resumed(folder, option):
    try:
        found = state_to_resume(folder, option)
    except UserError as error:
        return str(error).replace("no such checkpoint; expected", "Fix: expected")
    return found[0]["name"] if found else "new"


@pytest.mark.parametrize("best_epoch", [1, 0])
def test_a_run_from_another_runs_checkpoint_has_a_best(
    best_epoch, half, toy, train, tmp_path, monkeypatch
):
    """It keeps the score of that checkpoint, but not of another one in its folder; the checkpoint
    is written before data workers start."""
    written, train_epoch = [], Trainer.train_epoch

    def spying(self, *args, **options):
        written.append(self.run_dir._written is None)
        return train_epoch(self, *args, **options)

    state = saved(half / "latest.pth")
    state["best"]["model"]["epoch"] = best_epoch
    torch.save(state, half / "latest.pth")
    new = tmp_path / "new"
    monkeypatch.setattr(Trainer, "train_epoch", spying)
    train(SupOnly, toy.argv(new, "--resume", str(half / "latest.pth")))
    best = saved(new / "best.pth")
    assert best["epoch"] == best["best"]["model"]["epoch"] == 2 - best_epoch
    assert written[0]
    log = (new / "log.txt").read_text()
    assert (f"best score is not kept, as {new}/best.pth does not exist" in log) == (best_epoch == 0)


def test_a_missing_best_checkpoint_is_written_again(half, toy, train, capsys):
    """Another score of a later epoch would else have to beat that of the missing file."""
    state = saved(half / "latest.pth")
    for epoch, is_again in ((1, False), (0, True)):
        state["best"]["model"]["epoch"] = epoch
        torch.save(state, half / "latest.pth")
        (half / "best.pth").unlink()
        capsys.readouterr()
        train(SupOnly, toy.argv(half))
        output = capsys.readouterr().out
        assert ("best.pth does not exist" in output) == is_again
        assert saved(half / "best.pth")["epoch"] == 1 + is_again and ": best.pth, latest" in output
    state = saved(half / "latest.pth")
    state["best"]["model"]["epoch"] = 1
    torch.save(state, half / "latest.pth")
    (half / "best.pth").unlink()
    train(SupOnly, toy.argv(half))
    assert ": latest.pth, log.txt" in capsys.readouterr().out  # a finished run has no validation


@pytest.mark.parametrize("content", [b"text", None], ids=["damaged", "of another epoch"])
def test_the_best_score_of_another_checkpoint_is_not_kept(content, half, toy, train, capsys):
    state, best = saved(half / "latest.pth"), half / "best.pth"
    best.unlink()
    if content is None:
        torch.save(state | {"epoch": 2}, best)
    else:
        best.write_bytes(content)
    state["best"]["model"] = {"score": 100.0, "epoch": 0}
    torch.save(state, half / "latest.pth")
    train(SupOnly, toy.argv(half))
    assert f"not kept, as {best} is not of epoch 0" in capsys.readouterr().out
    end = saved(best)
    assert end["epoch"] == end["best"]["model"]["epoch"] == 2


def test_epoch_length_can_be_unset_by_force(toy, train, tmp_path):
    run = tmp_path / "run"
    train(SupOnly, toy.argv(run, "--set", "epoch_length=2", "epochs=1"))
    train(SupOnly, toy.argv(run, "--set", "epochs=2", "--force"))
    assert saved(run / "latest.pth")["epoch_length"] == 1


def test_another_optimizer_by_force_starts_with_a_fresh_state(toy, train, tmp_path):
    run = tmp_path / "run"
    for epochs, name, keys in (
        (1, "sgd", {"momentum_buffer"}), (2, "adamw", {"step", "exp_avg", "exp_avg_sq"}),
        (3, "sgd", {"momentum_buffer"}),
    ):  # fmt: skip
        train(SupOnly, toy.argv(run, "--force", "--set", f"epochs={epochs}",
                                f"optimizer.name={name}", "epoch_length=1"))  # fmt: skip
        entries = saved(run / "latest.pth")["optimizer"]["state"].values()
        assert {key for entry in entries for key in entry} == keys


@pytest.mark.parametrize("more", [["--dry-run"], ["--set", "crop_size=63", "model.network=dpt"]])
def test_a_start_without_a_run_leaves_nothing(more, toy, train, tmp_path):
    """Neither a dry run nor a start that fails after making the folder leaves files."""
    with contextlib.suppress(SystemExit):
        train(SupOnly, toy.argv(tmp_path / "new/run", *more))
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with contextlib.suppress(SystemExit):
        train(SupOnly, toy.argv(tmp_path / "mine", *more))
    assert {path.name for path in (tmp_path / "mine").iterdir()} <= {"notes.txt", "run.lock"}


def test_a_lock_file_that_was_removed_is_made_anew(tmp_path, monkeypatch):
    """A failed start may remove the lock file between opening and locking."""
    real, calls = fcntl.lockf, []

    def lockf(file, how):
        if not calls:
            (tmp_path / "run.lock").unlink()
        calls.append(how)
        real(file, how)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    RunDir(tmp_path).lock()
    assert len(calls) == 2 and (tmp_path / "run.lock").read_text().startswith("process")
