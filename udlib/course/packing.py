"""Packing results: from one folder per run to the few files that `packed.PackedResults` reads.

All new files are first written into a folder of their own. One renaming of that folder makes all of them count, and
then each is moved to its place. So whenever `pack` is killed, a reader finds all old files, or all new ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from udlib.course import packed_tables
from udlib.course.packed import FORMAT, HISTORY, METRICS, MOVING, PROVENANCE, PackedResults
from udlib.course.packed_tables import Row
from udlib.course.packed_tensors import tensors_file
from udlib.files import atomic_write
from udlib.methods import recipe
from udlib.training.checkpoints import load_checkpoint

PREPARING = ".packing"  # where the new files are written; what a killed `pack` left there counts for nothing

State = dict[str, Any]  # recipe, metrics, history and provenance of a run
Logits = dict[str, dict[str, Tensor]]  # float16 logits by key and name


def pack(
    source: Path,
    destination: Path,
    groups: Mapping[str, Sequence[str]],
    *,
    replace: bool = False,
    keeps: Callable[[str, str], bool] = lambda key, name: True,
    networks: Mapping[str, Path] | None = None,
    half: bool = False,
) -> list[Path]:
    """Pack runs, one folder each below `source`, into the packed results in `destination`.

    What is packed already stays as it is, unless `replace` allows to change it. Whenever this is killed, a reader finds
    all old files, or all new ones.

    Args:
        source: folder with a folder per run, named by its key.
        destination: folder of the packed results, which may have some.
        groups: keys of runs by the name of their group. A run that is packed already needs no folder in `source`.
        replace: whether logits, networks and numbers that are packed already may change.
        keeps: whether logits ship, given the run's key and the name of the logits.
        networks: folders of trained networks by key; by default those below `source/models` of the runs in `groups`.
        half: whether networks are stored in float16. That halves their size, and changes the last digits of what is
            computed with them. A network that is packed already keeps its precision.

    Returns:
        The files that were written; none where nothing has changed.

    Raises:
        ValueError: for a run that is missing, damaged, or in a folder with another run's name; for logits that are not
            float16, or a network that float16 cannot hold; and for a change that needs `replace`.
    """
    destination = Path(destination)
    finish_moving(destination)
    contents = new_contents(source, destination, groups, replace=replace, keeps=keeps, networks=networks, half=half)
    if not contents:
        return []
    preparing = destination / PREPARING
    shutil.rmtree(preparing, ignore_errors=True)
    for name, content in contents.items():
        (preparing / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(preparing / name, content)
    os.replace(preparing, destination / MOVING)  # from here on the new files count
    finish_moving(destination)
    return [destination / name for name in contents]


def finish_moving(destination: Path) -> None:
    """Move the new files to their places, now or after a kill, and remove those that the tables no longer list."""
    moving = destination / MOVING
    if not moving.is_dir():
        return
    for path in sorted(path for path in moving.rglob("*") if path.is_file()):
        place = destination / path.relative_to(moving)
        place.parent.mkdir(exist_ok=True)
        os.replace(path, place)
    listed = PackedResults(destination).digests
    for path in [*destination.glob("logits/*.safetensors"), *destination.glob("models/*.safetensors")]:
        if path.relative_to(destination).as_posix() not in listed:
            path.unlink()
    shutil.rmtree(moving)


def new_contents(
    source: Path,
    destination: Path,
    groups: Mapping[str, Sequence[str]],
    *,
    replace: bool = False,
    keeps: Callable[[str, str], bool] = lambda key, name: True,
    networks: Mapping[str, Path] | None = None,
    half: bool = False,
) -> dict[str, bytes]:
    """The files that `pack` would write, with the same arguments and errors, by their name in `destination`."""
    packed = PackedResults(destination)
    rows, states = packed.rows(), packed.states()
    logits: dict[str, Logits] = {}  # of each file that a run of `source` belongs to
    for key, new_groups in _groups_by_key(groups).items():
        old = rows.get(key)
        names = tuple(dict.fromkeys((*(old.groups if old else ()), *new_groups)))
        run = _stored_run(Path(source) / key, keeps)
        if run is None:
            if old is None:
                raise ValueError(
                    f"the run {key} of the group '{names[0]}' is neither in '{source}' nor packed already: train it "
                    f"with `udlib runs --only {key}`, or leave the group out"
                )
            rows[key] = dataclasses.replace(old, groups=names)
            continue
        state, tensors = run
        if old and not replace and _text(state) != _text(states[key]):
            raise ValueError(
                f"the run {key} in '{source}' differs from the packed one: delete '{Path(source) / key}' to keep the "
                "packed one, or change it with `udlib pack --replace` (replace=True)"
            )
        home = old.logits if old and old.logits else file_name(names[0])
        if home not in logits:
            logits[home] = {other: packed.logits(other) for other, row in rows.items() if row.logits == home}
        logits[home][key] = tensors
        states[key], rows[key] = state, Row(state["recipe"], state["metrics"], names, home if tensors else "")
    contents = {f"logits/{home}.safetensors": _logits_file(of_file) for home, of_file in logits.items()}
    folders = _networks_below(source, groups) if networks is None else networks
    contents |= {
        f"models/{key}.safetensors": _network_file(packed, key, folder, half) for key, folder in folders.items()
    }
    return _changed(packed, contents, replace) | _tables(packed, rows, states, contents)


def file_name(group: str) -> str:
    """The file below `logits/` of a group, without its suffix: the part of the group's name before "/".

    >>> file_name("hard labels/softmax, T = 3")
    'hard-labels'
    """
    return re.sub(r"\W+", "-", group.partition("/")[0])


def _groups_by_key(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The groups that each run stands in."""
    names: dict[str, list[str]] = {}
    for group, keys in groups.items():
        if packed_tables.BETWEEN_GROUPS in group:
            raise ValueError(
                f"the group '{group}' has '{packed_tables.BETWEEN_GROUPS}' in its name, which stands between "
                "groups in the table: give it another name"
            )
        for key in keys:
            names.setdefault(key, []).append(group)
    return names


