"""Downloads, packed or unpacked: the files below a folder.

Nothing is extracted: members are read, and written under names of this project. An archive with a
name that leads out of its folder, or with a link, is refused anyway.
"""

import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from dataset.folders import walk
from util.errors import UserError, print_error, reason

LARGEST = 2**28
"""Most bytes of a member; images and volumes of the downloads are far smaller."""
LARGEST_TEXT = 2**30
"""Most bytes of a text; the annotations of COCO's training images are half of that."""
LARGEST_HEADER = 2**20
"""Most bytes of a header of a tar file, such as of a long name."""
HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


class Download(NamedTuple):
    """A file that an official page offers."""

    archive: str
    folder: str
    """Folder that it unpacks to; "" if its name varies."""
    page: str
    marker_path: str = ""
    """A path in that folder that other downloads lack."""


class Member(NamedTuple):
    """A file of an archive."""

    archive: "Archive"
    name: str
    place: int
    """Position; reading in this order avoids unpacking an archive several times."""
    file: Callable[[], Any]
    """Opens it; returns the path of an unpacked file."""
    size: int
    """Bytes of a packed file."""

    def read(self, largest: int = LARGEST) -> Any:
        """Return the member's bytes, or the path of an unpacked file, which can be linked.

        Raises `UserError` for more than `largest` bytes.
        """
        with self.archive.reporting("cannot be read"):
            file = self.file()
            size = file.stat().st_size if isinstance(file, Path) else self.size
            if size > largest:
                raise UserError(
                    f"{self.archive.path}: its member '{self.name}' holds {size} bytes, expected "
                    f"at most {largest}; this is not the official download"
                )
            if not hasattr(file, "read"):
                return file
            with file:
                return file.read(size + 1)  # unpacks no more than the archive states

    def load(self, largest: int) -> bytes:
        """Return the member's bytes, also of an unpacked file; raises as `read` does."""
        content = self.read(largest)
        return content.read_bytes() if isinstance(content, Path) else content

    def text(self) -> str:
        """Return the member's text; raises `UserError` as `read` does, and for other encodings."""
        with self.reporting("is not UTF-8 text"):
            return self.load(LARGEST_TEXT).decode()

    def reporting(self, problem: str) -> AbstractContextManager[None]:
        """Turn any error into a `UserError` with this problem, such as "cannot be converted"."""
        return self.archive.reporting(f"{self.name} {problem}")


class Archive:
    """Files by their names below a download's folder; none at first."""

    def __init__(self, path: Path, title: str):
        self.path, self.title = path, title
        self.members: dict[str, Member] = {}

    def add(self, name: str, file: Callable[[], Any], size: int = 0) -> None:
        if not name.rpartition("/")[2].startswith("._"):  # metadata of macOS
            self.members[name] = Member(self, name, len(self.members), file, size)

    def files(self, pattern: str) -> dict[str, Member]:
        """Return members whose path fits a pattern such as images/{}.jpg, by the text at the {}."""
        prefix, _, suffix = pattern.partition("{}")
        return {
            name[len(prefix) : len(name) - len(suffix)]: member
            for name, member in self.members.items()
            if name.startswith(prefix) and name.endswith(suffix)
        }

    def text(self, name: str) -> str:
        """Return a text file; raises `UserError` when there is none."""
        if name not in self.members:
            raise UserError(f"{self.path}: holds no {name}. Fix: download it again")
        return self.members[name].text()

    @contextmanager
    def reporting(self, problem: str) -> Iterator[None]:
        """Turn any error into a `UserError` with this problem."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # damaged files raise any exception
            raise UserError(
                f"{self.path}: {problem} ({reason(error)}). Fix: download it again"
            ) from None


def unpacked(path: Path, title: str, source: Path) -> Archive:
    """Return the files of a folder in `source`, which may be a link."""
    archive, roots = Archive(path, title), (source.resolve(), path.resolve())
    for folder, _, names in walk(path):
        for file in (Path(folder, name) for name in names):
            archive.add(file.relative_to(path).as_posix(), partial(_inside, file, *roots))
    return archive


def _inside(path: Path, source: Path, folder: Path) -> Path:
    """Return a file without links on its path; raises `UserError` for one outside of both."""
    file = path.resolve()
    if not file.is_relative_to(source) and not file.is_relative_to(folder):
        raise UserError(
            f"{path}: refused, a link leads out of {source}. Fix: put the file itself there, or "
            "name the folder that holds it as --source"
        )
    if file.exists() and not file.is_file():
        raise UserError(f"{path}: refused, a device or pipe, not a file")
    return file


class _Header(tarfile.TarInfo):
    """The header of a member; refuses long ones of `HEADERS`, which tarfile reads at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in HEADERS and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def read_tar(path: Path, title: str, folder: str) -> Archive:
    """Return the files of a tar file, compressed or not.

    Raises `UserError` for an archive that is damaged or has members outside of its folder.
    """
    archive = Archive(path, title)
    with archive.reporting("cannot be read"):
        tar = tarfile.open(path, tarinfo=_Header)
        for info in tar:
            name = name_below(folder, info.name, path)
            if name and not info.isdir():
                if not info.isfile():
                    raise _link_error(path, info.name)
                archive.add(name, partial(tar.extractfile, info), info.size)
    return archive


