"""Preparing a dataset: resuming, existing files, damaged and malicious downloads."""

import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests import miniature
from tests.preparing import files, with_cases
from tools.prepare.official.archives import Download, find
from tools.prepare.official.masks import png, read_indices
from tools.prepare.official.output import RECORD, OutputFolder
from util.errors import UserError


@with_cases("pascal", "coco_instances")
def test_an_interrupted_run_continues(case, tmp_path, monkeypatch):
    case.run(root=tmp_path / "whole")
    record, make = OutputFolder.record, OutputFolder.make
    recorded, made = [], []

    def interrupted(root, target, download):
        if len(recorded) == 2:
            raise KeyboardInterrupt
        record(root, target, download)
        recorded.append(target)

    monkeypatch.setattr(OutputFolder, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        case.run()
    with (case.root / RECORD).open("a") as file:
        file.write("JPEGImages/2007_x")  # the machine stopped within a line
    unfinished = sorted(set(files(tmp_path / "whole")) - set(recorded))[0]
    (case.root / unfinished).unlink(missing_ok=True)
    users = tmp_path / "users.jpg"
    users.write_bytes(b"linked, not yet renamed")
    (case.root / unfinished).parent.mkdir(exist_ok=True)
    (case.root / f"{unfinished}.0123abcd.partial").hardlink_to(users)
    monkeypatch.setattr("tools.prepare.official.output.SECONDS_PER_DAY", 0)

    monkeypatch.setattr(OutputFolder, "record", record)
    monkeypatch.setattr(OutputFolder, "make", lambda *a: (made.append(a[1]), make(*a)))
    case.run(jobs=1)  # so that no temporary file of another thread counts as left behind
    assert not set(made) & set(recorded) and len(made) == len(files(tmp_path / "whole")) - 2
    assert files(case.root) == files(tmp_path / "whole")
    assert users.read_bytes() == b"linked, not yet renamed"
    made.clear()
    case.run()
    assert not made
    next(case.root.rglob("*.png")).unlink()
    case.run()
    assert len(made) == 1 and files(case.root) == files(tmp_path / "whole")


@with_cases("pascal")
def test_nothing_is_overwritten(case):
    case.run()
    whole = files(case.root)
    image, mask = (case.root / f"{n}" for n in ("JPEGImages/2007_a.jpg", next(iter(case.masks))))
    for path in (image, mask):
        path.write_bytes(b"mine")  # recorded, and changed since
        with pytest.raises(UserError, match=f"{path.name}: is there and differs") as error:
            case.run()
        assert "\n" not in str(error.value) and path.read_bytes() == b"mine"
        path.unlink()
        path.symlink_to(case.root / "nowhere")
        with pytest.raises(UserError, match="differs"):
            case.run()
        assert path.is_symlink()
        path.unlink()
        case.run()
    (case.root / RECORD).unlink()
    case.run()  # not recorded, but equal
    assert files(case.root) == whole
    (case.root / RECORD).unlink()
    mask.write_bytes(b"mine")
    with pytest.raises(UserError, match="differs"):
        case.run()
    assert mask.read_bytes() == b"mine"


@with_cases("coco_instances")
def test_masks_of_other_annotations_are_not_taken_for_these(case, tmp_path):
    case.run()
    both = miniature.pack(miniature.coco("instances", "panoptic")[0], tmp_path / "both")
    with pytest.raises(UserError, match=r"masks/.*differs from the file of panoptic_annotations"):
        case.run(both)


MALICIOUS = {
    "../evil.txt": "leads out",
    "VOCdevkit/VOC2012/JPEGImages/../../../../evil.txt": "leads out",
    "ABSOLUTE/evil.txt": "leads out",
    "C:\\evil.txt": "leads out",
    "..\\evil.txt": "leads out",
    "VOCdevkit/VOC2012/JPEGImages/2007_a.jpg": "is a link",
    "SegmentationClassAug/2007_a.png": "is a link",
}


def add_to_tar(path, name, kind):
    with tarfile.open(path, "a") as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/hostname"
        file.addfile(info, io.BytesIO())


def add_to_zip(path, name, mode):
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo("placeholder")
        info.filename, info.external_attr = name, mode << 16
        file.writestr(info, "/etc/hostname")


@with_cases("pascal_ready")
@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_members_are_refused(case, tmp_path, name):
    reason = MALICIOUS[name]
    link = reason == "is a link"
    name = name.replace("ABSOLUTE", str(tmp_path))
    if not name.startswith("Seg"):
        path = case.source / "VOCtrainval_11-May-2012.tar"
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE) if link else (tarfile.REGTYPE,)
        changes = [lambda k=k: add_to_tar(path, name, k) for k in kinds]
    if not name.startswith("VOC"):
        path = case.source / "SegmentationClassAug.zip"
        mode = stat.S_IFLNK if link else stat.S_IFREG
        changes = [lambda: add_to_zip(path, name, mode)]
    for change in changes:
        whole = path.read_bytes()
        change()
        before = files(tmp_path)
        with pytest.raises(UserError, match=reason) as error:
            case.run()
        assert path.name in str(error.value) and "\n" not in str(error.value)
        assert files(tmp_path) == before and not case.root.exists()
        path.write_bytes(whole)
    case.run()


