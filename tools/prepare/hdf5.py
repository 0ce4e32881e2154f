"""Arrays of numbers in HDF5 files of unknown origin: nothing outside the file is read."""

from typing import Any

from util.optional import import_optional


def array_fault(group: Any, key: str, largest: int) -> str:
    """Return why a member of a group is no array of numbers of at most `largest` bytes in the file
    itself; '' where it is."""
    h5py = import_optional("h5py", "HDF5")
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        return "is a link"
    found = group[key]
    if not isinstance(found, h5py.Dataset):
        return f"is a {type(found).__name__.lower()}"
    if found.dtype.kind not in "buif":
        return f"holds values of type {found.dtype}"
    if found.nbytes > largest:
        return f"holds {found.nbytes} bytes (at most {largest})"
    return "is kept in another file" if found.external or found.is_virtual else ""
