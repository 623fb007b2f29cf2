"""The numbers of Tables 1-5 of UD (Song et al., ACM MM 2021) as data, cell by cell, in per cent.

Networks have torchvision's names and methods those of `udlib.course.recipes`, so that `udlib.course.paper_recipes` can
match a row with the recipe that repeats it. A cell that contradicts another one, or the paper's own text, carries its
doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch

PRINTED = {"resnet101": "ResNet-101", "vgg19_bn": "VGG-19-BN", "mobilenet_v2": "MobileNet-v2", "resnet18": "ResNet-18"}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: The number, in per cent.
        std: Standard deviation, where one is printed.
        doubts: The reasons why the number is doubtful.
    """

    value: float
    std: float | None = None
    doubts: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """All reasons in one line; empty for a cell that contradicts nothing."""
        return "; ".join(self.doubts)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        network: Torchvision's name of the network; empty for none.
        method: The method, as the table prints it.
        teacher: Torchvision's name of the teacher; empty for none.
        cells: The cells by column.
    """

    network: str
    method: str
    teacher: str
    cells: dict[str, Cell]

    @property
    def name(self) -> str:
        """The row in words, for example "ResNet-18, UD from ResNet-101"; unique in its table."""
        method = f"{self.method} from {PRINTED[self.teacher]}" if self.teacher else self.method
        return f"{PRINTED[self.network]}, {method}" if self.network else method

    @property
    def cited(self) -> bool:
        """Whether the row quotes or repeats other authors' work, which no recipe here trains."""
        return self.method.endswith("]")


@dataclass(frozen=True)
class Table:
    """One table, or one half of a table of two data sets.

    Attributes:
        name: For example "table3a".
        title: What the table compares.
        data: Name of the data set that it was measured on.
        columns: Names of the columns.
        rows: The rows, as printed.
    """

    name: str
    title: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """Return the row of this name; KeyError where there is none."""
        return {row.name: row for row in self.rows}[name]

    def baseline(self, row: Row) -> Row | None:
        """Return the row that a row is to be compared with; None for that row itself and for cited ones."""
        if row.cited or row.method in BASELINES:
            return None
        return next(other for other in self.rows if other.method in BASELINES and other.network == row.network)

    def matching(self, pattern: str | None = None) -> list[Row]:
        """Return the rows whose name matches (`*ResNet-18*`, or any part of a name).

        Raises ValueError where none does.
        """
        matches = [
            row
            for row in self.rows
            if pattern is None or pattern.lower() in row.name.lower() or fnmatch(row.name.lower(), pattern.lower())
        ]
        if not matches:
            raise ValueError(
                f"no row of {self.name} matches '{pattern}': choose a part of, or a pattern for, one of "
                + "; ".join(row.name for row in self.rows)
            )
        return matches


# Each table's point of comparison.
BASELINES = ("neither", "without branch", "baseline", "hard labels")


def table(name: str) -> Table:
    """Return one of `TABLES` by name; raises ValueError for any other name."""
    if name not in TABLES:
        raise ValueError(f"unknown table '{name}': choose one of {', '.join(TABLES)}")
    return TABLES[name]


def _read(name: str, title: str, data: str, columns: str, text: str) -> Table:
    """A table from lines `network | method | teacher | cells`, where - means nothing."""
    heads, rows = tuple(columns.split()), []
    for line in text.strip().splitlines():
        network, method, teacher, cells = (part.strip() for part in line.split("|"))
        numbers = dict(zip(heads, cells.split(), strict=True))
        cells_by_column = {head: _cell(number) for head, number in numbers.items() if number != "-"}
        rows.append(Row(network.strip("-"), method, teacher.strip("-"), cells_by_column))
    return Table(name, title, data, heads, tuple(rows))


def _cell(number: str) -> Cell:
    """A cell from `value` or `value±std`."""
    value, _, std = number.partition("±")
    return Cell(float(value), float(std) if std else None)


