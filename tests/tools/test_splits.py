"""Published lists: recognised and fetched with `tools.splits`."""

import hashlib
import re
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from dataset import protocols
from dataset.protocols import fetch_hint, fingerprint, read_protocols, select_split_files
from dataset.split_files import read_split_file
from tests.conftest import tree, write_lines
from tools.splits.fetch import fetch
from util.errors import UserError

U, V, P = "LiheYoung/UniMatch", "LiheYoung/UniMatch-V2", "wooseok-shin/PrevMatch"
LINES = [f"images/{i}.jpg masks/{i}.png" for i in range(8)]
# Two repositories publish "half" with different labelled images.
PUBLISHED = {
    "half/labeled": [(["a/one"], LINES[:3]), (["b/two"], LINES[1:4])],
    "tenth%/labeled": [(["a/one", "b/two"], LINES[4:5])],
    "tenth%/unlabeled": [(["a/one", "b/two"], LINES[:4] + LINES[5:7])],
    "val": [(["a/one", "b/two"], LINES[7:])],
}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Make a folder of two repositories, with GitHub's paths, and their protocols."""
    found = {}
    for name, variants in PUBLISHED.items():
        for sources, lines in variants:
            path = f"splits/toy/{name}.txt"
            for source in sources:
                write_lines(tmp_path / "host" / source / "HEAD" / path, lines)
            text = "".join(f"{line}\n" for line in sorted(lines)).encode()
            found.setdefault(name, []).append({
                "sources": sources, "path": path, "entries": len(lines), "unique": len(lines),
                "sha256": hashlib.sha256(text).hexdigest(),
            })  # fmt: skip
    (tmp_path / "protocols.yaml").write_text(yaml.safe_dump({"toy": found}))
    monkeypatch.setattr(protocols, "PROTOCOLS", tmp_path / "protocols.yaml")
    return tmp_path / "host"


@pytest.fixture
def asked(host, monkeypatch):
    """Serve `host` in place of GitHub; return the list of requested paths."""
    asked = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=host)) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=[0.01])
        thread.start()
        url = f"http://127.0.0.1:{serving.server_port}"
        monkeypatch.setattr("tools.splits.fetch.GITHUB_FILES", url)
        yield asked
        serving.shutdown()
        thread.join()


def test_protocols_are_complete():
    lists = read_protocols()
    assert len(lists) == 94 and sum(len(p.sources) for p in lists) == 170
    assert Counter(s for p in lists for s in p.sources) == {U: 73, V: 45, P: 52}
    entries = Counter()
    for p in lists:
        entries[p.dataset] += p.fingerprint.entries * len(p.sources)
    assert entries == {
        "pascal": 321807, "cityscapes": 69098, "coco": 36498, "ade20k": 246520,
        "acdc": 5368, "levir": 38672, "whu": 31222,
    }  # fmt: skip
    assert len({p.fingerprint.sha256 for p in lists}) == 93  # pascal: train_aug is all/labeled
    for p in lists:
        assert p.path.endswith(f"splits/{p.file.as_posix()}")
        assert p.fingerprint.unique == p.fingerprint.entries and len(p.fingerprint.sha256) == 64
    names = {p.name for p in lists if p.dataset == "pascal" and p.name.endswith("/labeled")}
    partitions = ["92", "183", "366", "732", "1464", "1_16", "1_8", "1_4", "all"]
    partitions += ["u2pl_1_16", "u2pl_1_8", "u2pl_1_4"]
    assert names == {f"{partition}/labeled" for partition in partitions}
    for dataset in ("levir", "whu"):
        partitions = {p.partition for p in lists if p.dataset == dataset}
        assert partitions == {"5%", "10%", "20%", "40%", "train", "val", "test"}
    doubtful = [n for n, count in Counter(str(p.file) for p in lists).items() if count > 1]
    assert doubtful == ["ade20k/1_32/labeled.txt", "ade20k/1_32/unlabeled.txt"]


def test_labelled_and_unlabelled_make_up_the_training_set():
    whole = {"pascal": 10582, "cityscapes": 2975, "ade20k": 20210, "acdc": 1312, "levir": 7120,
             "whu": 5947}  # fmt: skip
    sizes = Counter()
    for p in read_protocols():
        if p.partition not in ("all", p.name):
            for source in p.sources:
                sizes[p.dataset, p.partition, source] += p.fingerprint.entries
    checked = {k: v for k, v in sizes.items() if k[0] != "coco"}  # lists no unlabelled images
    assert len(checked) == 64 and all(v == whole[k[0]] for k, v in checked.items())


