"""Where PASCAL VOC comes from: its archives fetched, checked and extracted into one VOCdevkit."""

import errno
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

from torchvision.datasets.utils import calculate_md5
from torchvision.datasets.voc import DATASET_YEAR_DICT

from udlib.datasets.voc import check_complete, find_root, read_split
from udlib.progress import track

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a single byte


@dataclass(frozen=True)
class Archive:
    """One tar file: where it is published, its MD5 as torchvision knows it, and the split that it must bring."""

    url: str
    filename: str
    md5: str
    year: int
    split: str


def archives(name: str) -> list[Archive]:
    """The archives of "voc2007" (two, of which one is the test set) or "voc2012" (the labels of its test are secret)."""
    wanted = {"voc2007": (("2007", "trainval"), ("2007-test", "test")), "voc2012": (("2012", "trainval"),)}
    if name not in wanted:
        raise ValueError(
            f"'{name}' cannot be downloaded: choose {' or '.join(wanted)}; data/README.md says how to lay out "
            "COCO and NUS-WIDE, whose terms ask you to fetch them yourself"
        )
    known = DATASET_YEAR_DICT
    return [
        Archive(*(known[key][part] for part in ("url", "filename", "md5")), int(name[3:]), split)
        for key, split in wanted[name]
    ]


def download(root: Path, wanted: Sequence[Archive]) -> Iterator[str]:
    """Fetch and extract these archives below `root`, into `VOCdevkit`; says in words what is done, step by step.

    What is complete is left alone, half a download goes on where it stopped, half an extraction is completed. Raises
    ValueError for a wrong checksum and an archive with unsafe members, OSError for network and disk; nothing of an
    archive is extracted before all of it is checked. The archives stay, and may be deleted when all is done.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for archive in wanted:
        path = root / archive.filename
        if not path.exists() and is_complete(root, archive):
            yield f"{archive.split} of VOC{archive.year}: complete already"
            continue
        if not path.exists():
            yield f"{archive.filename}: from {archive.url}"
            fetch(archive, root)
        elif (found := calculate_md5(path)) != archive.md5:
            raise ValueError(
                f"'{path}' has the MD5 {found}, expected {archive.md5}: it is half a download or another "
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
    """Whether every image and annotation of the archive's split stands below `root`."""
    try:
        folder = find_root(root, archive.year)
        check_complete(folder, archive.split, read_split(folder, archive.split))
    except (FileNotFoundError, ValueError):
        return False
    return True


def fetch(archive: Archive, root: Path) -> Path:
    """Download one archive to `root`; it has the name `….part` until it is whole and its MD5 is right.

    Raises OSError for a network or disk that fails (what came so far stays, and the next call goes on from there),
    ValueError for a wrong checksum (the download is deleted, since going on would not mend it).
    """
    part = root / f"{archive.filename}.part"
    again = f"run this again to go on, or fetch it with a browser and put it into '{root}'"
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        archive.url, headers={"User-Agent": "udlib"} | ({"Range": f"bytes={have}-"} if have else {})
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            goes_on = have > 0 and response.status == 206  # another answer starts from the first byte
            start = have if goes_on else 0
            total = start + int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
            _require_space(root, (total or 0) - start, archive.filename)
            with open(part, "ab" if goes_on else "wb") as file:
                size = None if total is None else -(-(total - start) // CHUNK)
                with track(total=size, description=archive.filename, unit="MiB") as bar:
                    while chunk := response.read(CHUNK):
                        file.write(chunk)
                        bar.update()
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": nothing is left to fetch
            raise OSError(f"cannot download '{archive.url}' ({error.code} {error.reason}): {again}") from error
        total = have
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"download of '{archive.url}' stopped ({reason}): {again}") from error
    if total is not None and (came := part.stat().st_size) < total:
        raise OSError(f"'{archive.url}' stopped after {came:,} of {total:,} bytes: {again}")
    if (found := calculate_md5(part)) != archive.md5:
        part.unlink()
        raise ValueError(
            f"'{archive.url}' came with the MD5 {found}, expected {archive.md5}: what came is deleted; "
            "run this again, and if it stays so, the source is not the one that torchvision knows"
        )
    os.replace(part, root / archive.filename)
    return root / archive.filename


def _require_space(root: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"'{what}' needs {needed / 1e9:.1f} GB and the disk of '{root}' has "
            f"{free / 1e9:.1f} GB left: free some space, or choose another root",
        )


def extract(path: Path, root: Path) -> int:
    """Extract what is not there yet, or not of the right size; returns the number of files.

    Every member is checked before the first is written: ValueError for one that leads out of `root`, and for anything
    but files and folders, since a data set needs no links. Raises OSError where the disk is too small.
    """
    if not hasattr(tarfile, "data_filter"):
        raise RuntimeError(f"this Python cannot extract archives safely: use 3.11.4 or later, or `tar -xf {path.name}`")
    try:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for member in members:
                _require_safe(path, member, root)
            lacking = [member for member in members if member.isfile() and not _is_there(root / member.name, member)]
            _require_space(root, sum(member.size for member in lacking), path.name)
            for member in track(lacking, description="extracting", unit="files"):
                tar.extract(member, root, filter="data")
    except tarfile.TarError as error:
        raise ValueError(f"'{path}' is no readable tar archive ({error}): delete it and fetch it again") from error
    return len(lacking)


def _require_safe(path: Path, member: tarfile.TarInfo, root: Path) -> None:
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
    try:
        return path.stat().st_size == member.size
    except (FileNotFoundError, NotADirectoryError):
        return False
