"""tools.sweep: every unfinished run is run once, despite failures and stops."""

import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from threading import Thread

import pytest
import yaml

from dataset.split_files import read_split_file, split_identity
from engine.scripts import CLASSES
from tests.conftest import REPOSITORY, write_lines, write_programs, write_sample
from tests.fake_runs import fake_run
from tests.scripts import SCONTROL, SRUN, environment, until_there
from tools.methods import method_of
from tools.results.published import read_published
from tools.results.runs import find_runs
from tools.sweep import __main__ as sweep
from tools.sweep import estimate, schedule
from tools.sweep.spec import expand, read_sweep
from util.config.loading import dump_config, load_config
from util.errors import UserError

SPECS = sorted((REPOSITORY / "configs/sweeps").glob("*.yaml"))

STUB = """
import shutil, signal, sys, time
from pathlib import Path
from threading import Thread

options = dict(zip(sys.argv[1:], sys.argv[2:]))
folder, seed = Path(options["--save-path"]), options["--seed"]
print("seed", seed, "on", options["--device"], flush=True)
if Path("broken", seed).exists():
    sys.exit("error: out of luck")
if Path("slow").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    Path("slow", seed).touch()
    time.sleep(60)
shutil.copytree(Path("ready") / folder, folder, dirs_exist_ok=True)
"""
"""Stub of a method's script, which copies a finished run from `ready`."""


def plan(path):
    return expand(read_sweep(path), path)


def identities(toy):
    return {
        kind: split_identity(read_split_file(toy.path(kind), masks=kind != "unlabeled").samples)
        for kind in ("labeled", "unlabeled", "val")
    }


def finish(planned, toy, scores=(10, 20), folder=None, **more):
    """Write the files of a run that is planned and has ended."""
    folder = folder or planned.folder
    more = {"identities": identities(toy), "seed": planned.seed} | more
    fake_run(folder, toy, list(scores), method=method_of(planned.method).__name__, **more)
    (folder / "config.yaml").write_text(dump_config(planned.load()))
    return folder


@pytest.fixture
def spec(toy, tmp_path, monkeypatch):
    """Write a sweep file into the new working directory."""
    monkeypatch.chdir(tmp_path)

    def write(**keys):
        tree = {
            "save_path": "runs", "seeds": [0, 1],
            "runs": [{"methods": ["supervised"], "configs": [str(toy.config)]}],
        }  # fmt: skip
        path = tmp_path / "spec.yaml"
        path.write_text(yaml.safe_dump(tree | keys, sort_keys=False))
        return path

    return write


@pytest.fixture
def stub(spec, toy):
    """A sweep of SupOnly and FixMatch whose scripts do nothing."""
    path = spec(runs=[{"methods": ["supervised", "fixmatch"], "configs": [str(toy.config)]}])
    for planned in plan(path):
        Path(f"{planned.method}.py").write_text(STUB)
        finish(planned, toy, [10, 20 + planned.seed], Path("ready") / planned.folder)
    Path("broken").mkdir()
    return path


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_sweep_expands_to_runs_that_their_methods_can_use(path):
    planned = plan(path)
    assert len(planned) > 5
    for config, some in {(p.method, str(p.overrides)): p for p in planned}.items():
        assert some.load().data.name in path.stem, config


@pytest.mark.parametrize("name", sorted({score.dataset for score in read_published()}))
def test_every_published_score_has_a_run(name):
    runs = set()
    for planned in plan(REPOSITORY / f"configs/sweeps/{name}.yaml"):
        method, model = method_of(planned.method).__name__, planned.load().model
        backbone = "unet" if model.network == "unet" else model.backbone
        for network in (model.network, None):
            runs.add((method, network, backbone, planned.lists.name))
    published = {
        (one.method, one.network, one.backbone, one.partition)
        for one in read_published()
        if one.dataset == name
    }
    assert published and published <= runs


