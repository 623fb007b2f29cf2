"""Lesson 10: the two softmaxes of a weakly-supervised detector."""

import torch

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, INK, PLAIN, WHITE, Box, Diagram, Role
from notebooks.diagrams.parts import CLASSES, PRESENT, matrix, number, picture, rounded
from udlib.methods.detection.losses import detection_logits

BOXES = "ABC"
CLASS_SCORES = ((2.6, 0.4, -0.2), (0.2, 2.2, 0.1), (0.5, 0.2, 0.9))  # M^c: a row for each box, a column for each class
REGION_SCORES = ((2.4, -0.6, 0.2), (-0.2, 2.3, 0.4), (0.4, 0.1, 0.5))  # M^d
CELL = (42, 20)  # points


def two_softmaxes() -> Diagram:
    """From the boxes of one image to one probability per class."""
    c, r = torch.tensor(CLASS_SCORES), torch.tensor(REGION_SCORES)
    of_classes, of_boxes = c.softmax(1), r.softmax(0)
    p = (of_classes * of_boxes).sum(0)
    library = torch.sigmoid(detection_logits(c, r, torch.zeros(3, dtype=torch.int64), 1))[0]
    assert torch.allclose(p, library, atol=1e-5)
    d = Diagram(
        640,
        322,
        "The two softmaxes of a weakly-supervised detector",
        "An image has three proposed boxes, A, B and C. The backbone, RoI pooling and two fully connected layers "
        "make a feature f_r of each box. Two heads give each box a score for each class. A softmax over the classes"
        " makes each row of the first table add up to 1: which class is this box? A softmax over the boxes makes "
        "each column of the second table add up to 1: which box is this class? The tables are multiplied entry by "
        "entry and added up over the boxes: "
        + ", ".join(f"{name} {value:.2f}" for name, value in zip(CLASSES, p.tolist()))
        + ". The BCE of these probabilities with the labels of the image is the loss.",
    )
    features = regions(d)
    tables = {
        "$S^c$: softmax over classes": (44, of_classes, CLASSIFICATION, "$M^c$"),
        "$S^d$: softmax over boxes": (216, of_boxes, CALIBRATION, "$M^d$"),
    }
    product = d_product(d, of_classes * of_boxes)
    for title, (top, values, role, scores) in tables.items():
        place = table(d, 306, top, values.tolist(), role, title)
        level = place.left()[1]
        end = (features.top() if top < 100 else features.bottom())[0]
        start = features.top() if top < 100 else features.bottom()
        d.arrow(start, (end, level), (288, level), role=role, lw=1.6)
        d.text(end + 8, level - 10, scores, align="left")
        target = product.left(0.3 if top < 100 else 0.7)
        d.arrow(place.right(), (452, level), (452, target[1]), (474, target[1]), role=role, lw=1.6)
        for k in range(3):
            x, y, (w, h) = place.x, place.y, CELL
            outline = Box(x, y + k * h, 3 * w, h) if role is CLASSIFICATION else Box(x + k * w, y, w, 3 * h)
            rounded(d, outline, role.dark, linestyle=role.line)
    d.text(369, 118, "each row adds up to 1:\nwhich class is this box?")
    d.text(369, 290, "each column adds up to 1:\nwhich box is this class?")
    total(d, product, p.tolist())
    return d


def regions(d: Diagram) -> Box:
    """The left third: the image with its boxes, and what makes a feature of each; returns the last part."""
    image = picture(d, 8, 118, 84)
    for name, (u, v, w, h) in zip(BOXES, ((0.06, 0.34, 0.46, 0.46), (0.5, 0.2, 0.44, 0.64), (0.02, 0.66, 0.6, 0.31))):
        place = Box(8 + 84 * u, 118 + 84 * v, 84 * w, 84 * h)
        rounded(d, place, INK, linewidth=1.6, linestyle="-" if name != "C" else (0, (3, 2)))
    for name, (x, y) in zip(BOXES, ((20, 138), (58, 126), (21, 192))):
        d.area(x - 7, y - 7, 14, 14, WHITE, zorder=5, linewidth=0.8)
        d.text(x, y, name, zorder=6)
    d.text(50, 220, "image with\n$R$ proposals", first=True)
    backbone = d.box(110, 132, 66, 56, "backbone,\nRoI\npooling")
    features = d.box(194, 132, 60, 56, "two FC\nlayers\n→ $f_r$")
    d.arrow(image.right(), backbone.left())
    d.arrow(backbone.right(), features.left())
    return features


def table(d: Diagram, x: float, y: float, values: list, role: Role, title: str) -> Box:
    """A table of boxes and classes with its names."""
    place = matrix(d, x, y, CELL, values, role)
    d.text(place.top()[0], y - 30, title, weight="bold")
    for k in range(3):
        d.text(x + (k + 0.5) * CELL[0], y - 11, CLASSES[k], size=10)
        d.text(x - 9, y + (k + 0.5) * CELL[1], BOXES[k], size=10)
    return place


def d_product(d: Diagram, values: torch.Tensor) -> Box:
    """The product of both tables."""
    return table(d, 494, 120, values.tolist(), PLAIN, "product  $S^c_{rk}\\, S^d_{rk}$")


def total(d: Diagram, product: Box, p: list[float]) -> None:
    """The sum over the boxes, and the loss."""
    for k, value in enumerate(p):
        x = product.x + (k + 0.5) * CELL[0]
        d.arrow((x, 182), (x, 208))
        d.box(x - 19, 210, 38, 22, number(value), fill=WHITE, edge=INK, lw=1.6)
    d.text(product.x - 6, 196, "Σ", align="right")
    d.text(product.x - 6, 221, "$p_k$", align="right", size=12)
    labels = ", ".join(map(str, PRESENT[:3]))
    loss = d.box(478, 268, 156, 44, f"BCE with the labels\n{labels} of the image", fill=WHITE, edge=INK)
    d.arrow((product.x + 63, 232), (product.x + 63, loss.y))


DIAGRAMS = {"two_softmaxes": two_softmaxes}
