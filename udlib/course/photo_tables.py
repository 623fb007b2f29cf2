"""Tables 2 to 5 of UD (Song et al., ACM MM 2021) on photographs, at the course's size, beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from udlib.course.measurements import metric_values
from udlib.course.paper_tables import Row, table
from udlib.course.photo_arms import (
    SOFTMAX_ROWS,
    causes,
    photo_branch,
    photo_calibrators,
    photo_restarts,
    photo_sizes,
    photo_weights,
    photos,
)
from udlib.course.sentences import spread
from udlib.figures.text import as_markdown
from udlib.methods.base import Recipe


class Counterpart(NamedTuple):
    """A row on photographs, and the row of the paper that it is compared with.

    Attributes:
        name: What the row is called.
        recipes: Its recipes, one per seed.
        table: Name of the paper's table.
        row: Name of the paper's row; empty where the paper has none.
        columns: Our metrics by the paper's name of the column.
    """

    name: str
    recipes: Sequence[Recipe]
    table: str
    row: str
    columns: Mapping[str, str]


TITLES = {
    "table2a": "Table 2, without and with the calibration branch",
    "table3a": "Table 3, from one teacher",
    "table4": "Table 4, twice the epochs and one restart",
    "table5": "Table 5, ways to soften labels",
}
DIFFICULT = {"mAP": "mAP", "Difficult": "mAP_difficult"}
WHOLE = {name: name for name in ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1")}
ALONE = {"mAP": "mAP"}


def photo_counterparts() -> list[Counterpart]:
    """Return the rows of Tables 2 to 5 that are trained on photographs, each with its row of the paper.

    EfficientNet-Lite0 at 128 px stands beside ResNet-18, and EfficientNet-Lite2 beside ResNet-101, as student of hard labels
    at 128 px (Table 2) and as teacher at 224 px (Tables 3 and 5).
    """
    arms, restart, size = photos(), photo_restarts(), photo_sizes()
    teacher = "from ResNet-101"
    hard = {name: photo_branch(**changes) for name, changes in SOFTMAX_ROWS.items()}
    hard["label smoothing"] = photo_calibrators()["label smoothing"]
    summed = causes("photos")["first", "UD, Eq. 13 summed"]
    return [
        Counterpart("lite0, without branch", arms["baseline"], "table2a", "ResNet-18, without branch", DIFFICULT),
        Counterpart("lite0, with branch", arms["lambda 0.1"], "table2a", "ResNet-18, with branch", DIFFICULT),
        Counterpart("lite2, without branch", size[0.0], "table2a", "ResNet-101, without branch", DIFFICULT),
        Counterpart("lite2, with branch", size[0.1], "table2a", "ResNet-101, with branch", DIFFICULT),
        Counterpart("lite0, baseline", arms["baseline"], "table3a", "ResNet-18, baseline", WHOLE),
        Counterpart("lite0, KD", arms["KD"], "table3a", f"ResNet-18, KD {teacher}", WHOLE),
        Counterpart("lite0, UD as printed", arms["UD"], "table3a", f"ResNet-18, UD {teacher}", WHOLE),
        Counterpart("lite0, UD as released", arms["UD released"], "table3a", f"ResNet-18, UD {teacher}", WHOLE),
        Counterpart("lite0, UD with Eq. 13 summed", summed, "table3a", f"ResNet-18, UD {teacher}", WHOLE),
        Counterpart("lite0, restart, hard labels", restart["hard labels"], "table4", "ResNet-18, hard labels", ALONE),
        Counterpart("lite0, restart, UD", restart["UD"], "table4", "ResNet-18, UD", ALONE),
        Counterpart("lite0, hard labels", arms["baseline"], "table5", "ResNet-18, hard labels", ALONE),
        *(
            Counterpart(f"lite0, {name}", recipes, "table5", f"ResNet-18, {name}", ALONE)
            for name, recipes in hard.items()
        ),
        Counterpart(
            "lite0, KD + distribution",
            photo_weights()["KD + distribution"],
            "table5",
            f"ResNet-18, KD + distribution {teacher}",
            ALONE,
        ),
        Counterpart("lite0, UD as printed", arms["UD"], "table5", f"ResNet-18, UD {teacher}", ALONE),
    ]


def photo_table(name: str) -> list[list[str]]:
    """Return one of the paper's tables beside ours on photographs, head first; rows without stored runs are left out.

    Args:
        name: "table2a", "table3a", "table4" or "table5".

    Raises:
        ValueError: For another name.
    """
    counterparts = [counterpart for counterpart in photo_counterparts() if counterpart.table == name]
    if not counterparts:
        raise ValueError(f"no row of '{name}' is trained on photographs: choose one of {', '.join(TITLES)}")
    columns = counterparts[0].columns
    rows = [["on photographs", *columns, "in the paper", *columns]]
    for counterpart in counterparts:
        try:
            cells = [spread(metric_values(counterpart.recipes, metric), digits=1) for metric in columns.values()]
        except FileNotFoundError:
            continue
        printed = table(name).row(counterpart.row)
        rows.append([counterpart.name, *cells, printed.name, *(_printed(printed, column) for column in columns)])
    return rows


def generated_part() -> str:
    """Return those of the tables that have a row on photographs as markdown, each below its title."""
    tables = {title: photo_table(name) for name, title in TITLES.items()}
    return "\n\n".join(f"**{title}**\n\n{as_markdown(rows)}" for title, rows in tables.items() if len(rows) > 1)


def _printed(row: Row, column: str) -> str:
    """The paper's number, with a question mark where the paper contradicts itself."""
    cell = row.cells[column]
    return f"{cell.value:.2f}{' ?' if cell.doubts else ''}"
