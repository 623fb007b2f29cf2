"""The transcription of the paper's tables: its arithmetic, and that exactly the contradictory cells are doubtful."""

from collections import Counter

import pytest

from udlib.course import paper_tables as paper
from udlib.course.paper_tables import STATED, TABLES, Cell, table

OWN_BLOCKS = ("", "_top3")


def cells():
    """(table, row, column, cell) of everything printed."""
    return [
        (name, row, column, cell)
        for name, found in TABLES.items()
        for row in found.rows
        for column, cell in row.cells.items()
    ]


def test_all_seven_tables_are_there_with_all_their_rows_and_cells():
    assert {name: (len(found.rows), sum(len(row.cells) for row in found.rows)) for name, found in TABLES.items()} == {
        "table1": (5, 13),
        "table2a": (12, 20),
        "table2b": (11, 54),
        "table3a": (12, 84),
        "table3b": (12, 156),
        "table4": (6, 6),
        "table5": (6, 6),
    }


def test_some_cells_as_printed():
    assert table("table1").row("ResNet-101, cosine decay").cells["mAP"].value == 93.75
    assert table("table2a").row("ResNet-18, with branch").cells["Difficult"] == Cell(84.72)
    assert table("table2b").row("ME [6]").cells.keys() == {"CF1", "OF1", "CF1_top3", "OF1_top3"}
    assert table("table3a").row("MobileNet-v2, UD from ResNet-101").cells["mAP"] == Cell(92.22)
    assert table("table3b").row("ResNet-18, KD from ResNet-101").cells["OR_top3"] == Cell(60.60)
    assert table("table5").row("ResNet-18, KD + distribution from ResNet-101").cells["mAP"] == Cell(91.46, 0.05)


def test_rows_have_names_of_their_own_and_every_row_of_the_papers_own_has_a_baseline():
    for found in TABLES.values():
        assert max(Counter(row.name for row in found.rows).values()) == 1
        own = [row for row in found.rows if not row.cited]
        assert all(found.baseline(row) or row.method in paper.BASELINES for row in own)
        assert all(found.baseline(row) is None for row in found.rows if row.cited)
    teaches = table("table3a")
    assert teaches.baseline(teaches.row("MobileNet-v2, KD from VGG-19-BN")).name == "MobileNet-v2, baseline"
    assert table("table5").baseline(table("table5").row("ResNet-18, 1/k softmax")).name == "ResNet-18, hard labels"


@pytest.mark.parametrize("name", TABLES)
def test_every_f1_is_that_of_the_printed_precision_and_recall(name):
    """F1 = 2PR/(P + R) rises in both, so the printed P ± 0.005 and R ± 0.005 bound it; no cell is outside."""
    checked = 0
    for row in TABLES[name].rows:
        for block in OWN_BLOCKS:
            for kind in "CO":
                names = [f"{kind}{part}{block}" for part in ("P", "R", "F1")]
                if set(names) <= row.cells.keys():
                    p, r, f = (row.cells[part].value for part in names)
                    low, high = (2 * (p + e) * (r + e) / (p + r + 2 * e) for e in (-0.005, 0.005))
                    assert low - 0.005 <= f <= high + 0.005, (row.name, names[2])
                    checked += 1
    assert checked == {"table3a": 24, "table3b": 48}.get(name, 0)


def test_the_mean_of_table_1_lies_between_its_worst_and_best_run():
    for row in TABLES["table1"].rows[1:]:
        assert row.cells["Worst"].value < row.cells["mAP"].value < row.cells["Best"].value


# What contradicts what, found from the numbers alone.


def swapped():
    """Where CF1 > OF1 though the baselines of Table 3 on the same data have CF1 < OF1."""
    for reference in ("table3a", "table3b"):
        for row in TABLES[reference].rows:
            if row.method == "baseline":
                assert all(
                    row.cells[f"CF1{b}"].value < row.cells[f"OF1{b}"].value
                    for b in OWN_BLOCKS
                    if f"CF1{b}" in row.cells
                )
    found = set()
    for name, table_ in TABLES.items():
        for row in table_.rows:
            for block in OWN_BLOCKS:
                if f"CF1{block}" in row.cells and row.cells[f"CF1{block}"].value > row.cells[f"OF1{block}"].value:
                    parts = [f"{kind}{part}{block}" for kind in "CO" for part in ("P", "R", "F1")]
                    found |= {(name, row.name, part) for part in parts if part in row.cells}
    return found


