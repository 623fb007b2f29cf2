"""The three tables of packed results as bytes, and back, bit by bit: metrics, history, provenance.

Each cell is JSON, so that 3 and 3.0 stay different and every bit of a float comes back; the cell of a value that a row
lacks is empty. The order of the columns agrees with the order in every row, so that dictionaries keep theirs.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

HEAD = ("key", "groups", "name", "seed", "recipe", "logits")  # the columns of metrics.csv before the metrics themselves
BETWEEN_GROUPS = "; "
OWN_FRACTION = 0.25  # a field with more distinct values than this share of the runs is stored with each run


@dataclass(frozen=True)
class Row:
    """One run in metrics.csv; `logits` names the file that holds its logits, and is empty where none ship."""

    recipe: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    groups: tuple[str, ...] = ()
    logits: str = ""


def metrics_table(rows: Mapping[str, Row]) -> bytes:
    """metrics.csv: the rows by key, each metric in a column `SPLIT METRIC`."""
    values = {
        key: {f"{split} {name}": value for split, metrics in row.metrics.items() for name, value in metrics.items()}
        for key, row in sorted(rows.items())
    }
    columns = common_order(values.values())
    lines = []
    for key in values:
        row = rows[key]
        others = {name: value for name, value in row.recipe.items() if name not in ("method", "seed")}
        name = f"{row.recipe['method']}({', '.join(f'{field}={value}' for field, value in others.items())})"
        known = [key, BETWEEN_GROUPS.join(row.groups), name, row.recipe.get("seed", 0), json.dumps(row.recipe)]
        lines.append([*known, row.logits, *_cells(columns, values[key])])
    return _csv([*HEAD, *columns], lines).encode()


def split_metrics(content: bytes) -> tuple[list[str], dict[str, list[str]]]:
    """The columns of metrics.csv, and the cells of each run by key, which `metrics_row` reads.

    Raises ValueError for a table without the columns of `HEAD`, a row of another length, or a repeated key.
    """
    lines = csv.reader(io.StringIO(content.decode()))
    columns, rows = next(lines, []), {}
    if tuple(columns[: len(HEAD)]) != HEAD:
        raise ValueError(f"starts with the columns {columns[: len(HEAD)]}, expected {list(HEAD)}")
    for cells in lines:
        if len(cells) != len(columns):
            raise ValueError(f"has a row of {len(cells)} cells for {len(columns)} columns ({cells[:1]})")
        if cells[0] in rows:
            raise ValueError(f"has the run {cells[0]} twice")
        rows[cells[0]] = cells
    return columns, rows


def metrics_row(columns: Sequence[str], cells: Sequence[str]) -> Row:
    """A run's row of metrics.csv."""
    known = dict(zip(HEAD, cells, strict=False))
    metrics: dict[str, dict[str, Any]] = {}
    for column, value in _values(columns[len(HEAD) :], cells[len(HEAD) :]).items():
        split, _, name = column.partition(" ")
        metrics.setdefault(split, {})[name] = value
    groups = tuple(known["groups"].split(BETWEEN_GROUPS)) if known["groups"] else ()
    return Row(json.loads(known["recipe"]), metrics, groups, known["logits"])


def history_table(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """history.csv.gz: the epochs of each run, by key and in their order; the same bytes at any time of day."""
    rows = [(key, row) for key, history in sorted(histories.items()) for row in history]
    columns = common_order(row for _, row in rows)
    lines = ([key, *_cells(columns, row)] for key, row in rows)
    return gzip.compress(_csv(["key", *columns], lines).encode(), 9, mtime=0)


@dataclass(frozen=True)
class History:
    """The lines of history.csv.gz that belong to each run, parsed when they are needed."""

    columns: Sequence[str]
    lines: Mapping[str, Sequence[str]]

    def epochs(self, key: str) -> list[dict[str, Any]]:
        """The rows of a run's history; none where it has none."""
        return [_values(self.columns, cells[1:]) for cells in csv.reader(self.lines.get(key, []))]


def split_history(content: bytes) -> History:
    """The lines of history.csv.gz by run."""
    head, *lines = gzip.decompress(content).decode().splitlines()
    lines_by_key = defaultdict(list)
    for line in lines:
        lines_by_key[line.partition(",")[0]].append(line)
    return History(next(csv.reader([head]))[1:], dict(lines_by_key))


def provenance_table(provenances: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Where the numbers of each run come from, with what many runs share said once.

    `runs` has for each key a place in `shared` and the fields of its own; `fields` is the order of both together.
    """
    provenances = dict(sorted(provenances.items()))
    fields = common_order(provenances.values())
    texts = {field: {json.dumps(p[field]) for p in provenances.values() if field in p} for field in fields}
    own = {field for field in fields if len(texts[field]) > OWN_FRACTION * len(provenances)}
    shared: list[dict[str, Any]] = []
    runs = {}
    for key, provenance in provenances.items():
        common = {field: provenance[field] for field in fields if field in provenance and field not in own}
        if common not in shared:
            shared.append(common)
        runs[key] = [shared.index(common), {field: provenance[field] for field in provenance if field in own}]
    return {"fields": fields, "shared": shared, "runs": runs}


def provenance_of(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A run's entry of a `provenance_table`."""
    place, own = table["runs"][key]
    values = table["shared"][place] | own
    return {field: values[field] for field in table["fields"] if field in values}


def common_order(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names in all rows, in an order that agrees with each row's own; in order of appearance where none agrees.

    >>> common_order([{"epoch": 1, "stage": 2}, {"epoch": 2, "mAP": 0.5, "stage": 2}])
    ['epoch', 'mAP', 'stage']
    """
    orders = dict.fromkeys(tuple(row) for row in rows)
    followers: dict[str, dict[str, None]] = {name: {} for order in orders for name in order}
    for order in orders:
        for earlier, later in zip(order, order[1:], strict=False):
            followers[later][earlier] = None
    try:
        return list(TopologicalSorter(followers).static_order())
    except CycleError:
        return list(followers)


def _cells(columns: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """One value per column as JSON, empty where there is none."""
    return [json.dumps(values[column]) if column in values else "" for column in columns]


def _values(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """What `_cells` wrote, by column."""
    return {column: _value(cell) for column, cell in zip(columns, cells, strict=True) if cell}


def _value(cell: str) -> Any:
    """A value from JSON; nearly all are floats with a point, which `float` reads several times faster."""
    if "." in cell:
        with suppress(ValueError):  # text, or a list
            return float(cell)
    return json.loads(cell)


def _csv(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Comma-separated text with Unix line ends."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    return text.getvalue()
