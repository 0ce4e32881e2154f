"""Untrusted checkpoints, configs and lists run no code and stay inside their root."""

import os
import subprocess
from contextlib import suppress

import pytest
import torch
import yaml
from PIL import Image

import predict
from corrmatch import CorrMatch
from dataset.file_content import read_content
from dataset.image_files import PILLOW_FORMATS, exif_orientation, image_size
from engine.command import main
from tests.conftest import REPOSITORY, write_programs
from tests.robustness.fuzzing.verdict import RAN, REFUSED, called, verdict
from tools.prepare.official.masks import read_indices
from util.errors import UserError


@pytest.fixture
def marker(tmp_path):
    """Return the path of the file that smuggled code would create."""
    return tmp_path / "marker"


class Smuggled:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def rehearsed(toy, *more):
    return verdict(lambda: called(lambda: main(CorrMatch), *toy.argv(*more)))


# Checkpoints and configs


def test_a_checkpoint_runs_no_code(toy, marker, tmp_path):
    path = tmp_path / "given.pth"
    torch.save({"model": {}, "epoch": Smuggled(marker)}, path)
    assert rehearsed(toy, tmp_path / "run", "--resume", path) == REFUSED and not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "a reader that trusts its file runs the code"


def test_a_config_runs_no_code(toy, marker, tmp_path):
    tag = f"!!python/object/apply:os.mkdir ['{marker}']"
    assert rehearsed(toy, tmp_path / "run", "--set", f"epochs={tag}") == REFUSED
    toy.config.write_text(f"{toy.config.read_text()}\nseed: {tag}\n")
    assert rehearsed(toy, tmp_path / "run") == REFUSED and not marker.exists()
    yaml.unsafe_load(tag)
    assert marker.exists(), "a reader that trusts its file runs the code"


# Lists

OUTSIDE = ["../l0.jpg", "/etc/hostname", "images/../../l0.jpg", "images/.."]


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("kind", ["labeled", "unlabeled", "val"])
def test_lists_stay_in_the_root(outside, kind, toy, tmp_path, training_error):
    for line in (f"{outside} masks/l0.png", f"images/l0.jpg\t{outside}"):
        toy.write_list(kind, [line])
        error = training_error(CorrMatch, toy.argv(tmp_path / "run"))
        assert (
            f"{kind}.txt line 1: '{outside}' leads out of the data's root or is absolute" in error
        )


@pytest.mark.parametrize("outside", ["..", "/etc", "images/../.."])
def test_folders_stay_in_the_root(outside, toy, tmp_path, training_error):
    for folders in (f"{{images: {outside}}}", f"{{images: images, masks: {outside}}}"):
        argv = toy.argv(tmp_path / "run", "--set", f"data.unlabeled={folders}")
        assert "leads out of the data's root" in training_error(CorrMatch, argv)


def test_links_are_followed(toy, tmp_path):
    """Follow symbolic links, which users set on purpose: data is often on another disk."""
    (toy.root / "images").rename(tmp_path / "elsewhere")
    (toy.root / "images").symlink_to(tmp_path / "elsewhere")
    assert rehearsed(toy, tmp_path / "run", "--set", "epochs=1", "epoch_length=1") == RAN


# Files that are no config and no split file: messages must not quote them

SECRET = "s3cret-$6$"
OTHER_FILES = [
    f"root:{SECRET}:19000:0:99999:7:::\n",
    f"{SECRET} is a text\n",
    f"{SECRET} word\n",
    f"{SECRET} a: 1\n{SECRET} a: 2\n",
    f"data: &{SECRET} 1\n",
    "data: *s3cret-x\n",
    f"data: !{SECRET} x\n",
    f"data: !!int {SECRET}\n",
    f"data: '{SECRET}\n",
    f"data: [{SECRET}: a: b\n",
    f'data: "\\{SECRET}"\n',
    f"%{SECRET}\n",
]


@pytest.mark.parametrize("text", OTHER_FILES)
def test_messages_quote_no_other_file(text, toy, tmp_path, training_error):
    other = tmp_path / "other"
    other.write_text(text)

    def refusal(*more):
        error = training_error(CorrMatch, toy.argv(tmp_path / "run", *more))
        assert "other" in error and "s3cret" not in error
        return error

    for kinds in (["labeled"], ["unlabeled"], ["val"], ["unlabeled", "val"], ["labeled", "val"]):
        refusal("--set", *(f"data.{kind}={other}" for kind in kinds))
    toy.config.write_text(f"base: {other}\n")
    assert "not valid YAML" in (error := refusal()) or "expected" in error


# Names

COMMANDS = "\x1b]0;title\x07\u202e"