def test_the_product_and_its_commands(spec, toy):
    part = {"methods": ["fixmatch", "supervised"], "configs": [str(toy.config)],
            "settings": {"plain": {}, "fast": {"optimizer.lr": 0.5, "model.pretrained": "none",
                                              "evaluation.volume_pattern": "[^_]+(_.)"}},
            "partitions": ["1_4", "1_2"]}  # fmt: skip
    path = spec(lists="lists/{d}/{partition}", set={"epochs": 1}, runs=[part])
    planned = plan(path)
    assert len(planned) == 2 * 2 * 2 * 2
    assert [str(p.folder) for p in planned[:3]] == [
        "runs/toy/fixmatch/plain/1_4/0", "runs/toy/fixmatch/plain/1_4/1",
        "runs/toy/fixmatch/plain/1_2/0",
    ]  # fmt: skip
    assert planned[5].command == [
        str(REPOSITORY / "fixmatch.py"), "--config", str(toy.config),
        "--labeled-id-path=lists/{d}/1_4/labeled.txt",
        "--unlabeled-id-path=lists/{d}/1_4/unlabeled.txt", "--save-path",
        "runs/toy/fixmatch/fast/1_4/1", "--seed", "1",
        "--set", "epochs=1", "optimizer.lr=0.5", "model.pretrained=none",
        'evaluation.volume_pattern="[^_]+(_.)"',
    ]  # fmt: skip
    assert list(planned[8].split_files) == ["labeled"]
    config = planned[5].load()
    assert (config.epochs, config.optimizer.lr, config.seed) == (1, 0.5, 1)
    assert config.evaluation.volume_pattern == "[^_]+(_.)"


def test_settings_of_a_part_add_to_those_of_all_runs(spec, toy):
    part = {
        "methods": ["supervised"],
        "configs": [str(toy.config)],
        "settings": {"a": {"optimizer": {"power": 2}}, "b": {"optimizer.power": 2}},
    }
    path = spec(set={"optimizer": {"lr": 0.5}, "data.name": date(2024, 1, 1)}, runs=[part])
    for planned in plan(path):
        config = planned.load()
        assert (config.optimizer.lr, config.optimizer.power) == (0.5, 2)
        assert config.data.name == "2024-01-01"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"seed": 3}, "unknown key 'seed'; did you mean 'seeds'"),
        ({"partitions": ["92"]}, "lists: missing"),
        ({"partitions": [116], "lists": "x/{partition}"}, "partitions.0: expected text, found 116"),
        ({"seeds": 3}, r"seeds: expected a list, found 3\. Fix: write it as \[a, b\]"),
        ({"set": 3}, r"set: expected keys and values, found 3\. Fix: write them as {key: value}"),
        ({"runs": ["x"]}, r"runs\.0: expected keys and values, found 'x'\. Fix: write them as"),
        ({"lists": "splits/pascal"}, "lists: expected a folder with {partition}"),
        ({"set": {"seed": 3}}, "--set seed=3: seed has another value by its own option or key"),
        ({"set": {"epoch": 3}}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"set": {"method.regions": 3}}, r"SupOnly: unknown key 'method\.regions'"),
        ({"runs": [{"methods": ["nomatch"], "configs": ["toy/toy.yaml"]}]}, "nomatch: no such"),
        ({"runs": [{"methods": ["supervised"], "configs": ["no.yaml"]}]}, "no.yaml: no such"),
        ({"seeds": [1, 1]}, "two runs have the folder runs/toy/supervised/1"),
        ({"partitions": ["92"], "lists": "splits/pascal/{partition}"},
         "splits/pascal/92/labeled.txt: no such split file. Fix: .* fetch pascal/92"),
    ],
)  # fmt: skip
def test_mistakes_give_one_error_line_before_anything_runs(keys, words, spec, user_error):
    assert re.search(words, user_error(sweep, spec(**keys))) and not Path("runs").exists()


def test_every_script_of_a_method_is_listed():
    scripts = {path.stem for path in REPOSITORY.glob("*.py")} - {"evaluate", "predict", "export"}
    assert {*CLASSES} == scripts
    assert all(method_of(script).__module__ == script for script in scripts)
    for name in ("other", "tools.cost", "unimatch.py", ""):
        with pytest.raises(UserError, match=f"^method {name}: .* expected one of corrmatch, "):
            method_of(name)