ALL = "mAP CP CR CF1 OP OR OF1"
TOP3 = "CP_top3 CR_top3 CF1_top3 OP_top3 OR_top3 OF1_top3"

_PRINTED_TABLES = (
    _read(
        "table1",
        "two tricks of training: CutOut and cosine decay",
        "voc2007",
        "mAP Best Worst",
        """
-         | ML-GCN [9]   | - | 94.0       -     -
resnet101 | CutOut       | - | 93.30±0.06 93.41 93.22
resnet101 | neither      | - | 93.56±0.11 93.74 93.38
resnet101 | both         | - | 93.65±0.06 93.76 93.56
resnet101 | cosine decay | - | 93.75±0.08 93.86 93.60
    """,
    ),
    _read(
        "table2a",
        "hard labels without and with the calibration branch",
        "voc2007",
        "mAP Difficult",
        """
-            | FeV+LV [47]      | - | 90.6  -
-            | RLSD [49]        | - | 91.5  -
-            | RLSD+ft-RPN [49] | - | 93.3  -
resnet101    | ML-GCN [51]      | - | 94.0  -
resnet101    | without branch   | - | 93.75 88.22
resnet101    | with branch      | - | 94.11 89.01
vgg19_bn     | without branch   | - | 91.29 86.13
vgg19_bn     | with branch      | - | 91.87 86.77
mobilenet_v2 | without branch   | - | 90.00 85.49
mobilenet_v2 | with branch      | - | 90.37 85.71
resnet18     | without branch   | - | 88.91 83.77
resnet18     | with branch      | - | 89.50 84.72
    """,
    ),
    _read(
        "table2b",
        "hard labels without and with the calibration branch",
        "coco2014",
        "mAP CF1 OF1 CF1_top3 OF1_top3",
        """
-            | SRN [54]       | - | 77.1  71.2  75.8  67.4  72.9
-            | ME [6]         | - | -     74.9  78.4  70.6  74.7
resnet101    | ML-GCN [51]    | - | 83.0  78.0  80.3  74.6  76.7
resnet101    | without branch | - | 82.41 80.09 77.3  76.48 73.83
resnet101    | with branch    | - | 82.84 80.78 77.45 76.89 73.85
vgg19_bn     | without branch | - | 76.25 75.48 71.00 72.35 67.88
vgg19_bn     | with branch    | - | 77.79 76.51 71.72 73.29 68.38
mobilenet_v2 | without branch | - | 75.99 74.84 70.12 71.92 67.14
mobilenet_v2 | with branch    | - | 77.22 75.90 71.32 72.69 68.11
resnet18     | without branch | - | 74.31 73.86 68.78 71.01 65.87
resnet18     | with branch    | - | 75.48 74.88 69.77 71.87 66.78
    """,
    ),
    _read(
        "table3a",
        "students of other networks: hard labels, KD, UD",
        "voc2007",
        ALL,
        """
resnet18     | baseline    | -         | 90.48 82.48 83.77 83.12 84.36 86.24 85.29
resnet18     | ML-GCN [51] | -         | 90.64 79.08 88.59 83.56 80.73 85.29 82.95
resnet18     | KD          | vgg19_bn  | 90.99 82.44 85.63 84.01 82.55 87.92 85.15
resnet18     | UD          | vgg19_bn  | 91.24 83.94 84.62 84.28 85.86 87.12 86.49
resnet18     | KD          | resnet101 | 91.41 85.56 87.44 86.49 83.64 85.37 84.49
resnet18     | UD          | resnet101 | 91.67 85.39 87.95 86.65 83.90 85.71 84.79
mobilenet_v2 | baseline    | -         | 90.89 81.77 84.38 83.05 82.13 86.91 84.45
mobilenet_v2 | ML-GCN [51] | -         | 91.10 82.56 84.57 83.55 84.78 87.12 85.94
mobilenet_v2 | KD          | vgg19_bn  | 91.46 83.08 85.51 84.28 84.64 87.91 86.24
mobilenet_v2 | UD          | vgg19_bn  | 91.78 83.69 85.47 84.57 85.09 87.79 86.42
mobilenet_v2 | KD          | resnet101 | 92.01 85.87 88.07 86.95 83.85 86.10 84.96
mobilenet_v2 | UD          | resnet101 | 92.22 85.40 88.50 86.92 83.82 86.50 85.14
    """,
    ),
    _read(
        "table3b",
        "students of other networks: hard labels, KD, UD",
        "coco2014",
        f"{ALL} {TOP3}",
        """
resnet18     | baseline    | -         | 75.60 81.10 61.92 70.22 84.29 67.25 74.81 84.07 55.78 67.06 88.67 60.35 71.82
resnet18     | ML-GCN [51] | -         | 75.64 85.12 66.50 74.66 80.92 61.24 69.72 89.12 60.08 71.78 84.30 55.45 66.89
resnet18     | KD          | vgg19_bn  | 75.90 81.61 62.58 70.84 84.00 67.90 75.10 84.10 56.01 67.24 88.72 60.62 72.03
resnet18     | UD          | vgg19_bn  | 76.12 81.75 62.80 71.04 83.98 68.26 75.31 84.20 56.31 67.49 88.60 61.03 72.28
resnet18     | KD          | resnet101 | 76.05 81.24 62.33 70.54 84.51 67.66 75.15 84.42 55.95 67.29 88.94 60.60 72.08
resnet18     | UD          | resnet101 | 77.19 87.23 66.46 75.44 84.33 60.75 70.62 91.51 59.71 72.26 87.68 54.79 67.44
mobilenet_v2 | baseline    | -         | 77.33 83.22 62.50 71.39 86.55 67.41 75.79 86.58 56.66 68.49 90.62 60.72 72.72
mobilenet_v2 | ML-GCN [51] | -         | 77.50 83.65 62.14 71.30 86.88 67.07 75.70 86.94 56.33 68.37 90.86 60.52 72.65
mobilenet_v2 | KD          | vgg19_bn  | 77.67 83.72 62.78 71.76 86.73 67.77 76.09 86.95 56.83 68.74 90.75 60.94 72.92
mobilenet_v2 | UD          | vgg19_bn  | 77.92 84.08 62.85 71.93 87.47 67.48 76.19 87.25 57.03 68.98 91.29 60.85 73.03
mobilenet_v2 | KD          | resnet101 | 77.77 78.07 64.23 70.48 81.14 73.55 77.16 79.32 63.86 70.76 82.39 73.26 77.56
mobilenet_v2 | UD          | resnet101 | 78.12 87.20 68.00 76.41 83.85 63.38 72.20 91.16 61.18 73.22 87.06 57.39 69.18
    """,
    ),
    _read(
        "table4",
        "self-distillation after a restart",
        "voc2007",
        "mAP",
        """
resnet101    | hard labels | - | 93.78±0.07
resnet101    | UD          | - | 94.27±0.13
resnet18     | hard labels | - | 89.15±0.14
resnet18     | UD          | - | 90.81±0.13
mobilenet_v2 | hard labels | - | 90.10±0.10
mobilenet_v2 | UD          | - | 91.34±0.10
    """,
    ),
    _read(
        "table5",
        "ways to soften labels, and both parts of UD",
        "voc2007",
        "mAP",
        """
resnet18 | hard labels       | -         | 88.91±0.10
resnet18 | softmax, T = 3    | -         | 90.27±0.24
resnet18 | label smoothing   | -         | 90.48±0.12
resnet18 | 1/k softmax       | -         | 91.37±0.09
resnet18 | KD + distribution | resnet101 | 91.46±0.05
resnet18 | UD                | resnet101 | 91.67±0.09
    """,
    ),
)