def _stored_run(folder: Path, keeps: Callable[[str, str], bool]) -> tuple[State, dict[str, Tensor]] | None:
    """State and shipped logits of the run in a folder; None where there is none."""
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        return None
    tensors, saved = checkpoint
    try:
        state = {name: saved[name] for name in ("recipe", "metrics", "history", "provenance")}
        key = recipe(**state["recipe"]).key
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{folder}' holds no run of the course ({error}): move it away") from error
    if key != folder.name:
        raise ValueError(f"'{folder}' holds the run {key}, which is not its name: rename the folder, or move it away")
    tensors = {name: value for name, value in tensors.items() if keeps(key, name)}
    for name, value in tensors.items():
        if value.dtype != torch.float16:
            raise ValueError(
                f"'{folder}' holds '{name}' as {value.dtype}, and its metrics follow from these very numbers: only "
                "float16 is packed, so store the run again with `udlib.course.store.save`"
            )
    return state, tensors


def _logits_file(logits: Logits) -> bytes:
    """A file of all logits, named KEY/NAME; no bytes where there are none."""
    tensors = {f"{key}/{name}": value for key, named in sorted(logits.items()) for name, value in named.items()}
    return tensors_file(tensors, {}) if tensors else b""


def _networks_below(source: Path, groups: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """The folders below `source/models` that hold the network of a run in `groups`, by key."""
    keys = {key for keys in groups.values() for key in keys}
    folders = {path.parent.name: path.parent for path in sorted(Path(source).glob("models/*/state.json"))}
    return {key: folder for key, folder in folders.items() if key in keys}


def _network_file(packed: PackedResults, key: str, folder: Path, half: bool) -> bytes:
    """A file of the network in a folder, with the recipe as metadata; as it is packed already, if it is."""
    checkpoint = load_checkpoint(folder)
    if checkpoint is None:
        raise ValueError(f"'{folder}' holds no trained network: train it with `udlib runs --only {key}`")
    tensors, state = checkpoint
    contents = {}
    for dtype in (torch.float16, torch.float32) if half else (torch.float32, torch.float16):
        stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        contents[dtype] = tensors_file(stored, {"recipe": json.dumps(state["recipe"])})
        if _digest(contents[dtype]) == packed.digests.get(f"models/{key}.safetensors"):
            return contents[dtype]
    infinite = [name for name, value in tensors.items() if half and not value.half().isfinite().all()]
    if infinite:
        raise ValueError(f"float16 cannot hold '{infinite[0]}' of the network in '{folder}': pack it with half=False")
    return contents[torch.float16 if half else torch.float32]


def _changed(packed: PackedResults, contents: Mapping[str, bytes], replace: bool) -> dict[str, bytes]:
    """The logits and networks that are new or differ from the packed ones; ValueError where only `replace` would do."""
    changed = {name: content for name, content in contents.items() if _digest(content) != packed.digests.get(name)}
    for name in changed:
        if name in packed.digests and not replace:
            raise ValueError(
                f"'{packed.folder / name}' is packed already and would change: give new runs a group with another name "
                "before its '/', or change the file with `udlib pack --replace` (replace=True)"
            )
    return {name: content for name, content in changed.items() if content}


def _tables(
    packed: PackedResults, rows: Mapping[str, Row], states: Mapping[str, State], contents: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The three tables, or none where nothing is new. Each is read back and compared with the runs."""
    tables = {
        METRICS: packed_tables.metrics_table(rows),
        HISTORY: packed_tables.history_table({key: state["history"] for key, state in states.items()}),
    }
    columns, cells = packed_tables.split_metrics(tables[METRICS])
    history = packed_tables.split_history(tables[HISTORY])
    sources = packed_tables.provenance_table({key: state["provenance"] for key, state in states.items()})
    for key, state in states.items():
        again = {
            "recipe": packed_tables.metrics_row(columns, cells[key]).recipe,
            "metrics": packed_tables.metrics_row(columns, cells[key]).metrics,
            "history": history.epochs(key),
            "provenance": packed_tables.provenance_of(sources, key),
        }
        if _text(again) != _text(state):
            raise ValueError(
                f"the tables cannot hold the run {key}: {_text(state)[:200]} would be {_text(again)[:200]}"
            )
    digests = {**packed.digests, **{name: _digest(content) for name, content in {**contents, **tables}.items()}}
    digests = {name: digest for name, digest in sorted(digests.items()) if contents.get(name) != b""}
    tables[PROVENANCE] = _json_lines({"format": FORMAT, "files": digests, **sources})
    old = packed.folder / PROVENANCE  # it has the SHA-256 of the other tables, so all are as they were if it is
    return {} if old.exists() and old.read_bytes() == tables[PROVENANCE] else tables


def _json_lines(value: Mapping[str, Any]) -> bytes:
    """JSON with one line per run and per file, so that changes can be read."""
    parts = []
    for name, entry in value.items():
        text = json.dumps(entry)
        if isinstance(entry, dict):
            text = "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(item)}" for key, item in entry.items()) + "\n}"
        parts.append(f"{json.dumps(name)}: {text}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _text(state: State) -> str:
    """A state as text: equal where all numbers are, NaN included."""
    return json.dumps(state, sort_keys=True)


def _digest(content: bytes) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()