def test_fingerprint():
    digest = hashlib.sha256(b"a b\nc d\n").hexdigest()
    assert fingerprint(b"c d\na b\n") == (2, 2, digest)
    assert fingerprint(b"c d\r\n\r\na b\r\nc d") == (3, 2, digest)


def test_fetch_from_a_clone(splits, host):
    clone = host / "a/one/HEAD"
    out = splits("fetch", "toy/tenth%", "toy/val", "--from", clone).output()
    assert out.count(f"from {clone}") == 3
    assert Path("splits/toy/tenth%/labeled.txt").read_text().splitlines() == LINES[4:5]
    assert "already there" in splits("fetch", "toy/val", "--from", "nowhere").output()
    line = splits("fetch", "toy/half", "--source", "one", "--from", "nowhere").mistake()
    assert line == "error: --from nowhere: no such folder\n"
    (clone / "splits/toy/half/labeled.txt").unlink()
    asked = "toy/half", "toy/val", "--source", "one", "--from", clone
    line = splits("fetch", *asked).mistake()
    assert f"--from {clone}: has 0 of 1 lists, not toy/half/labeled" in line
    assert "which a/one publish; of published ones it has toy/tenth%, toy/val. Fix: name a" in line
    line = splits("fetch", *asked[:-1], "splits/toy").mistake()
    assert "of published ones it has toy/tenth%, toy/val. Fix: name a clone" in line

    write_lines(clone / "splits/toy/half/labeled.txt", LINES[:4])
    line = splits("fetch", "toy/half", "--source", "one", "--from", clone).mistake()
    assert "HEAD/splits/toy/half/labeled.txt: not the published list" in line
    assert "found 4 entries, SHA-256 " in line and "expected 3 entries, SHA-256 " in line
    assert not Path("splits/toy/half").exists()


def test_fetch_from_a_server(asked, host, tmp_path):
    out = tmp_path / "splits"
    lines = list(fetch(select_split_files("toy/tenth%"), out))
    assert len(lines) == 3 and all(line.endswith("from a/one") for line in lines)
    assert "GET" not in asked[0] and "tenth%25/labeled.txt" in asked[0]
    assert set(tree(out)) == {f"toy/{n}.txt" for n in ("tenth%/labeled", "tenth%/unlabeled", "val")}
    list(fetch(select_split_files("toy/half", "two"), out))
    assert (out / "toy/half/labeled.txt").read_text().splitlines() == LINES[1:4]
    assert len(asked) == 4  # val existed already

    before = tree(out)
    with pytest.raises(UserError, match="half/labeled.txt: exists with other lines"):
        list(fetch(select_split_files("toy", "one"), out))
    assert tree(out) == before

    elsewhere = tmp_path / "elsewhere"
    write_lines(host / "a/one/HEAD/splits/toy/val.txt", LINES[:1])
    with pytest.raises(UserError, match="val.txt: not the published list .found 1 entry"):
        list(fetch(select_split_files("toy/val"), elsewhere))
    (host / "a/one/HEAD/splits/toy/val.txt").unlink()
    with pytest.raises(UserError, match="val.txt: cannot be downloaded .*404.* --from"):
        list(fetch(select_split_files("toy/val"), elsewhere))
    assert not elsewhere.exists()


def test_select():
    assert [p.name for p in select_split_files("pascal/92")] == [
        "92/labeled",
        "92/unlabeled",
        "val",
    ]
    assert [p.name for p in select_split_files("pascal/val")] == ["val"]
    assert len(select_split_files("pascal")) == 25
    labeled = select_split_files("ade20k/1_32", "PrevMatch")[0]
    assert labeled.sources == (P,) and labeled.fingerprint.entries == 632
    for target, source, message in (
        ("ade20k/1_32", None, "1_32/labeled: .*631 of .*V2, 632 of .*PrevMatch.*--source"),
        ("ade20k", None, "--source"),
        ("ade20k/1_4", "PrevMatch", "--source PrevMatch: does not publish ade20k/1_4.*V2"),
        ("pascal/93", None, "pascal/93: not a published partition; expected one of 92, 183"),
        ("voc/92", None, "voc: no published lists .*pascal, cityscapes"),
    ):
        with pytest.raises(UserError, match=message):
            select_split_files(target, source)


def test_list(splits):
    out = splits("list", "ade20k").output()
    assert len(out.splitlines()) == 19
    assert "ade20k/1_32/labeled" in out and "5741dcc6e0eb" in out
    assert len(splits("list")[1].splitlines()) == 95


