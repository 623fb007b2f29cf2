"""The archives of PASCAL VOC: downloaded, checked, and extracted into one VOCdevkit."""

import errno
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import calculate_md5
from torchvision.datasets.voc import DATASET_YEAR_DICT

from udlib.datasets.voc_lists import check_complete, find_root, read_split
from udlib.progress import track

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a single byte


@dataclass(frozen=True)
class Archive:
    """One tar file of VOC."""

    url: str  # where it is published
    filename: str
    md5: str  # as torchvision knows it
    year: int
    split: str  # that it must contain


def archives(name: str) -> list[Archive]:
    """List the archives of a data set.

    Args:
        name: "voc2007" (two archives, one of them the test set) or "voc2012" (its test labels are not public).

    Returns:
        The archives.

    Raises:
        ValueError: The data set has another name.
    """
    parts = {"voc2007": (("2007", "trainval"), ("2007-test", "test")), "voc2012": (("2012", "trainval"),)}
    if name not in parts:
        raise ValueError(
            f"'{name}' cannot be downloaded: choose {' or '.join(parts)}; data/README.md says how to lay out "
            "COCO and NUS-WIDE, whose terms ask you to fetch them yourself"
        )
    known = DATASET_YEAR_DICT
    return [
        Archive(*(known[key][field] for field in ("url", "filename", "md5")), int(name[3:]), split)
        for key, split in parts[name]
    ]


def download(root: Path, parts: Sequence[Archive]) -> Iterator[str]:
    """Download and extract archives.

    What is complete is left alone, an interrupted download is resumed, and an interrupted extraction is completed.
    Nothing of an archive is extracted before all of it is checked. The archives stay; you may delete them afterwards.

    Args:
        root: The folder for the archives and for VOCdevkit.
        parts: The archives.

    Yields:
        A sentence about each step.

    Raises:
        ValueError: A checksum is wrong, or an archive has unsafe members.
        OSError: The network or the disk fails.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for archive in parts:
        path = root / archive.filename
        if not path.exists() and is_complete(root, archive):
            yield f"{archive.split} of VOC{archive.year}: complete already"
            continue
        if not path.exists():
            yield f"{archive.filename}: from {archive.url}"
            fetch(archive, root)
        elif (md5 := calculate_md5(path)) != archive.md5:
            raise ValueError(
                f"'{path}' has the MD5 {md5}, expected {archive.md5}: it is half a download or another "
                "file; delete it and run this again"
            )
        yield f"{archive.filename}: checksum is right"
        count = extract(path, root)
        yield f"{archive.filename}: {count} files extracted" if count else f"{archive.filename}: all extracted already"
        if not is_complete(root, archive):
            raise ValueError(
                f"'{path}' does not bring a complete split '{archive.split}' of VOC{archive.year}: look at '{root}'"
            )


def is_complete(root: Path, archive: Archive) -> bool:
    """Tell whether every image and annotation of an archive's split is below `root`.

    Args:
        root: The folder that holds VOCdevkit.
        archive: The archive.

    Returns:
        False where anything is missing.
    """
    try:
        folder = find_root(root, archive.year)
        check_complete(folder, archive.split, read_split(folder, archive.split))
    except (FileNotFoundError, ValueError):
        return False
    return True


def fetch(archive: Archive, root: Path) -> Path:
    """Download one archive. Its name ends in `.part` until it is whole and its MD5 is right.

    Args:
        archive: The archive.
        root: The folder for it.

    Returns:
        The downloaded file.

    Raises:
        OSError: The network or the disk fails. What arrived stays, and the next call resumes there.
        ValueError: The checksum is wrong. The download is deleted, since resuming it would not help.
    """
    part = root / f"{archive.filename}.part"
    again = f"run this again to go on, or fetch it with a browser and put it into '{root}'"
    size_before = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        archive.url, headers={"User-Agent": "udlib"} | ({"Range": f"bytes={size_before}-"} if size_before else {})
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            resumes = size_before > 0 and response.status == 206  # any other answer starts from the first byte
            start = size_before if resumes else 0
            total = start + int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
            _require_space(root, (total or 0) - start, archive.filename)
            with open(part, "ab" if resumes else "wb") as file:
                chunks = None if total is None else -(-(total - start) // CHUNK)
                with track(total=chunks, description=archive.filename, unit="MiB") as bar:
                    while chunk := response.read(CHUNK):
                        file.write(chunk)
                        bar.update()
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": nothing is left to fetch
            raise OSError(f"cannot download '{archive.url}' ({error.code} {error.reason}): {again}") from error
        total = size_before
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"download of '{archive.url}' stopped ({reason}): {again}") from error
    if total is not None and (size := part.stat().st_size) < total:
        raise OSError(f"'{archive.url}' stopped after {size:,} of {total:,} bytes: {again}")
    if (md5 := calculate_md5(part)) != archive.md5:
        part.unlink()
        raise ValueError(
            f"'{archive.url}' has the MD5 {md5}, expected {archive.md5}: the download is deleted; run this again, and if the MD5 "
            "is wrong again, the archive has changed since torchvision listed it"
        )
    os.replace(part, root / archive.filename)
    return root / archive.filename


def _require_space(root: Path, needed: int, what: str) -> None:
    """Refuse to write so many bytes to a disk that has less space left."""
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"'{what}' needs {needed / 1e9:.1f} GB and the disk of '{root}' has "
            f"{free / 1e9:.1f} GB left: free some space, or choose another root",
        )


def extract(path: Path, root: Path) -> int:
    """Extract the files that are not there yet, or have the wrong size.

    Every member is checked before the first is written.

    Args:
        path: The archive.
        root: The folder to extract into.

    Returns:
        The number of extracted files.

    Raises:
        ValueError: The archive is damaged, or a member leads out of `root`, or is not a file or a folder: a data set
            needs no links.
        OSError: The disk is too full.
        RuntimeError: This version of Python cannot extract safely.
    """
    if not hasattr(tarfile, "data_filter"):
        raise RuntimeError(f"this Python cannot extract archives safely: use 3.11.4 or later, or `tar -xf {path.name}`")
    try:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for member in members:
                _require_safe(path, member, root)
            missing = [member for member in members if member.isfile() and not _is_there(root / member.name, member)]
            _require_space(root, sum(member.size for member in missing), path.name)
            for member in track(missing, description="extracting", unit="files"):
                tar.extract(member, root, filter="data")
    except tarfile.TarError as error:
        raise ValueError(f"'{path}' is not a readable tar archive ({error}): delete it and fetch it again") from error
    return len(missing)


def _require_safe(path: Path, member: tarfile.TarInfo, root: Path) -> None:
    """Refuse a member that is not a file or a folder inside `root`."""
    try:
        if not (member.isfile() or member.isdir()):
            raise ValueError("it is a link or a device")
        if member.name.startswith(("/", "\\")) or ":" in member.name:
            raise ValueError("it is an absolute path")
        if ".." in Path(member.name.replace("\\", "/")).parts:
            raise ValueError("its path climbs")
        tarfile.data_filter(member, str(root))
    except (ValueError, tarfile.FilterError) as error:
        raise ValueError(
            f"'{path}' holds '{member.name}', which is unsafe to extract ({error}): nothing is extracted; "
            "fetch the archive from its publisher"
        ) from error


def _is_there(path: Path, member: tarfile.TarInfo) -> bool:
    """Whether the member is extracted already, judged by its size."""
    try:
        return path.stat().st_size == member.size
    except (FileNotFoundError, NotADirectoryError):
        return False