@with_cases("pascal", "pascal_ready", "coco_panoptic")
def test_damaged_archives(case):
    for name in case.archives:
        path = case.source / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"{name}: cannot be read") as error:
            case.run()
        assert "\n" not in str(error.value)
        path.write_bytes(whole)
    case.run()


@with_cases("pascal")
@pytest.mark.parametrize("what", ["file", "folder", "download", "source"])
def test_links_in_an_unpacked_download_stay_in_it(case, tmp_path, what):
    source = miniature.unpack(case.archives, tmp_path / "unpacked")
    images = source / "VOCdevkit/VOC2012/JPEGImages"
    linked = {
        "file": images / "2007_a.jpg",
        "folder": images,
        "download": source / "VOCdevkit",
        "source": source,
    }[what]
    elsewhere = tmp_path / "elsewhere"
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    if what in ("download", "source"):  # which the user named
        case.run(source)
        return
    with pytest.raises(UserError, match=r"2007_a.jpg: refused, a link leads out") as error:
        case.run(source)
    assert "\n" not in str(error.value)
    private = elsewhere if what == "file" else elsewhere / "2007_a.jpg"
    assert private.stat().st_nlink == 1
    linked.unlink()
    elsewhere.rename(linked.with_name("inside"))
    linked.symlink_to("inside")
    case.run(source)
    made = case.root / "JPEGImages/2007_a.jpg"
    assert not made.is_symlink() and made.samefile(images / "2007_a.jpg")


@with_cases("pascal")
def test_a_pipe_in_an_unpacked_download(case, tmp_path):
    source = miniature.unpack(case.archives, tmp_path / "unpacked")
    image = source / "VOCdevkit/VOC2012/JPEGImages/2007_a.jpg"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(UserError, match=r"2007_a.jpg: refused, a device or pipe"):
        case.run(source)


@with_cases("pascal_ready")
@pytest.mark.parametrize("form", ["tar", "zip", "unpacked"])
def test_large_members_are_refused(case, tmp_path, form):
    source, name = case.source, "JPEGImages/2007_a.jpg" if form == "tar" else "2007_b.png"
    if form == "unpacked":
        source = miniature.unpack(case.archives, tmp_path / "unpacked")
    archive = find(source, Download("VOCtrainval_11-May-2012.tar", "VOCdevkit/VOC2012", ""))
    if form != "tar":
        archive = find(source, Download("SegmentationClassAug.zip", "SegmentationClassAug", ""))
    (member,) = (m for m in archive.members.values() if m.name.endswith(name.rpartition("/")[2]))
    content = member.read()
    size = len(content.read_bytes() if form == "unpacked" else content)
    assert size > 100 and member.read(size)
    with pytest.raises(UserError, match=f"{size} bytes, expected at most {size - 1}") as error:
        member.read(size - 1)
    assert name.rpartition("/")[2] in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="expected at most"):
        member.load(size - 1)


def test_a_member_that_is_larger_than_it_says(tmp_path):
    """Unpack only the 10 bytes that the archive states, although it holds 2^24."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/b.png", bytes(2**24))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 2**24), struct.pack("<I", 10)))
    (member,) = find(tmp_path, Download("a.zip", "a", "")).members.values()
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a.zip: cannot be read"):
            member.read()
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_unusual_archives_are_refused(tmp_path):
    """Refuse bzip2, which unpacks 1000 times its size at once, and long tar headers."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a/b.png", bytes(10))
    (member,) = find(tmp_path, Download("a.zip", "a", "")).members.values()
    with pytest.raises(UserError, match="compressed in an unusual way"):
        member.read()
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**32
    (tmp_path / "b.tar").write_bytes(header.tobuf() + bytes(2**20))
    with pytest.raises(UserError, match="b.tar: cannot be read .*a header of 4294967296 bytes"):
        find(tmp_path, Download("b.tar", "a", ""))


def test_masks_of_too_many_pixels(monkeypatch):
    monkeypatch.setattr("tools.prepare.official.masks.MAX_MEGAPIXELS", 0)
    with pytest.raises(ValueError, match="2x1 pixels, expected at most 0 million"):
        read_indices(png(np.zeros((1, 2), np.uint8)))