def test_verify(splits, host):
    assert "splits: no lists" in splits("verify").mistake()
    write_lines(Path("splits/toy/half/labeled.txt"), LINES[3:0:-1])  # the order does not matter
    write_lines(Path("splits/mine/labeled.txt"), LINES[4:5])
    write_lines(Path("splits/mine/val.txt"), LINES)
    out = splits("verify").output()
    rows = {line.split()[0]: line.split(maxsplit=2)[2] for line in out.splitlines()}
    assert rows["toy/half/labeled.txt"] == "toy/half/labeled of b/two"
    assert rows["mine/labeled.txt"] == "toy/tenth%/labeled of a/one, b/two"
    assert rows["mine/val.txt"] == "unknown"

    write_lines(Path("splits/toy/val.txt"), LINES[4:5])
    code, out, _ = splits("verify")
    assert code == 1 and "differs: toy/tenth%/labeled of a/one, b/two; found 1 entry" in out
    assert splits("verify", "toy/half")[0] == 0 and splits("verify", "toy/val")[0] == 1
    assert splits("verify", "splits/toy/val.txt") == splits("verify", "toy/val")
    Path("splits/folder.txt").mkdir()
    assert splits("verify") == (1, out, "")
    Path("splits/mine/gone.txt").symlink_to("/proc/self/mem")
    assert "splits/mine/gone.txt: cannot be read" in splits("verify", "mine").mistake()
    Path("splits/mine/gone.txt").unlink()
    assert splits("verify", "toy/hal")[0] == 2
    Path("splits/mine/labeled.txt").rename("elsewhere.txt")
    assert "toy/tenth%/labeled of a/one, b/two" in splits("verify", "elsewhere.txt").output()


@pytest.mark.parametrize(
    "path, hint",
    [
        ("splits/pascal/92/labeled.txt", "fetch pascal/92"),
        ("/home/me/splits/cityscapes/val.txt", "fetch cityscapes/val"),
        ("splits/coco/1_32/unlabeled.txt", "generate coco/1_32 --root data/coco"),
        ("splits/pascal/93/labeled.txt", "list pascal"),
        ("splits/mine/92/labeled.txt", None),
        ("data/camvid/splits/46/labeled.txt", None),
        ("pascal/92/labeled.txt", None),
        ("splits", None),
    ],
)
def test_hints_for_a_missing_list(path, hint):
    expected = f"python -m tools.splits {hint}" if hint else ""
    assert fetch_hint(Path(path), "").rpartition(": ")[2] == expected
    if not hint:
        assert fetch_hint(Path(path), "") == ""


def test_a_published_list_is_not_taken_for_its_neighbour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lines(Path("splits/coco/1_32/labeled.txt"), LINES)
    for path, hint in {
        "splits/coco/1_32/unlabeled.txt": ". Fix: python -m tools.splits generate coco/1_32",
        "splits/coco/1_512/labeled.txt": ". Fix: python -m tools.splits fetch coco/1_512",
        "splits/coco/1_23/labeled.txt": "; did you mean 'splits/coco/1_32/labeled.txt'?",
    }.items():
        with pytest.raises(UserError, match=re.escape(f"{path}: no such split file{hint}")):
            read_split_file(Path(path), masks=True)


def test_protocols_are_read_only_when_a_list_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(protocols, "PROTOCOLS", tmp_path / "none.yaml")
    write_lines(tmp_path / "splits/pascal/92/labeled.txt", LINES)
    assert len(read_split_file(tmp_path / "splits/pascal/92/labeled.txt", masks=True).samples) == 8


def test_a_clone_keeps_its_lists_anywhere(splits, host):
    """Recognise lists by content: not every repository has UniMatch's folders."""
    clone = host / "a/one/HEAD"
    lists, folder = clone / "splits/toy", clone / "Data/partitions 2"
    folder.mkdir(parents=True)
    for number, file in enumerate(sorted(lists.rglob("*.txt"))):
        file.rename(folder / f"{number}.txt")
    write_lines(folder / "other.txt", LINES[:2])
    (folder / "folder.txt").mkdir()
    out = splits("fetch", "toy/tenth%", "--from", clone).output()
    assert out.count(f"from {clone}") == 3
    for name in ("tenth%/labeled", "tenth%/unlabeled", "val"):
        ((_, lines),) = PUBLISHED[name]
        assert Path(f"splits/toy/{name}.txt").read_text().splitlines() == lines


def test_lists_of_files_that_training_does_not_read_are_not_fetched(splits):
    err = splits("fetch", "acdc/1", "--from", ".").mistake()
    assert "python -m tools.prepare acdc" in err and not Path("splits").exists()
    hint = fetch_hint(Path("splits/acdc/1/labeled.txt"), "")
    assert "tools.prepare acdc" in hint and "fetch" not in hint