def top_3_above_all():
    """Where F1 over the top 3 labels exceeds F1 over all: one row of twelve on COCO."""
    return {
        (name, row.name, f"{kind}F1{block}")
        for name, row, column, cell in cells()
        if column == "OF1_top3" and cell.value > row.cells["OF1"].value
        for kind in "CO"
        for block in OWN_BLOCKS
    }


# One setting in several tables: network and data, trained on hard labels without the branch; and UD from ResNet-101.
SAME = [
    [
        ("table2a", "ResNet-18, without branch"),
        ("table3a", "ResNet-18, baseline"),
        ("table5", "ResNet-18, hard labels"),
    ],
    [("table2a", "MobileNet-v2, without branch"), ("table3a", "MobileNet-v2, baseline")],
    [("table2b", "ResNet-18, without branch"), ("table3b", "ResNet-18, baseline")],
    [("table2b", "MobileNet-v2, without branch"), ("table3b", "MobileNet-v2, baseline")],
    [("table3a", "ResNet-18, UD from ResNet-101"), ("table5", "ResNet-18, UD from ResNet-101")],
    [("table1", "ML-GCN [9]"), ("table2a", "ResNet-101, ML-GCN [51]")],
]


def unequal():
    """Cells that should be equal across tables and are not, unless most of the tables agree on them."""
    found = set()
    for places in SAME:
        rows = [(name, table(name).row(row)) for name, row in places]
        for column in set.intersection(*(set(row.cells) for _, row in rows)):
            values = Counter(row.cells[column].value for _, row in rows)
            agreed = {value for value, count in values.items() if 2 * count > len(rows)}
            found |= {(name, row.name, column) for name, row in rows if row.cells[column].value not in agreed}
    return found


def against_the_text():
    """Cells that differ from what the text says, to the digits that it gives."""
    found = set()
    for _, name, column, row, minus, said in STATED:
        value = table(name).row(row).cells[column].value - (table(name).row(minus).cells[column].value if minus else 0)
        if abs(value - said) > 0.5 * 10 ** -len(str(said).partition(".")[2]):
            found |= {(name, part, column) for part in (row, minus) if part}
    return found


def scrambled_marks():
    """Table 1, whole: Table 2a's ResNet-101 trains with both tricks, and its mAP and best run stand in another row."""
    both, elsewhere = (table("table1").row(f"ResNet-101, {name}") for name in ("both", "cosine decay"))
    same = table("table2a").row("ResNet-101, without branch").cells["mAP"].value
    assert (
        both.cells["mAP"].value != same == elsewhere.cells["mAP"].value
        and elsewhere.cells["Best"].value == STATED[0][-1]
    )
    return {("table1", row.name, column) for row in table("table1").rows if not row.cited for column in row.cells}


def test_the_doubtful_cells_are_exactly_those_that_contradict_another_cell_or_the_text():
    expected = swapped() | top_3_above_all() | unequal() | against_the_text() | scrambled_marks()
    assert {(name, row.name, column) for name, row, column, cell in cells() if cell.doubt} == expected
    doubtful = Counter(name for name, *_ in expected)
    assert doubtful == {
        "table1": 12,
        "table2a": 1,
        "table2b": 34,
        "table3a": 32,
        "table3b": 50,
        "table4": 4,
        "table5": 1,
    }


def test_what_is_known_to_be_doubtful_is():
    assert "label smoothing" in table("table3a").row("ResNet-18, baseline").cells["mAP"].doubt
    assert not table("table2a").row("ResNet-18, without branch").cells["mAP"].doubt
    assert "swapped" in table("table2b").row("VGG-19-BN, with branch").cells["CF1"].doubt
    assert "scrambled" in table("table1").row("ResNet-101, both").cells["mAP"].doubt
    assert not table("table4").row("ResNet-101, UD").cells["mAP"].doubt


def test_rows_are_found_by_a_part_of_their_name_or_a_pattern():
    found = table("table3a")
    assert [row.name for row in found.matching("ud from resnet-101")] == [
        "ResNet-18, UD from ResNet-101",
        "MobileNet-v2, UD from ResNet-101",
    ]
    assert len(found.matching("ResNet-18, [KU]D*")) == 4 and found.matching() == list(found.rows)
    with pytest.raises(ValueError, match="no row of table3a matches 'LSTM': choose a part of.*ResNet-18, baseline"):
        found.matching("LSTM")


def test_an_unknown_table_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown table 'table6': choose one of table1, table2a"):
        table("table6")


def test_a_line_with_too_few_cells_is_no_table():
    with pytest.raises(ValueError):
        paper._read("t", "", "", "mAP CF1", "resnet18 | KD | - | 90.0")
