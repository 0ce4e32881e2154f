"""Match annotations with images by the names in them."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from dataset.image_files import IMAGE_SUFFIXES
from tools.prepare.annotations.types import ImageAnnotation
from tools.prepare.faults import raise_all_faults
from util.errors import UserError
from util.paths import nfc

Parts = tuple[str, ...]
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""Prefix that Label Studio gives the names of uploaded files."""


class ImageFolder:
    """The images of a folder, by the ends of their paths.

    `names`: in the annotations. If some names include parent folders of the image folder, a
    relative name that matches fewer parents belongs to another folder.
    """

    def __init__(self, folder: Path, images: Mapping[str, Path], names: Collection[str]):
        self.images = images
        # Label Studio's prefixes are random: one of several names is another text, such as a date.
        self.prefixes = Counter(map(_prefix, names))
        self.above = tuple(nfc(part) for part in folder.parts)
        self.keys = {_stem(path.relative_to(folder).as_posix()): k for k, path in images.items()}
        self.by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for stem in self.keys:
            parts = tuple(stem.split("/"))
            self.by_name[parts[-1]].append(parts)
        self.by_stored_name: dict[str, list[str]] = defaultdict(list)
        for key, path in images.items():
            # macOS may have uploaded decomposed accents, which are dropped.
            for stem in {_stored_stem(unicodedata.normalize(f, path.name)) for f in ("NFC", "NFD")}:
                self.by_stored_name[stem].append(key)
        depths = (
            common - len(image)
            for stem in map(_stem, names)
            if not _is_absolute(stem)
            for image, common in self._agreements(_parts(stem))
        )
        self.depth = max(depths, default=0)

    def find(self, name: str) -> list[str]:
        """Return the keys of the images that a name may mean; several for an ambiguous name."""
        stem = _stem(name)
        for whole in (nfc(name.replace("\\", "/")), stem):  # the first of p.jpeg.jpg: p.jpeg
            if whole in self.keys:
                return [self.keys[whole]]
        parts = _parts(stem)
        elsewhere = _is_absolute(stem)  # on the annotator's machine
        fitting: dict[int, list[str]] = defaultdict(list)
        for image, common in self._agreements(parts):
            if not elsewhere and common < len(parts) and common - len(image) < self.depth:
                continue
            if common in (len(parts), len(image)) or common > len(image) or elsewhere:
                fitting[common].append(self.keys["/".join(image)])
        return fitting[max(fitting)] if fitting else []

    def find_uploaded(self, name: str) -> list[str]:
        """Return the keys of the images that Label Studio may have stored under a name."""
        return self.by_stored_name.get(_stored_stem(nfc(name)), [])

    def image_of(self, annotation: ImageAnnotation) -> str | None:
        """Return the key of an annotation's image; None without one.

        Raises `UserError` for a name that may be several images, and for names that disagree.
        """
        prefixed = [name for name in annotation.names if self.prefixes[_prefix(name)] == 1]
        shorter = [_last(name)[len(prefix) :] for name in prefixed if (prefix := _prefix(name))]
        finds = chain(
            map(self.find, (*annotation.names, *shorter)), map(self.find_uploaded, shorter)
        )
        keys = next(filter(None, finds), [])
        if len(keys) > 1:
            raise UserError(
                f"{annotation.file}: '{annotation.names[0]}' may be {self._two(keys)}; "
                "expected one image"
            )
        meant = {key for name in annotation.names for key in self.find(name)}
        if annotation.names_agree and len(meant) > 1:
            raise UserError(
                f"{annotation.file}: the image named in it and the file's own name mean "
                f"{self._two(meant)}; expected one image. Fix: correct imagePath"
            )
        return keys[0] if keys else None

    def _two(self, keys: Iterable[str]) -> str:
        return " and ".join(str(self.images[key]) for key in sorted(keys)[:2])

    def _agreements(self, parts: Parts) -> Iterator[tuple[Parts, int]]:
        """Yield the path in the folder of each image that a path may mean, and the number of parts
        at their ends that agree, the folders above included."""
        for image in self.by_name.get(parts[-1] if parts else "", []):
            yield image, len(os.path.commonprefix([parts[::-1], (*self.above, *image)[::-1]]))


def match_annotations(
    annotations: Sequence[ImageAnnotation], folder: Path, images: Mapping[str, Path]
) -> tuple[dict[str, ImageAnnotation], list[str]]:
    """Find the annotation of each image; returns it by the image's key in `images`, and the names
    in annotations without an image.

    A name belongs to the image whose path it ends, or whose path in the folder ends it; suffixes do
    not count. Raises `UserError`, once all faults are printed, as `ImageFolder.image_of` does, and
    for two annotations of one image.
    """
    known = ImageFolder(
        folder, images, {name for annotation in annotations for name in annotation.names}
    )
    found: dict[str, ImageAnnotation] = {}
    lost: list[str] = []
    faults: list[UserError] = []
    for annotation in annotations:
        try:
            key = known.image_of(annotation)
        except UserError as error:
            faults.append(error)
            continue
        if key is None:
            lost.append(annotation.names[0])
        elif not (key in found and found[key].is_annotated):
            found[key] = annotation
        elif annotation.is_annotated:
            faults.append(
                UserError(
                    f"{annotation.file}: {images[key]} is annotated in {found[key].file} too, or "
                    "twice; expected one annotation of an image"
                )
            )
    raise_all_faults(faults)
    return found, lost


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _prefix(name: str) -> str:
    """Return Label Studio's prefix of a name; "" without one."""
    found = UPLOADED.match(_last(name))
    return found[0] if found else ""


def _stored_stem(name: str) -> str:
    """Return the stem of a file name as Label Studio stores uploads (Django's get_valid_filename):
    `_` for spaces, and no other characters than letters, digits, `-`, `_` and `.`."""
    return _stem(re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_")))


def _is_absolute(stem: str) -> bool:
    return bool(re.match(r"/|[A-Za-z]:/|\w+://", stem))


def _parts(stem: str) -> Parts:
    return tuple(part for part in stem.split("/") if part not in ("", ".", ".."))


def _stem(name: str) -> str:
    """Return a path without the suffix of an image."""
    stem, suffix = os.path.splitext(nfc(name.replace("\\", "/")))
    return stem if suffix.lower() in IMAGE_SUFFIXES else stem + suffix
