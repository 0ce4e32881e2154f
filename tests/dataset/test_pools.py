"""Pools of images: a split from several sources with their own roots."""

from pathlib import Path
from shutil import copy

import pytest

import evaluate
from dataset.folders import read_samples
from dataset.overlap import overlaps
from dataset.reader import Reader
from dataset.split_files import read_split_file
from dataset.validation import read_splits
from fixmatch import FixMatch
from tests.conftest import write_lines, write_sample
from tools.check_data.inspect import inspect
from tools.check_data.problems import problems
from util.config.data import Folders, SplitFile
from util.config.loading import dump_config, load_config
from util.errors import UserError


class Pools:
    """The toy, and a pool below another root with some of the same file names."""

    def __init__(self, toy):
        self.toy, self.root = toy, toy.folder / "pool"
        for name, mask in {"u0": False, "u5": False, "l0": True, "v0": True}.items():
            write_sample(self.root, name, (64, 48), mask)
        self.write("unlabeled", ["images/u0.jpg", "images/u5.jpg"])
        self.write("labeled", ["images/l0.jpg masks/l0.png"])
        self.write("val", ["images/v0.jpg masks/v0.png"])

    def path(self, kind):
        return self.toy.folder / f"pool_{kind}.txt"

    def write(self, kind, lines):
        write_lines(self.path(kind), lines)

    def remove_those_without_masks(self):
        for name in ("u0", "u5"):
            (self.root / f"images/{name}.jpg").unlink()

    def listed(self, kind):
        return {"list": str(self.path(kind)), "root": str(self.root)}

    def folders(self):
        return {"images": "images", "masks": "masks", "root": str(self.root)}

    def both(self, kind):
        return [str(self.toy.path(kind)), self.listed(kind)]

    def config(self, **data):
        return load_config(self.toy.change_data(**data).config)

    def config_of_both(self):
        return self.config(**{kind: self.both(kind) for kind in ("labeled", "unlabeled", "val")})


@pytest.fixture
def pools(toy):
    return Pools(toy)


def test_lists_of_two_roots_train_and_options_replace_them(pools, train, run, tmp_path):
    pools.config_of_both()
    given = pools.toy.path("unlabeled")
    more = "--unlabeled-id-path", str(given), "--set", "epochs=1", "epoch_length=1"
    train(FixMatch, pools.toy.argv(tmp_path / "run", *more))
    data = load_config(tmp_path / "run/config.yaml").data
    assert data.unlabeled == given and data.labeled[1].list == pools.path("labeled")
    best = tmp_path / "run/best.pth"
    out = run(evaluate, "--config", pools.toy.config, "--checkpoint", best).output()
    assert f"4 images of {pools.toy.path('val')} and {pools.path('val')}" in out


def test_each_sample_is_read_below_its_own_root(pools):
    config = pools.config_of_both()
    labeled, unlabeled, _ = (listed.samples for listed in read_splits(config.data, unlabeled=True))
    assert [sample.image_file for sample in unlabeled] == [
        *(pools.toy.root / f"images/u{i}.jpg" for i in range(5)),
        *(pools.root / f"images/u{i}.jpg" for i in (0, 5)),
    ]
    assert labeled[-1].mask_file == pools.root / "masks/l0.png"
    assert labeled[-1].where == f"{pools.path('labeled')} line 1"
    reader = Reader(config.data)
    sizes = [reader.image(sample).shape for sample in unlabeled if sample.image == "images/u0.jpg"]
    assert sizes == [(40, 60, 3), (48, 64, 3)] and reader.image_and_mask(labeled[-1])[1].size == (
        64,
        48,
    )


def test_folders_with_a_root(pools):
    pools.remove_those_without_masks()
    sources = (Folders(**pools.folders()), pools.toy.path("val"))
    data = pools.config_of_both().data
    samples = read_samples(sources, data, masks=True).samples
    assert [(s.image, s.mask, s.line) for s in samples][:3] == [
        ("images/l0.jpg", "masks/l0.png", 0),
        ("images/v0.jpg", "masks/v0.png", 0),
        ("images/v0.jpg", "masks/v0.png", 1),
    ]
    assert [s.image_file.parents[1] for s in samples[1:3]] == [pools.root, pools.toy.root]
    assert samples[0].where == str(pools.root / "images")
    itself = Folders(images=".", root=pools.root / "images")
    found = read_samples(itself, data, masks=False).samples
    assert [sample.image for sample in found] == ["l0.jpg", "v0.jpg"]


def test_a_list_alone_has_the_working_directory_as_its_root(toy, monkeypatch):
    monkeypatch.chdir(toy.root)
    assert read_split_file(toy.path("labeled"), masks=True).samples[0].mask_file.is_file()


def link(pools):
    (pools.root / "linked").symlink_to(pools.toy.root / "images")
    return {"unlabeled": ["linked/l1.jpg"]}


def link_file(pools):
    (pools.root / "images/l9.jpg").symlink_to(pools.toy.root / "images/l1.jpg")
    return {"unlabeled": ["images/l9.jpg"]}