_BLOCK = "CP CR CF1 OP OR OF1"
_SWAPPED = "CF1 is above OF1, unlike in Table 3's baselines: class-wise and overall numbers may be swapped"
_MARKS = "check marks scrambled: Table 2a's mAP with both tricks, and section 5.1's best run, are in another row"
_FLIPPED_3A = ("ResNet-18, ML-GCN*", "ResNet-18, ?D from ResNet-101", "MobileNet-v2, ?D from ResNet-101")
_FLIPPED_3B = ("ResNet-18, ML-GCN*", "ResNet-18, UD from ResNet-101", "MobileNet-v2, UD from ResNet-101")
_TABLE_2B = "mAP CF1 OF1 CF1_top3 OF1_top3"

# (table, pattern of rows, columns, why); tests/test_paper.py derives the same cells from the numbers themselves.
_DOUBTS = (
    ("table1", "ResNet-101, *", "mAP Best Worst", _MARKS),
    *(("table2b", f"{network}, with*", "CF1 OF1 CF1_top3 OF1_top3", _SWAPPED) for network in PRINTED.values()),
    *(("table3a", rows, _BLOCK, _SWAPPED) for rows in _FLIPPED_3A),
    *(("table3b", rows, f"{_BLOCK} {TOP3}", _SWAPPED) for rows in _FLIPPED_3B),
    (
        "table3b",
        "MobileNet-v2, KD from ResNet-101",
        "CF1 OF1 CF1_top3 OF1_top3",
        "F1 over the top 3 labels is above F1 over all labels, only in this row",
    ),
    (
        "table3a",
        "ResNet-18, baseline",
        "mAP",
        "Tables 2a and 5 have 88.91 for this network, and 90.48 is Table 5's label smoothing",
    ),
    ("table2a", "MobileNet-v2, without branch", "mAP", "Table 3a has 90.89 for this network"),
    ("table3a", "MobileNet-v2, baseline", "mAP", "Table 2a has 90.00 for this network"),
    *(
        ("table2b", f"{network}, without branch", _TABLE_2B, "Table 3b has other numbers for this network")
        for network in ("ResNet-18", "MobileNet-v2")
    ),
    *(
        ("table3b", f"{network}, baseline", _TABLE_2B, "Table 2b has other numbers for this network")
        for network in ("ResNet-18", "MobileNet-v2")
    ),
    ("table4", "ResNet-18, *", "mAP", "section 5.3.2 says +0.6, these two cells +1.66"),
    ("table4", "MobileNet-v2, *", "mAP", "section 5.3.2 says +0.6, these two cells +1.24"),
    ("table5", "ResNet-18, label smoothing", "mAP", "section 5.3.4 says 90.8"),
)