def test_what_is_done_is_not_run_again_and_what_failed_stops_no_other(stub, run):
    Path("broken/0").touch()
    Path("broken/1").touch()
    code, out, _ = run(sweep, stub)
    assert code == 1 and out.count("FAILED") == 4 and "table" not in out
    Path("broken/0").unlink()
    shutil.rmtree("runs")
    code, out, _ = run(sweep, stub)
    assert code == 1
    assert out.count("FAILED (exit code 1): error: out of luck") == 2
    assert "failed: python fixmatch.py --config" in out
    assert out.count("started on auto") == 4 and out.count("done: model mIoU 20.0") == 2
    assert "SupOnly" in out and "FixMatch" in out.rpartition("best mIoU")[2]

    Path("broken/1").unlink()
    before = {path: path.read_bytes() for path in Path("runs").glob("*/*/0/*")}
    assert before
    out = run(sweep, stub, "--devices", "cpu", "cpu").output()
    assert out.count("started on cpu") == 2 and "FAILED" not in out
    assert before == {path: path.read_bytes() for path in before}
    console = Path("runs/toy/supervised/1/console.txt").read_text()
    assert console == "seed 1 on auto\nerror: out of luck\nseed 1 on cpu\n"
    out = run(sweep, stub).output()
    assert "started" not in out and out.count("done: ") == 4
    assert "20.5 ± 0.7" in out


def test_a_dry_run_lists_and_runs_nothing(stub, toy, run, monkeypatch):
    costs, cost_of = {}, estimate.step_cost

    def once(method, *of_step):
        costs[method] = costs.get(method) or cost_of(method, *of_step)
        return costs[method]

    monkeypatch.setattr(estimate, "step_cost", once)
    out = run(sweep, stub, "--dry-run").output()
    assert out.count("to do") == 4 and not Path("runs").exists()
    assert "4 runs, 4 not done\n" in out and "their kind: 4 runs; GPU memory" in out
    for kind in ("supervised", "fixmatch"):
        assert re.search(rf"^{kind} .*toy.yaml\n  memory of a step +\d", out, re.M)
    assert len(re.findall(r"^  2 runs +not estimated: ", out, re.M)) == 2
    shutil.copytree("ready/runs/toy/supervised/0", "runs/toy/supervised/0")
    write_lines(Path("runs/toy/supervised/1/starts.jsonl"), ['{"comma'])  # a full disk
    metrics = Path("runs/toy/supervised/0/metrics.jsonl")
    code, out, _ = run(sweep, stub, "--dry-run")
    assert out.count("to do") == 3 and "; under a minute on one device for 1, by their" in out
    assert "of their kind: 2 runs;" in out and out.count("memory of a step") == 1
    lines = toy.path("labeled").read_text()
    toy.path("labeled").write_text(lines.replace("l0", "u0"))
    err = run(sweep, stub, "--dry-run").mistake()
    assert "another config: data.labeled images (3 -> 3 other). Fix: move" in err
    toy.path("labeled").write_text(lines)
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    code, out, _ = run(sweep, stub, "--dry-run")
    assert "unfinished, epoch 1 of 2" in out and "on one device for 2, by their" in out
    toy.path("unlabeled").unlink()
    assert "unlabeled.txt: no such split file" in run(sweep, stub, "--dry-run").output()


def test_the_time_of_the_rest_follows_its_number_of_labels(spec, toy, run, monkeypatch):
    """Take the time of a step from another partition, not that of an epoch."""
    samples = [write_sample(toy.root, f"x{i}") for i in range(12)]
    for partition, count in (("few", 3), ("many", 12)):
        write_lines(Path("lists", partition, "labeled.txt"), samples[:count])
    part = {"methods": ["supervised"], "configs": [str(toy.config)], "partitions": ["few", "many"]}
    path = spec(lists="lists/{partition}", set={"epoch_length": None}, seeds=[0], runs=[part])
    few, many = plan(path)
    labeled = split_identity(read_split_file(few.lists / "labeled.txt", masks=True).samples)
    finish(few, toy, identities=identities(toy) | {"labeled": labeled})
    monkeypatch.setattr(estimate, "duration", lambda seconds: f"{seconds:.2f} s")
    code, out, err = run(sweep, path, "--dry-run")
    config = many.load()
    steps = config.epochs * 12 // (2 * config.batch_size)
    assert code == 0 and f"; {6 / 10 * steps:.2f} s on one device for 1" in out, (out, err)
    (many.lists / "labeled.txt").write_text("\n")
    assert "many/labeled.txt: " in run(sweep, path, "--dry-run").output()


