"""Lesson 03: the network with two branches, and which classes a partial softmax compares."""

import torch

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, INK, PLAIN, WHITE, Diagram
from notebooks.diagrams.parts import CLASSES, PRESENT, number, picture, stack
from udlib.losses import pal_n_loss, partial_softmax

LOGITS = (1.2, 0.6, 0.2, -0.8)  # of the calibration branch
TILE, GAP, HIGH = 44, 11, 23  # points: width of a tile, space for the plus sign, height


def two_branches() -> Diagram:
    """Both branches on the same pooled features, their losses, and what λ weighs."""
    d = Diagram(
        640,
        298,
        "The network with two branches and its loss",
        "The backbone and the pooling make one vector of features for both branches. The classification branch, one"
        " fully connected layer, gives logits; a sigmoid and the targets make the binary cross-entropy L_b of Eq. "
        "3. The calibration branch, fully connected, batch normalisation, ReLU, fully connected, gives calibration "
        "logits; a partial softmax and the targets make PAL-N, L_ps of Eq. 11. The total of Eq. 12 is L_b plus λ "
        "times L_ps.",
    )
    image = picture(d, 6, 107, 62)
    d.text(37, 184, "image $x$")
    backbone = d.box(82, 112, 68, 52, "backbone")
    features = stack(d, 164, 120, 38)
    d.text(187, 184, "features")
    pooled = d.box(226, 100, 56, 76, "pooling", PLAIN)
    d.text(254, 196, "shared by\nboth")
    d.text(
        6,
        258,
        "Both losses train the backbone.\nλ scales the gradient that the\ncalibration branch sends there.",
        align="left",
    )
    d.arrow(image.right(), backbone.left())
    d.arrow(backbone.right(), (164, 138))
    d.arrow((features.right()[0], 138), pooled.left())
    top, low = 60, 216
    d.text(308, 17, "classification branch", align="left", weight="bold")
    d.text(308, 265, "calibration branch", align="left", weight="bold")
    d.text(308, 284, "for training and distillation; a prediction can leave it out", align="left")
    fc = d.box(308, top - 31, 96, 62, "FC → logits", CLASSIFICATION)
    bce = d.box(430, top - 31, 96, 62, "sigmoid,\nBCE  $L_b$\n(Eq. 3)", CLASSIFICATION)
    layers = d.box(308, low - 34, 96, 68, "FC, BN, ReLU,\nFC → calibra-\ntion logits", CALIBRATION)
    pal = d.box(430, low - 34, 96, 68, "partial softmax,\nPAL-N  $L_{ps}$\n(Eq. 11)", CALIBRATION)
    total = d.box(550, 102, 84, 72, "$L = L_b$\n$+\\ \\lambda\\, L_{ps}$\n(Eq. 12)", fill=WHITE, edge=INK, lw=1.6)
    targets = d.box(440, 120, 76, 36, "targets $y$", fill=WHITE)
    for branch, loss, role, share in ((fc, bce, CLASSIFICATION, 0.3), (layers, pal, CALIBRATION, 0.7)):
        x, y = pooled.right(share)
        d.arrow((x, y), (294, y), (294, branch.left()[1]), branch.left(), role=role, lw=1.6)
        d.arrow(branch.right(), loss.left(), role=role, lw=1.6)
    d.arrow(targets.top(), bce.bottom())
    d.arrow(targets.bottom(), pal.top())
    d.arrow(bce.right(), (592, top), total.top(), role=CLASSIFICATION, lw=2.6, head=9)
    d.arrow(pal.right(), (592, low), total.bottom(), role=CALIBRATION, lw=1.2)
    d.text(600, 80, "× 1", align="left")
    d.text(600, 196, "× λ", align="left")
    return d


def tiles(d: Diagram, x: float, y: float, one: int, left_out: tuple[int, ...], value: float) -> None:
    """The softmax of class `one` as a fraction of tiles, from its left end x; y is its fraction line."""
    colors = [CLASSIFICATION if present else PLAIN for present in PRESENT]
    d.text(x + 42, y, f"$f_\\mathrm{{{CLASSES[one]}}}$  =", align="right")
    start = x + 50
    width = 4 * TILE + 3 * GAP
    d.line([(start, y), (start + width, y)], lw=1.2)
    d.box(start + (width - TILE) / 2, y - HIGH - 5, TILE, HIGH, CLASSES[one], colors[one])
    for k, name in enumerate(CLASSES):
        at = start + k * (TILE + GAP)
        if k in left_out:
            d.box(at, y + 5, TILE, HIGH, name, fill=WHITE, line=(0, (2, 2)), lw=1.0)
            d.line([(at + 4, y + 24), (at + TILE - 4, y + 9)], lw=1.6, zorder=6)
        else:
            d.box(at, y + 5, TILE, HIGH, name, colors[k])
        if k and k - 1 not in left_out and k not in left_out or k > 1 and k - 1 in left_out:
            d.text(at - GAP / 2, y + 5 + HIGH / 2, "+")
    d.text(start + width + 8, y, f"= {number(value)}", align="left")


def partial_softmax_of_one_image() -> Diagram:
    """The denominators of a full and of a partial softmax, for the two positives of one image."""
    z, y = torch.tensor([LOGITS], dtype=torch.float64), torch.tensor([PRESENT])
    full, partial = z.softmax(1)[0].tolist(), partial_softmax(z, y)[0].tolist()
    d = Diagram(
        640,
        312,
        "The denominators of a full and of a partial softmax",
        "An image shows a cup and a book; lamp and boat are absent. In a full softmax all four classes stand in the"
        " denominator of each probability. In a partial softmax the other positive is left out: the cup competes "
        f"with lamp and boat, and so does the book. Cup: {full[0]:.2f} in the full softmax, {partial[0]:.2f} in the "
        f"partial one. Book: {full[1]:.2f} and {partial[1]:.2f}.",
    )
    picture(d, 8, 8, 54)
    d.text(76, 25, "positives $C_p$:", align="left")
    d.text(76, 48, "negatives $C_n$:", align="left")
    for k, name in enumerate(CLASSES):
        d.box(166 + 52 * (k % 2), 13.5 if PRESENT[k] else 37.5, TILE, 20, name, CLASSIFICATION if PRESENT[k] else PLAIN)
    d.text(290, 25, "A tile stands for $e^{z}$ of its class; $z$ are the logits", align="left")
    d.text(290, 46, "of the calibration branch.", align="left")
    rows = {
        "Full softmax: the positives compete with each other, too": (full, ((), ())),
        "Partial softmax (Eq. 10): a positive competes with the negatives alone": (partial, ((1,), (0,))),
    }
    for r, (words, (values, left_out)) in enumerate(rows.items()):
        at = 88 + 104 * r
        d.line([(8, at - 14), (632, at - 14)], lw=0.6)
        d.text(8, at + 2, words, align="left", weight="bold")
        for one in (0, 1):
            tiles(d, 4 + 324 * one, at + 46, one, left_out[one], values[one])
    d.line([(8, 282), (632, 282)], lw=0.6)
    logs = " + ".join(f"\\log\\,{number(value)}" for value in partial[:2])
    loss = pal_n_loss(z, y).item()
    d.text(
        8,
        299,
        f"PAL-N of this image (Eq. 11):  $L_{{ps}} = -\\frac{{1}}{{2}}\\,({logs}) = {loss:.2f}$ nats",
        align="left",
    )
    return d


DIAGRAMS = {"two_branches": two_branches, "partial_softmax": partial_softmax_of_one_image}
