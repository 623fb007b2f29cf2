"""Graphs of labels and their explorer: what is drawn is the given partition, and only trained numbers are shown."""

import html
import io

import numpy as np
import pytest
import torch
from lessons import drawn
from PIL import Image

from udlib.course import store as experiments
from udlib.course.explorers import PartitionExplorer
from udlib.course.store import Run, recipe
from udlib.figures import label_graphs as graphs
from udlib.figures import plots
from udlib.statistics import paired_difference
from udlib.training.evaluation import Split

NAMES = ["boat", "fish", "cup", "lamp"]
S = np.array([[0, 0.8, 0.1, 0.4], [0.8, 0, 0.2, 0], [0.1, 0.2, 0, 0.6], [0.4, 0, 0.6, 0]])
CGP, DGP = [[0, 1], [2, 3]], [[0, 2], [1, 3]]


def words(figure):
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def test_the_number_of_each_class_s_part():
    assert graphs.part_of([[3, 0], [1], [2]]).tolist() == [0, 1, 2, 0]


def test_a_graph_has_all_names_and_draws_drawn_edgesfrom_the_threshold_on():
    figure = graphs.partition_graph(S, NAMES, {"CGP": CGP, "DGP": DGP}, least=0.3)
    assert words(figure) == set(NAMES) and [axes.get_title(loc="left") for axes in figure.axes] == ["CGP", "DGP"]
    for axes in figure.axes:
        edges = [line for line in axes.lines if line.get_linestyle() == "-"]
        assert len(edges) == 3, "0.8, 0.6 and 0.4"
    dark = [[line.get_alpha() > 0.5 for line in axes.lines if line.get_linestyle() == "-"] for axes in figure.axes]
    assert [sum(drawn_edges) for drawn_edges in dark] == [2, 0], "of DGP's parts no edge lies inside"


def test_parts_can_be_told_apart_without_colour_and_places_are_those_of_the_first_partition():
    figure = graphs.partition_graph(S, NAMES, {"CGP": CGP, "DGP": DGP})
    for axes in figure.axes:
        parts = [line for line in axes.lines if line.get_linestyle() == "None"]
        assert len({line.get_marker() for line in parts}) == 2
    places = [{text.get_text(): text.get_position() for text in axes.texts} for axes in figure.axes]
    assert places[0] == places[1]


def test_blocks_are_sorted_by_the_parts():
    figure = graphs.affinity_blocks(S, NAMES, {"DGP": DGP})
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["boat", "cup", "fish", "lamp"]
    assert axes.images[0].get_array().tolist() == S[np.ix_([0, 2, 1, 3], [0, 2, 1, 3])].tolist()


def test_an_embedding_and_a_map_can_be_drawn():
    points = np.random.default_rng(0).normal(size=(4, 2))
    figure = graphs.embedding(points, NAMES, CGP, "x", "y")
    assert words(figure) == set(NAMES) and np.allclose(figure.axes[0].lines[0].get_xydata(), points[:2])
    figure = graphs.monotone([0, 1], {"BCE": [0, 1], "ASL": [0.2, 1]}, "π", "p", points={"half": (0.5, 0.6)})
    assert words(figure) == {"half"} and len(figure.axes[0].lines) == 5
    assert Image.open(io.BytesIO(plots.png(figure))).size[0] > 100


def run_of(seed, mAP, **choices):
    logits = torch.zeros(2, 4)
    test = {"mAP": mAP, "ECE_pooled": 0.02, "NLL": 0.15} | ({} if seed else {"true_CE_pooled": 0.01})
    return Run(recipe("parallel", seed=seed, **choices), logits, logits, None, None, {"test": test}, [], {})


@pytest.fixture
def explorer(monkeypatch):
    monkeypatch.setattr(experiments, "labels", lambda chosen, split: Split(tuple(NAMES), torch.zeros(2, 4), None, None))
    one = {"co": [[0, 1, 2, 3]]}
    cut = {(1, "both"): one, (1, "random"): one, (2, "both"): {"co": CGP, "dis": DGP}, (2, "random"): {"co": DGP}}
    runs = {(2, "both"): [run_of(seed, 0.7 + seed / 100, co=CGP, dis=DGP) for seed in range(3)], (1, "both"): []}
    return PartitionExplorer(S, NAMES, cut, runs, [run_of(seed, 0.68 + seed / 200) for seed in range(4)])


def test_a_trained_setting_shows_what_was_measured_and_the_difference_paired_by_seed(explorer):
    explorer.move(k=2, strategy="both")
    apart = paired_difference([70, 71, 72], [68, 68.5, 69])
    readout = html.unescape(explorer.readout.value)
    assert (
        "3 seeds" in readout
        and "71.00 [68.52, 73.48] %" in readout
        and f"{apart.mean:+.2f} [{apart.low:+.2f}, {apart.high:+.2f}], higher" in readout
    )
    assert explorer.measure(2, "both")["pooled true error"] == "–", "one seed lacks it"
    assert explorer.measure(2, "both")["NLL"] == "0.1500 [0.1500, 0.1500] nats"
    assert "boat fish" in explorer.table.value and "boat cup" in explorer.table.value


@pytest.mark.parametrize("setting", [(1, "both"), (1, "random"), (2, "random")])
def test_a_setting_without_runs_shows_its_graph_and_says_that_nothing_was_trained(explorer, setting):
    explorer.move(k=setting[0], strategy=setting[1])
    readout = html.unescape(explorer.readout.value)
    assert "no number to show" in readout and "mAP" not in readout
    assert Image.open(io.BytesIO(drawn(explorer))).size[0] > 100


def test_a_grid_with_a_gap_and_a_setting_off_the_grid_are_refused(explorer):
    with pytest.raises(ValueError, match="no partitions for"):
        PartitionExplorer(S, NAMES, {(1, "both"): {"co": CGP}, (2, "random"): {"co": CGP}}, {}, [])
    with pytest.raises(ValueError, match="no run of seed 2"):
        PartitionExplorer(S, NAMES, explorer.partitions, explorer.runs, [run_of(seed, 0.7) for seed in range(2)])
    with pytest.raises(ValueError, match="was not"):
        explorer.move(k=3)
