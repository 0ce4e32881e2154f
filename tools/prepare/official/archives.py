"""A download as one thing, packed or unpacked: the files below its folder.

Nothing is extracted: files are read, and what is written gets its name from this project.  Still,
an archive with a name that leads out of a folder is refused, and so is a link among the files.
"""

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from dataset.folders import walk
from util.errors import UserError, print_error, reason

UNREADABLE = (
    OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, tarfile.TarError,
    zipfile.BadZipFile,
)  # fmt: skip
LARGEST = 2**28
"""Bytes of a member that is read whole; the downloads' images and volumes are far smaller."""
LARGEST_TEXT = 2**30
"""Bytes of a text; the annotations of COCO's training images are half of that."""
LARGEST_HEADER = 2**20
"""Bytes of a header of a tar file, which holds a long name or the like."""
HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


class Download(NamedTuple):
    """A file that an official page offers."""

    archive: str
    folder: str  # what it unpacks to; empty where that has no name to rely on
    page: str
    sign: str = ""  # what lies in that folder and tells it from others


class Member(NamedTuple):
    """A file of an archive."""

    archive: "Archive"
    name: str
    place: int  # reading in this order spares an archive to be unpacked again and again
    key: Any

    def read(self, largest: int = LARGEST) -> Any:
        """Return its bytes; the path where it is a file already, which can be linked.

        Raises `UserError` for more than `largest` bytes.
        """
        with self.archive.readable():
            self._refuse_large(self.archive.size(self.key), largest)
            return self.archive.content(self.key)

    def load(self) -> bytes:
        """Return the bytes of a text, in any case; raises as `read` does."""
        content = self.read(LARGEST_TEXT)
        return content.read_bytes() if isinstance(content, Path) else content

    def _refuse_large(self, size: int, largest: int) -> None:
        if size > largest:
            raise UserError(
                f"{self.archive.path}: its member '{self.name}' holds {size} bytes, expected at "
                f"most {largest}; this is not the official download"
            )

    def open(self) -> IO[bytes]:
        with self.archive.readable():
            return self.archive.open(self.key)