def test_names_command_no_terminal(toy, tmp_path, capsys):
    for kind in ("images", "masks"):
        (toy.root / "val" / kind).mkdir(parents=True)
        for file in (toy.root / kind).glob("v*"):
            file.rename(toy.root / "val" / kind / file.name)
    (toy.root / f"val/masks/{COMMANDS}.png").touch()  # has no image, so the log warns of it
    folders = "data.val={images: val/images, masks: val/masks}"
    called(lambda: main(CorrMatch), *toy.argv(tmp_path / "run", "--set", "epochs=1", folders))
    trained = capsys.readouterr()
    (toy.root / f"images/{COMMANDS}.jpg").write_bytes(b"damaged")
    use = ["--config", toy.config, "--checkpoint", tmp_path / "run/best.pth"]
    with suppress(SystemExit):
        called(predict.main, *use, "--images", toy.root / "images", "--save-path", tmp_path / "out")
    predicted = capsys.readouterr()
    with pytest.raises(SystemExit):
        called(predict.main, *use, "--images", tmp_path / COMMANDS, "--save-path", tmp_path / "new")
    refused = capsys.readouterr()
    log = (tmp_path / "run/log.txt").read_text()
    for text in (trained.out, predicted.err, refused.err, log):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert r"\x1b]0;title\x07\u202e" in text


# Images


def test_pillow_takes_no_other_format(tmp_path, monkeypatch):
    """Refuse EPS, whose reader would start Ghostscript, under any file name."""
    path, started = tmp_path / "a.png", []
    Image.new("RGB", (4, 3)).save(path, "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: started.append(1))
    assert Image.open(path).format == "EPS"
    for read in (read_content, exif_orientation, image_size):
        with pytest.raises(UserError, match=r"a\.png: not a readable image"):
            read(path)
    with pytest.raises(OSError, match="cannot identify"):
        read_indices(path.read_bytes())
    assert not started
    for name in PILLOW_FORMATS:
        Image.new("RGB", (4, 3)).save(path, name)
        assert read_content(path).size == (4, 3)


# Shell scripts

POTENT = """a b; touch "$MARKER"; $(touch "$MARKER") `touch "$MARKER"` * ' & | \\"""
STUB = '#!/bin/sh\nprintf "%s\\n" "$@" >> "$ARGUMENTS"\n'


@pytest.fixture
def sh(tmp_path, marker):
    """Run a script of tools/ with a stub of Python; return the exit code and Python's arguments."""
    stubs, noted = tmp_path / "stubs", tmp_path / "arguments"
    names = ("python", "python3", "ruff", "mypy", "codespell")
    write_programs(stubs, dict.fromkeys(names, STUB))

    def run(script, *arguments, **variables):
        noted.write_text("")
        environment = {"PATH": f"{stubs}:{os.defpath}", "VIRTUAL_ENV": "x", "MARKER": marker,
                       "ARGUMENTS": noted, **variables}  # fmt: skip
        done = subprocess.run(
            ["sh", f"tools/{script}.sh", *arguments], cwd=REPOSITORY, check=False,
            capture_output=True, env={k: str(v) for k, v in environment.items()},
        )  # fmt: skip
        return done.returncode, noted.read_text().split("\n")

    return run


@pytest.mark.parametrize("num_gpu", ["0", "1", "2"])
def test_scripts_quote_what_they_are_given(num_gpu, sh, marker, tmp_path):
    names = ("config", "labeled_id_path", "unlabeled_id_path", "MASTER_ADDR")
    given = {name: f"{name} {POTENT}" for name in names}
    save_path = tmp_path / POTENT
    code, arguments = sh(
        "train", num_gpu, "29500", POTENT, method=POTENT, save_path=save_path, **given
    )
    several = names if num_gpu == "2" else names[:3]
    assert code == 0 and {POTENT, f"{POTENT}.py", str(save_path)} <= set(arguments)
    assert {given[name] for name in several} <= set(arguments)
    assert (save_path / "console.txt").exists()

    code, arguments = sh("val", num_gpu, "29500", POTENT, config=POTENT, checkpoint_path=POTENT)
    assert code == 0 and arguments.count(POTENT) == 3
    assert not marker.exists()


def test_scripts_check_numbers(sh, marker):
    for script in ("train", "val"):
        assert sh(script, POTENT, "29500")[0] == 2 and sh(script, "1", POTENT)[0] == 2
        for name in ("NNODES", "NODE_RANK"):
            assert sh(script, "1", "29500", **{name: POTENT})[0] == 2
    assert not marker.exists()


@pytest.mark.parametrize("script", ["quickstart", "test"])
def test_scripts_pass_arguments_on(script, sh, marker):
    code, arguments = sh(script, POTENT, "--x")
    assert code == 0 and arguments[-3:-1] == [POTENT, "--x"] and not marker.exists()