def test_folds_of_a_sweep_are_one_kind_and_skipped_validations_count(spec, toy, run, monkeypatch):
    """The sweep file of folds names their split files as settings."""
    folds = {
        f"fold_{n}": {f"data.{kind}": str(toy.path(kind)) for kind in ("labeled", "val")}
        | {"conf_thresh": 0.5}
        for n in (1, 2)
    }
    write_lines(Path("fold_2.txt"), toy.path("val").read_text().splitlines())
    folds["fold_2"]["data.val"] = "fold_2.txt"
    part = {"methods": ["supervised"], "configs": [str(toy.config)], "settings": folds}
    first, second = plan(path := spec(seeds=[0], runs=[part]))
    assert first.kind == second.kind and first.kind.endswith(" conf_thresh=0.5")
    metrics = finish(first, toy) / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"validation_seconds": 1.0', "", 1).replace(
        ", ,", ","))  # fmt: skip
    monkeypatch.setattr(estimate, "duration", lambda seconds: f"{seconds:.2f} s")
    code, out, err = run(sweep, path, "--dry-run")
    config = second.load()
    steps = config.epochs * estimate.steps_per_epoch(config, 3, 0, 2 * config.batch_size)
    assert code == 0 and f"; {11 / 20 * steps:.2f} s on one device for 1" in out, (out, err)


def test_runs_that_cannot_start_or_be_read_have_failed(stub, run):
    Path("ready/runs/toy/fixmatch/0/metrics.jsonl").write_text("{\n")
    Path("runs/toy/supervised").mkdir(parents=True)
    Path("runs/toy/supervised/1").write_text("a file, no folder")
    code, out, err = run(sweep, stub)
    assert code == 1 and out.count("started on auto") == 3 and out.count("done: ") == 2, err
    assert "supervised/1: cannot be made" in out and "metrics.jsonl line 1: not JSON" in out
    assert out.count("failed: python ") == 2


def test_asked_to_stop_it_stops_its_runs_and_goes_on_later(stub, run):
    def stop():
        until_there(Path("slow/0"))
        until_there(Path("slow/1"))
        os.kill(os.getpid(), signal.SIGTERM)

    Path("slow").mkdir()
    Thread(target=stop).start()
    code, out, err = run(sweep, stub, "--devices", "cpu", "cpu")
    assert code == 75 and out.count("stopped; the same command resumes it") == 2, err
    shutil.rmtree("slow")
    out = run(sweep, stub).output()
    assert out.count("started on auto") == 4


@pytest.mark.parametrize("code", [75, 130, -signal.SIGINT, -signal.SIGHUP, -signal.SIGTERM])
def test_a_run_that_was_asked_to_stop_has_not_failed(code, tmp_path):
    assert schedule._ending(tmp_path, code) == ("stopped; the same command resumes it", False)


def test_a_sweep_with_a_stopped_run_is_not_finished(stub, toy, run, monkeypatch):
    stopped = lambda *_: subprocess.Popen([sys.executable, "-c", "exit(75)"])  # noqa: E731
    monkeypatch.setattr(schedule, "_start", stopped)
    finish(plan(stub)[0], toy)
    code, out, err = run(sweep, stub)
    assert code == 75 and out.count("the same command resumes it") == 3, err
    assert "SupOnly" in out.splitlines()[-1]  # the table of what is there


def test_real_runs_from_any_folder(spec, run, user_error):
    """Look up paths in the working directory, and scripts in the repository."""
    resolved = {"precision": "auto", "criterion.class_weights": "auto", "optimizer.scale_lr": True,
                "optimizer.lr_batch": 4}  # fmt: skip
    path = spec(seeds=[3], set={"epochs": 1} | resolved)
    assert "; under a minute\n" in run(sweep, path, "--devices", "cpu").output()
    runs, faults = find_runs(["runs"])
    assert not faults and [one.config.seed for one in runs] == [3]
    assert all(one.is_finished and one.method == "SupOnly" for one in runs)
    assert runs[0].config.optimizer.lr == 0.005 and runs[0].config.precision != "auto"
    (runs[0].path / "metrics.jsonl").unlink()  # which the resumed run writes again
    out = run(sweep, path, "--devices", "cpu").output()
    assert out.count("started on cpu") == 1
    out = run(sweep, path).output()
    assert "started" not in out and "done: " in out
    for key, value, words in (
        ("optimizer.lr", 0.02, "lr (0.005 -> 0.01)"),
        ("criterion.class_weights", None, "class_weights ("),
        ("criterion.class_weights", "inverse", "class_weights ("),
        ("precision", "float16", "precision ("),
    ):
        err = user_error(sweep, spec(seeds=[3], set={"epochs": 1} | resolved | {key: value}))
        assert "another config: " in err and words in err


