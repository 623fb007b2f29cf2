"""The results that ship with the course: few files, which `packing.pack` writes and lessons only read.

    metrics.csv                 a row per run: key, groups, name, seed, recipe, file of its logits, every metric
    history.csv.gz              a row per run and epoch
    provenance.json             where each run's numbers come from, and the SHA-256 of every other file
    logits/GROUP.safetensors    float16 logits of a group's runs, named KEY/NAME; written once
    models/KEY.safetensors      a trained network in float16 or float32, with its recipe

The three tables are small and are written anew when a group is added. A run's logits stand in one file: that of
the part before "/" in the name of the first group that the run was packed with. `packed_tensors` says how tensors are
stored. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from udlib.course import packed_tables, packed_tensors
from udlib.course.packed_tables import History, Row

FORMAT = 1
METRICS, HISTORY, PROVENANCE = "metrics.csv", "history.csv.gz", "provenance.json"
# The folder of new files that `pack` is moving to their places, or was when it was killed: they count already.
MOVING = ".packed"

Stamp = tuple[int, int] | None  # time of the last change and size of a file; None where there is none


class PackedResults:
    """The packed results in a folder, empty where none are.

    The tables are parsed once per process, and again when they change. Every file is compared with its SHA-256 before
    anything is taken from it. A missing, damaged or pickled file raises ValueError, which names the file and a remedy.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()

    def keys(self) -> set[str]:
        """The keys of all packed runs."""
        return set(self._tables.rows)

    def row(self, key: str) -> Row | None:
        """A run's row of metrics.csv, without reading any other table; None where the run is not packed."""
        tables = self._tables
        return packed_tables.metrics_row(tables.columns, tables.rows[key]) if key in tables.rows else None

    def state(self, key: str) -> dict[str, Any] | None:
        """Recipe, metrics, history and provenance of a run; None where it is not packed."""
        row, tables = self.row(key), self._tables
        if row is None:
            return None
        try:
            provenance = packed_tables.provenance_of(tables.sources, key)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            _refuse(self.folder, f"'{_file_of(self.folder, PROVENANCE)}' does not describe the run {key} ({error!r})")
        history = tables.history.epochs(key)
        return {"recipe": row.recipe, "metrics": row.metrics, "history": history, "provenance": provenance}

    def find(self, key: str, logits: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """A run's state and its logits, or None where it is not packed."""
        state = self.state(key)
        return None if state is None else (state, self.logits(key) if logits else {})

    def has_network(self, key: str) -> bool:
        """Whether the trained network of a recipe is packed."""
        return key in self.network_keys()

    def rows(self) -> dict[str, Row]:
        """The rows of all runs by key."""
        return {key: packed_tables.metrics_row(self._tables.columns, cells) for key, cells in self._tables.rows.items()}

    def states(self) -> dict[str, dict[str, Any]]:
        """The states of all runs by key."""
        return {key: state for key in self._tables.rows if (state := self.state(key)) is not None}

    def logits(self, key: str) -> dict[str, Tensor]:
        """The float16 logits of a run by name; none where they do not ship, or the run is not packed."""
        row = self.row(key)
        if row is None or not row.logits:
            return {}
        name = f"logits/{row.logits}.safetensors"
        tensors, _ = self._tensors(name, f"{key}/")
        if not tensors:
            _refuse(
                self.folder, f"'{_file_of(self.folder, name)}' holds no logits of {key}, but {METRICS} says it does"
            )
        return tensors

    def network_keys(self) -> set[str]:
        """The keys of the recipes whose trained network is packed."""
        return {Path(name).stem for name in self.digests if name.startswith("models/")}

    def network(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state of a trained network with float32 numbers, and its recipe; None where it is not packed."""
        name = f"models/{key}.safetensors"
        if name not in self.digests:
            return None
        tensors, metadata = self._tensors(name)
        if "recipe" not in metadata:
            _refuse(
                self.folder, f"'{_file_of(self.folder, name)}' does not say which recipe its network was trained by"
            )
        numbers = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        return numbers, json.loads(metadata["recipe"])

    @property
    def digests(self) -> Mapping[str, str]:
        """The SHA-256 of each packed file, by its name in the folder; `provenance.json` itself has none."""
        return self._tables.sources["files"]

    @property
    def _tables(self) -> _Tables:
        return _parsed(self.folder, *(_stamp(_file_of(self.folder, name)) for name in (PROVENANCE, METRICS, HISTORY)))

    def _tensors(self, name: str, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors of a file whose names start with `prefix`, without it, and the file's metadata."""
        path = _file_of(self.folder, name)
        if name not in self.digests:
            _refuse(self.folder, f"'{_file_of(self.folder, PROVENANCE)}' does not list '{name}'")
        _require_intact(self.folder, path, _stamp(path), self.digests[name])
        try:
            tensors, metadata = packed_tensors.read_tensors(path, lambda name: name.startswith(prefix))
        except ValueError as error:
            _refuse(self.folder, f"'{path}' {error}", error)
        return {name.removeprefix(prefix): value for name, value in tensors.items()}, metadata


@dataclass(frozen=True)
class _Tables:
    """What the tables in a folder hold. The history, the largest, is read only where it is needed."""

    folder: Path
    columns: Sequence[str]  # of metrics.csv
    rows: Mapping[str, Sequence[str]]  # its cells, by key
    sources: Mapping[str, Any]  # provenance.json

    @cached_property
    def history(self) -> History:
        path = _file_of(self.folder, HISTORY)
        _require_intact(self.folder, path, _stamp(path), self.sources["files"][HISTORY])
        return packed_tables.split_history(path.read_bytes())


@lru_cache(maxsize=8)
def _parsed(folder: Path, sources_stamp: Stamp, metrics_stamp: Stamp, history_stamp: Stamp) -> _Tables:
    """The tables of a folder. The stamps of the three files are arguments so that a changed file is read again."""
    if sources_stamp is metrics_stamp is history_stamp is None:
        return _Tables(folder, [], {}, {"files": {}})
    path, metrics = _file_of(folder, PROVENANCE), _file_of(folder, METRICS)
    if sources_stamp is None:
        _refuse(folder, f"packed results lack the file '{path}', which has the SHA-256 of the others")
    try:
        sources = json.loads(path.read_bytes())
        version, digest, _ = sources["format"], sources["files"][METRICS], sources["files"][HISTORY]
    except (ValueError, KeyError, TypeError) as error:
        _refuse(folder, f"'{path}' is damaged ({error!r})", error)
    if version != FORMAT:
        _refuse(folder, f"'{path}' has format {version}, but this version reads format {FORMAT}")
    _require_intact(folder, metrics, metrics_stamp, digest)
    try:
        columns, rows = packed_tables.split_metrics(metrics.read_bytes())
    except ValueError as error:
        _refuse(folder, f"'{metrics}' {error}", error)
    return _Tables(folder, columns, rows, sources)


@lru_cache(maxsize=1024)
def _require_intact(folder: Path, path: Path, stamp: Stamp, digest: str) -> None:
    """Refuse a file that is missing or differs from what was packed; a file with the same stamp is checked once."""
    if stamp is None:
        _refuse(folder, f"packed results lack the file '{path}'")
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        _refuse(folder, f"'{path}' is damaged, it differs from what was packed")


def _file_of(folder: Path, name: str) -> Path:
    """Where a packed file is: in its place, or among those that a killed `pack` has yet to move there."""
    moving = folder / MOVING / name
    return moving if moving.exists() else folder / name


def _stamp(path: Path) -> Stamp:
    """Changes whenever a file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _refuse(folder: Path, problem: str, cause: Exception | None = None) -> NoReturn:
    """Raise ValueError with a problem of packed results and its remedy."""
    raise ValueError(
        f"{problem}: restore '{folder}' from the repository (`git checkout -- {folder}`), "
        "or delete it and pack it again with `udlib pack`"
    ) from cause
