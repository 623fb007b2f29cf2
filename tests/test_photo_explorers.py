"""The explorers on `photos`: λ shows numbers, for which no photograph is needed; attention looks at photographs."""

import html
import re

import pytest
import torch
from photographs import PHOTOGRAPHS, needs_photographs
from torch.nn import functional as F

from udlib.attention import uncertainty_attention
from udlib.backbones import backbone
from udlib.course.explorers import AttentionExplorer, LambdaExplorer
from udlib.course.photo_arms import photo_sweep, shipped_photo_student
from udlib.course.runs import Run
from udlib.datasets.base import to_memory
from udlib.datasets.photos import photos
from udlib.heads import DualBranchNet
from udlib.metrics import average_precision
from udlib.training.evaluation import Split, measure


@pytest.fixture
def hidden(monkeypatch):
    monkeypatch.setenv("UDLIB_PHOTOS", "none")


@pytest.fixture
def sweep(hidden):
    """Made-up runs of two λ and two seeds: the labels, hidden in noise."""
    test, sweep = photos("test"), photo_sweep()
    split = Split(test.classes, test.targets, test.difficult, None)

    def run(recipe, noise):
        draws = torch.Generator().manual_seed(recipe.training.seed)
        logits = 2 * test.targets.float() - 3 + noise * torch.randn(test.targets.shape, generator=draws)
        return Run(recipe, logits, logits, None, None, {"test": measure(logits, split)}, [], {})

    return {lam: [run(recipe, noise) for recipe in sweep[lam][:2]] for lam, noise in ((0.1, 1.0), (0.0, 2.0))}


def test_the_lambda_explorer_needs_no_photographs(sweep):
    explorer, test = LambdaExplorer(sweep, samples=5, warm=False), photos("test")
    assert explorer.value == (0.0, 0)
    explorer.move(λ=0.1, seed=1)
    run, readings = sweep[0.1][1], html.unescape(explorer.readout.value)
    for name, key in (("mAP", "mAP"), ("mAP, Difficult", "mAP_difficult"), ("ECE, pooled", "ECE_pooled")):
        assert f"{name}<br><b>{100 * run.metrics['test'][key]:.1f}" in readings, name
    assert "true error" not in readings, "nobody knows the posterior of a photograph"
    ap = average_precision(run.probabilities(), test.targets, test.difficult)
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in explorer.table.value.split("</tr>")[1:-1]]
    assert [row[0] for row in rows] == list(test.classes) and len(rows) == 29
    assert [row[1] for row in rows] == [str(int(count)) for count in test.targets.sum(0)]
    assert [row[2] for row in rows] == [f"{100 * value:.1f}" for value in ap]


def network(name, seed):
    torch.manual_seed(seed)
    return DualBranchNet(backbone(name), 29, embedding=8).eval()


def test_the_attention_explorer_says_how_to_get_photographs_that_are_not_there(hidden):
    with pytest.raises(FileNotFoundError, match=r"`udlib data photos --coco ROOT` makes the folder"):
        AttentionExplorer({"small": network("small_narrow", 0)}, photos("test"), [0], 240, crop=128)


@needs_photographs
def test_each_network_sees_a_photograph_at_its_own_size_in_its_own_colours():
    models = {"student": network("efficientnet_lite0", 0), "teacher": network("small_narrow", 1)}
    test, recipe = photos("test", root=PHOTOGRAPHS), shipped_photo_student()
    row = next(i for i in range(len(test)) if test.difficult[i].any() and test.boxes(i))
    crops = {"student": recipe.side, "teacher": 224}
    explorer = AttentionExplorer(models, test, [row], recipe.size, crop=crops)
    assert "Error" not in explorer.readout.value
    pixels = to_memory(test.subset([row]), 240).float() / 255
    for name, side, mean, std, cells in (
        ("student", 128, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], 4),
        ("teacher", 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 28),
    ):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        image = (F.interpolate(pixels, (side, side), mode="bilinear", antialias=True) - mean) / std
        with torch.no_grad():
            prediction = models[name](image)
        torch.testing.assert_close(explorer.predictions[name].logits.clone(), prediction.logits, rtol=1e-3, atol=1e-4)
        heat = explorer.look(row, name, "uncertainty")[0]
        expected = uncertainty_attention(models[name].head, prediction.features)[0]
        torch.testing.assert_close(heat.clone(), expected, rtol=1e-2, atol=1e-6)
        assert explorer.measure(row, name, "uncertainty")["cells of the map"] == f"{cells} × {cells}"