def test_paths_of_split_files_are_compared_by_file(spec, toy, run, tmp_path):
    """A Slurm job gets absolute paths."""
    for kind in ("labeled", "unlabeled"):
        Path("lists/few").mkdir(parents=True, exist_ok=True)
        shutil.copy(toy.path(kind), f"lists/few/{kind}.txt")
    part = {"methods": ["fixmatch"], "configs": [str(toy.config)]}
    path = spec(lists="lists/{partition}", partitions=["few"], runs=[part], seeds=[0])
    (planned,) = plan(path)
    finish(planned, toy)
    lists = {f"data.{kind}": str(tmp_path / file) for kind, file in planned.split_files.items()}
    config = load_config(planned.config, [f"{key}={file}" for key, file in lists.items()])
    (planned.folder / "config.yaml").write_text(dump_config(config))
    out = run(sweep, path).output()
    assert "started" not in out and "done: " in out


def test_devices_are_the_visible_gpus(stub, run, user_error, monkeypatch):
    assert "--devices 1: found 0 GPUs, numbered from 0" in user_error(sweep, stub, "--devices", "1")
    assert "--devices gpu0: expected auto, cpu" in user_error(sweep, stub, "--devices", "gpu0")
    monkeypatch.setattr("util.distributed.gpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    seen, popen = set(), subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *argv, env, **more: (
        seen.add(env["CUDA_VISIBLE_DEVICES"]) or popen(*argv, env=env, **more)
    ))  # fmt: skip
    out = run(sweep, stub, "--devices", "0", "1").output()
    assert "started on 1" in out and seen == {"3", "GPU-5"}
    assert run(sweep, stub, "--devices", "7")[0] == 0, "all runs are done"


SBATCH = """#!/bin/sh
echo "$array $*" >"$STUBS/submitted"
echo Submitted batch job 7
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Make stubs of Slurm's programs; in a job, they print the command."""
    stubs = tmp_path / "stubs"
    python = "#!/bin/sh\nprintf '%s|' \"$@\"\n"
    write_programs(stubs, {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL,
                           "job/python": python})  # fmt: skip
    monkeypatch.setenv("STUBS", str(stubs))
    monkeypatch.setenv("PATH", f"{stubs}:{os.environ['PATH']}")
    return stubs


def test_slurm_gets_an_array_of_what_is_not_done(spec, toy, run, programs, tmp_path):
    runs = tmp_path / "all runs"
    part = {"methods": ["supervised", "fixmatch"], "configs": [str(toy.config)]}
    path = spec(save_path=str(runs), runs=[part], set={"conf_thresh": 0.5})
    planned = plan(path)
    finish(planned[1], toy)
    out = run(sweep, path, "--slurm", "--time", "1:00:00").output()
    assert f"Submitted batch job 7 (3 runs, listed in {runs}/array-" in out
    file, arguments = (programs / "submitted").read_text().rstrip().split(" --array=")
    assert arguments.split() == ["1,3,4", "--time", "1:00:00", "tools/slurm_train.sh"]
    assert len(Path(file).read_text().splitlines()) == 4

    job = subprocess.run(
        ["sh", "tools/slurm_train.sh", "--extra"], cwd=REPOSITORY, capture_output=True, text=True,
        env=environment(
            PATH=f"{programs / 'job'}:{os.environ['PATH']}", STUBS=programs, SLURM_JOB_ID=8,
            SLURM_ARRAY_TASK_ID=4, SLURM_SUBMIT_DIR=REPOSITORY, array=file, num_gpu=0,
            save_path="", MAX_RESTARTS=0,
        ),
    )  # fmt: skip
    assert job.returncode == 0, job.stdout + job.stderr
    last = planned[3]
    script, *rest = job.stdout.strip("|\n").split("|")
    assert script == "fixmatch.py" and rest == [
        "--device", "cpu", "--config", str(last.config), "--save-path", str(last.folder),
        "--seed", "1", "--set", "conf_thresh=0.5", "--extra",
    ]  # fmt: skip


def test_slurm_that_refuses_or_is_not_there(stub, user_error, programs, monkeypatch):
    (programs / "sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    assert "no such partition" in user_error(sweep, stub, "--slurm")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sbatch cannot be run" in user_error(sweep, stub, "--slurm")