def read_zip(path: Path, title: str, folder: str, file: IO[bytes] | None = None) -> Archive:
    """Return the files of a zip file, which may itself be a `file` of an archive; raises as
    `read_tar`."""
    archive = Archive(path, title)
    with archive.reporting("cannot be read"):
        packed = zipfile.ZipFile(file or path)
        for info in sorted(packed.infolist(), key=lambda info: info.header_offset):
            name = name_below(folder, info.filename, path)
            if name and not info.is_dir():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise _link_error(path, info.filename)
                archive.add(name, partial(_open_zipped, packed, info), info.file_size)
    return archive


def _open_zipped(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    # Other methods could unpack a chunk to any size.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{info.filename} is compressed in an unusual way")
    return packed.open(info)


def name_below(folder: str, name: str, path: Path) -> str:
    """Return a member's name below `folder`, at any depth; '' for one elsewhere. Without a folder,
    every name counts.

    Raises `UserError` for a name that would lead out of the folder it is unpacked to.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or re.match(r"[/\\]|[A-Za-z]:", name):
        raise UserError(f"{path}: refused, its member '{name}' leads out of the folder")
    whole = "/".join(parts)
    return f"/{whole}".partition(f"/{folder}/")[2] if folder else whole


def _link_error(path: Path, name: str) -> UserError:
    return UserError(f"{path}: refused, its member '{name}' is a link or device, not a file")


def find(source: Path, download: Download) -> Archive | None:
    """Return a download in the folder `source`: its archive, else the folder it was unpacked to.

    The archive is preferred: it is complete or visibly damaged; a folder may be half unpacked.
    """
    title, folder, _, marker_path = download
    packed = source / title
    if packed.is_file():
        print(f"reading {packed}", flush=True)
        read = read_zip if title.endswith(".zip") else read_tar
        archive = read(packed, title, folder)
        if not archive.members:
            raise UserError(
                f"{packed}: found no files below {folder or '.'}/, so it is another download, or "
                "incomplete. Fix: download it again"
            )
        return archive
    top = title.partition(".")[0]
    clone = top.removesuffix("-master")
    candidates = [source / folder, source / top / folder, source / clone / folder]
    if marker_path:
        candidates += [source / top, source]
    for path in (inner for p in candidates for inner in (p / p.name, p)):  # gtFine/gtFine, gtFine
        if path.is_dir() and (path / marker_path).exists():
            print(f"reading {path}", flush=True)
            return unpacked(path, title, source)
    return None


def find_all(
    source: Path, needed: Iterable[tuple[Download, ...]], partial: bool
) -> dict[Download, Archive]:
    """Return the downloads that are in `source`; the others are empty.

    Args:
        needed: at least one download of each group must be there.
        partial: one of any group will do.

    Raises `UserError` naming each download that is missing, and its page.
    """
    if not source.is_dir():
        raise UserError(f"--source {source}: no such folder; expected the one with the downloads")
    groups = [{download: find(source, download) for download in group} for group in needed]
    lacking = [group for group in groups if not any(group.values())]
    if lacking and (not partial or len(lacking) == len(groups)):
        raise UserError(_lacks(source, lacking))
    if lacking:
        print_error(f"warning: {_lacks(source, lacking)}")
    return {
        download: found or Archive(source / download.archive, download.archive)
        for group in groups
        for download, found in group.items()
    }


def _lacks(source: Path, groups: list[dict[Download, Archive | None]]) -> str:
    texts = [" or ".join(f"{d.archive} ({d.page})" for d in group) for group in groups]
    return (
        f"--source {source}: lacks {'; '.join(texts)}. Fix: download missing files, packed or "
        "unpacked"
    )
