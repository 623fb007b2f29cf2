"""Evidence in a lesson: differences between arms in words and tables, and an explorer of them."""

import numpy as np
import pytest

from udlib.course import evidence
from udlib.course.evidence import contrast_table, differences, in_words, show_contrasts, show_evidence, train_missing
from udlib.course.explorers import SeedExplorer
from udlib.course.explorers import seeds as seeds_module
from udlib.statistics import PairedDifference

VALUES = {"KD": [0.60, 0.62, 0.61], "UD": [0.50, 0.53, 0.51], "labels": [0.60, 0.61, 0.63]}
ARMS = {name: [name] for name in VALUES}


@pytest.fixture(autouse=True)
def stored(monkeypatch):
    def metric_values(arm, metric, split="test"):
        scale = {"mAP": 1.0, "NLL": 0.1, "map_correlation": 2.0}[metric]
        return [scale * value for value in VALUES[arm[0]]]

    for module in (evidence, seeds_module):
        monkeypatch.setattr(module, "metric_values", metric_values)


def test_a_contrast_is_bold_only_where_its_interval_leaves_out_0():
    head, *rows = contrast_table({"UD − KD": (["UD"], ["KD"]), "labels − KD": (["labels"], ["KD"])}, {"mAP": "mAP"})
    assert head == ["Difference [95 % interval], **bold** where it is detected", "mAP"]
    gap = differences(ARMS, "KD", "mAP")["UD"]
    assert rows[0] == ["UD − KD", f"**{100 * gap.mean:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]**"]
    assert rows[1][1].startswith("+0.33 [") and "**" not in rows[1][1]


def test_each_metric_has_its_unit():
    gap = PairedDifference(0.0123, -0.002, 0.0345, 5)
    assert in_words(gap, "mAP") == "+1.23 points [-0.20, +3.45]"
    assert in_words(gap, "blur-2 NLL") == "+0.012 nats [-0.002, +0.035]"
    assert in_words(gap, "map_correlation") == "+0.012 [-0.002, +0.035]"


def test_tables_are_shown_below_their_title(monkeypatch):
    shown = []
    monkeypatch.setattr(evidence, "say", shown.append)
    show_evidence(ARMS, {"mAP": "mAP"}, "KD", "On test")
    show_contrasts({"UD − KD": (["UD"], ["KD"])}, {"mAP": "mAP"})
    assert shown[0].startswith("**On test.** Mean ± sd over seeds (**change** from KD, if detected)\n\n|")
    assert shown[1].startswith("Difference [95 % interval], **bold** where it is detected\n\n|")


def test_a_number_and_its_spread_stay_on_one_line(monkeypatch):
    shown = []
    monkeypatch.setattr(evidence, "say", shown.append)
    show_evidence(ARMS, {"mAP": "mAP"}, "KD")
    show_contrasts({"UD − KD": (["UD"], ["KD"])}, {"mAP": "mAP"})
    assert "51.33\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.53 (**-9.67**)" in shown[0]
    assert ",\N{NO-BREAK SPACE}-" in shown[1]


def test_only_a_run_that_is_not_stored_is_trained_and_the_arms_come_back(monkeypatch):
    trained = []
    monkeypatch.setattr(evidence, "for_profile", lambda recipe: recipe)
    monkeypatch.setattr(evidence, "load", lambda recipe, logits: "stored" if recipe == 2 else None)
    monkeypatch.setattr(evidence, "load_or_run", trained.append)
    assert train_missing({"a": [1, 2], "b": [3]}) == {"a": [1, 2], "b": [3]} and trained == [1, 3]


def test_the_explorer_draws_each_seeds_difference_and_reads_out_every_arm():
    explorer = SeedExplorer("pair", {"one": ARMS, "two": ARMS}, {"mAP": "mAP", "correlation": "map_correlation"})
    frame = explorer._frame("one", "mAP", "KD")
    axes = frame.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["UD − KD", "labels − KD"]
    assert frame.readings["UD"] == f"{100 * np.mean(VALUES['UD']):.2f} ± {100 * np.std(VALUES['UD'], ddof=1):.2f}"
    assert axes.get_xlabel() == "mAP, points" and frame.alt.startswith("mAP of one: KD 61.00")
    assert explorer._frame("two", "correlation", "UD").figure.axes[0].get_xlabel() == "correlation"
    assert explorer.value == ("one", "mAP", "KD")