# What the text says of single cells: (section, table, column, row, row that is subtracted or "", number).
STATED = (
    ("5.1", "table1", "Best", "ResNet-101, both", "", 93.86),
    ("5.3.1", "table3b", "mAP", "ResNet-18, UD from ResNet-101", "ResNet-18, baseline", 1.6),
    ("5.3.2", "table4", "mAP", "ResNet-18, UD", "ResNet-18, hard labels", 0.6),
    ("5.3.2", "table4", "mAP", "MobileNet-v2, UD", "MobileNet-v2, hard labels", 0.6),
    ("5.3.4", "table5", "mAP", "ResNet-18, label smoothing", "", 90.8),
)


def _with_doubts(printed: Table) -> Table:
    """The table with the reasons of `_DOUBTS` at its cells."""
    rows = []
    for row in printed.rows:
        cells = dict(row.cells)
        for name, rows_like, columns, reason in _DOUBTS:
            if name == printed.name and fnmatch(row.name, rows_like):
                for column in columns.split():
                    cells[column] = replace(cells[column], doubts=(*cells[column].doubts, reason))
        rows.append(replace(row, cells=cells))
    return replace(printed, rows=tuple(rows))


TABLES = {printed.name: _with_doubts(printed) for printed in _PRINTED_TABLES}