class Archive:
    """Files by their names below a download's folder; without a subclass, none.

    Raises `UserError` for an archive that is damaged or holds what leads out of a folder.
    """

    def __init__(self, path: Path, title: str):
        self.path, self.title = path, title
        self.members: dict[str, Member] = {}

    def size(self, key: Any) -> int:
        """The bytes that `content` reads at most."""
        return 0

    def content(self, key: Any) -> Any:
        raise NotImplementedError

    def open(self, key: Any) -> IO[bytes]:
        raise NotImplementedError

    def add(self, name: str, key: Any) -> None:
        if not name.rpartition("/")[2].startswith("._"):  # what macOS leaves beside files
            self.members[name] = Member(self, name, len(self.members), key)

    def files(self, folder: str, *suffixes: str) -> dict[str, Member]:
        """Members below `folder` with one of the suffixes, by their names without both."""
        prefix = f"{folder}/" if folder else ""
        return {
            name[len(prefix) : -len(suffix)]: member
            for name, member in self.members.items()
            for suffix in suffixes
            if name.startswith(prefix) and name.endswith(suffix)
        }

    def text(self, name: str) -> str:
        """A text file.  Raises `UserError` when there is none."""
        if name not in self.members:
            raise UserError(f"{self.path}: holds no {name}; download it again, whole")
        return self.members[name].load().decode()

    @contextmanager
    def readable(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            raise UserError(
                f"{self.path}: cannot be read ({reason(error)}); download it again "
                "if it is not whole"
            ) from None


class Folder(Archive):
    """What is unpacked already; its links lead nowhere out of the folder `source`."""

    def __init__(self, path: Path, title: str, source: Path):
        super().__init__(path, title)
        self.source = source.resolve()
        for folder, folders, names in walk(path):
            folders.sort()
            for file in (Path(folder, name) for name in sorted(names)):
                self.add(file.relative_to(path).as_posix(), file)

    def size(self, key: Path) -> int:
        return self.content(key).stat().st_size

    def content(self, key: Path) -> Path:
        """Return the file itself, without links on its path; raises `UserError` for one outside."""
        file = key.resolve()
        if not file.is_relative_to(self.source):
            raise UserError(
                f"{key}: refused, a link leads out of {self.source}; put the file itself there, or "
                "name the folder that holds it as --source"
            )
        if file.exists() and not file.is_file():
            raise UserError(f"{key}: refused, a device or pipe, not a file")
        return file

    def open(self, key: Path) -> IO[bytes]:
        return self.content(key).open("rb")


class _Header(tarfile.TarInfo):
    """The header of a member; those of `HEADERS` are read whole, so a long one is refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in HEADERS and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class Tar(Archive):
    """A tar file, compressed or not."""

    def __init__(self, path: Path, title: str, folder: str):
        super().__init__(path, title)
        with self.readable():
            self.file = tarfile.open(path, tarinfo=_Header)
            for info in self.file:
                name = name_below(folder, info.name, path)
                if name and not info.isdir():
                    _refuse_link(path, info.name, not info.isfile())
                    self.add(name, info)

    def size(self, key: tarfile.TarInfo) -> int:
        return key.size

    def content(self, key: tarfile.TarInfo) -> bytes:
        return self.open(key).read()

    def open(self, key: tarfile.TarInfo) -> IO[bytes]:
        file = self.file.extractfile(key)
        assert file, "only files were added"
        return file


class Zip(Archive):
    """A zip file, which may lie in another archive."""

    def __init__(self, path: Path, title: str, folder: str, file: IO[bytes] | None = None):
        super().__init__(path, title)
        with self.readable():
            self.file = zipfile.ZipFile(file or path)
            for info in sorted(self.file.infolist(), key=lambda info: info.header_offset):
                name = name_below(folder, info.filename, path)
                if name and not info.is_dir():
                    _refuse_link(path, info.filename, stat.S_ISLNK(info.external_attr >> 16))
                    self.add(name, info)

    def size(self, key: zipfile.ZipInfo) -> int:
        return key.file_size

    def content(self, key: zipfile.ZipInfo) -> bytes:
        with self.open(key) as file:
            return file.read(key.file_size + 1)  # unpacks no more, whatever there is

    def open(self, key: zipfile.ZipInfo) -> IO[bytes]:
        if key.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # of bounded chunks
            raise zipfile.BadZipFile(f"{key.filename} is compressed in an unusual way")
        return self.file.open(key)


def name_below(folder: str, name: str, path: Path) -> str:
    """A member's name below `folder`, wherever that lies; empty for what is not of interest.  Where
    no folder is named, all is.

    Raises `UserError` for a name that would lead out of the folder it is unpacked to.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or re.match(r"[/\\]|[A-Za-z]:", name):
        raise UserError(f"{path}: refused, its member '{name}' leads out of the folder")
    whole = "/".join(parts)
    return f"/{whole}".partition(f"/{folder}/")[2] if folder else whole


def _refuse_link(path: Path, name: str, link: bool) -> None:
    if link:
        raise UserError(f"{path}: refused, its member '{name}' is a link or device, not a file")


def find(source: Path, download: Download) -> Archive | None:
    """A download in the folder `source`: its archive, else what it was unpacked to.

    An archive comes first since it is whole or visibly damaged; a folder may be half unpacked.
    """
    title, folder, _, sign = download
    packed = source / title
    if packed.is_file():
        print(f"reading {packed}", flush=True)
        kind = Zip if title.endswith(".zip") else Tar
        return kind(packed, title, folder)
    candidates = [source / folder, source / title.partition(".")[0] / folder]
    if sign:
        candidates.append(source)
    for path in candidates:
        if path.is_dir() and (path / sign).exists():
            print(f"reading {path}", flush=True)
            return Folder(path, title, source)
    return None


def find_all(
    source: Path, needed: list[tuple[Download, ...]], partial: bool
) -> dict[Download, Archive]:
    """What `source` holds of the downloads; those that are not there are empty.

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
        f"--source {source}: lacks {'; '.join(texts)}; download what is missing, packed or unpacked"
    )