# Lines of the pool's lists (or what makes them), and parts of the error.
REFUSED = {
    "leak": ({"unlabeled": ["images/v0.jpg"]},
             ["pool_val.txt line 1: ", "images/v0.jpg", "pool_unlabeled.txt line 1"]),
    "linked": (link, ["pool_unlabeled.txt line 1: 'linked/l1.jpg' is also in",
                      "labeled.txt line 2 as ", "data/images/l1.jpg. Fix: "]),
    "linked file": (link_file, ["pool_unlabeled.txt line 1: 'images/l9.jpg' is also in",
                                "labeled.txt line 2 as ", "data/images/l1.jpg. Fix: "]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_before_training(case, pools, training_error, tmp_path):
    lines, parts = REFUSED[case]
    pools.config_of_both()
    for kind, written in (lines(pools) if callable(lines) else lines).items():
        pools.write(kind, written)
    err = training_error(FixMatch, pools.toy.argv(tmp_path / "run"))
    assert not (tmp_path / "run/log.txt").exists()
    assert all(part in err for part in parts), err


def test_one_file_through_two_roots_is_found(pools):
    outer = {"list": str(pools.path("unlabeled")), "root": str(pools.toy.folder)}
    pools.write("unlabeled", ["pool/images/u0.jpg", "data/images/l2.jpg"])
    config = pools.config(unlabeled=outer)
    with pytest.raises(UserError, match=r"line 2: 'data/images/l2.jpg' is also in .* line 3\. "):
        read_splits(config.data, unlabeled=True)
    pools.write("unlabeled", ["data/images/u3.jpg"])
    config = pools.config(unlabeled=[outer, str(pools.toy.path("unlabeled"))])
    with pytest.raises(UserError, match=r"txt line 4: 'images/u3.jpg' is also in .* line 1\. "):
        read_splits(config.data, unlabeled=True)


def test_evaluation_refuses_an_image_twice(pools, user_error):
    pools.remove_those_without_masks()
    pools.config(val=[pools.listed("val"), pools.folders()])
    argv = ["--config", pools.toy.config, "--checkpoint", pools.toy.config]
    assert "'images/v0.jpg' is also in" in user_error(evaluate, *argv)


def test_inspection_across_roots(pools):
    """Accept equal names; report equal images (duplicate, leak) and equal files (overlap)."""
    config = pools.config_of_both()

    def found():
        return [
            (p.kind, p.split, p.line)
            for p in problems(inspect(config), config)
            if p.kind in ("overlap", "leak", "duplicate")
        ]

    assert found() == []
    copy(pools.toy.root / "images/u0.jpg", pools.root / "images/u0.jpg")
    assert found() == [("duplicate", "unlabeled", 1)]
    copy(pools.toy.root / "images/v0.jpg", pools.root / "images/u0.jpg")
    assert found() == [("leak", "val", 1)]
    pools.write("unlabeled", ["images/u5.jpg", "images/v0.jpg"])
    assert found() == [("overlap", "val", 1)]


def test_the_command_line_may_name_sources(toy):
    data = load_config(toy.config, ["data.unlabeled=[a.txt, {list: b.txt, root: c}]"]).data
    assert data.unlabeled[0] == Path("a.txt") and data.unlabeled[1].root == Path("c")


def test_roots_and_lists_may_move_between_stops(pools, train, capsys, tmp_path):
    pools.config(unlabeled=pools.both("unlabeled"), val=pools.listed("val"))
    argv = pools.toy.argv(tmp_path / "run", "--set", "epochs=1", "epoch_length=1")
    train(FixMatch, argv)
    pools.root = pools.root.rename(pools.toy.folder / "moved")
    pools.config(unlabeled=pools.both("unlabeled"), val=pools.listed("val"))
    train(FixMatch, argv)
    pools.config(unlabeled=pools.both("unlabeled")[::-1])
    train(FixMatch, [*argv, "epochs=2", "--force"])
    assert "order of images: order of split files.unlabeled (" in capsys.readouterr().out


@pytest.mark.parametrize("source, parts", [
    ([], ["data.unlabeled", "at least 1"]),
    ([["a.txt"]], ["data.unlabeled.0", "expected a path"]),
    ({"list": "a.txt", "rot": "b"}, ["'data.unlabeled.rot'", "did you mean 'root'"]),
    (["a.txt", {"images": "a", "mask": "b"}], ["'data.unlabeled.1.mask'", "'masks'"]),
    ({"list": "a.txt", "images": "b"}, ["'data.unlabeled.images'", "known: list, root"]),
    ({"list": "a.txt", "path": "b"}, ["'data.unlabeled.path'"]),
])  # fmt: skip
def test_sources_that_are_none(source, parts, pools):
    with pytest.raises(UserError) as error:
        pools.config(unlabeled=source)
    assert all(part in str(error.value) for part in parts), error.value


def test_sources_survive_a_dump(pools, tmp_path):
    unlabeled = [*pools.both("unlabeled"), pools.folders()]
    config = pools.config(unlabeled=unlabeled, test=pools.listed("val"))
    (tmp_path / "dumped.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "dumped.yaml") == config


def test_links_to_one_file_are_an_overlap_of_splits_only(toy, tmp_path):
    """Stores such as DVC's link equal images of one split to one file."""
    write_sample(tmp_path, "blob", (64, 48), mask=False)
    for name in "abc":
        (tmp_path / f"{name}.jpg").symlink_to("images/blob.jpg")
    lists = []
    for kind, lines in {"labeled": ["a.jpg", "b.jpg"], "val": ["c.jpg"]}.items():
        write_lines(tmp_path / f"{kind}.txt", lines)
        source = {"list": str(tmp_path / f"{kind}.txt"), "root": str(tmp_path)}
        lists.append(read_samples(SplitFile(**source), load_config(toy.config).data, masks=False))
    assert not list(overlaps(lists[:1]))
    ((number, _, message),) = overlaps(lists)
    assert number == 1 and "'c.jpg' is also in" in message
