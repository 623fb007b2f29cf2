"""Lesson 06: how the map of uncertainty attention is made."""

import numpy as np

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, GRADIENT, INK, WHITE, Box, Diagram, Role, mixed
from notebooks.diagrams.parts import number, picture, stack
from udlib.figures.style import BLUE, GREEN, PURPLE

WEIGHTS = np.array([0.6, -0.5, 0.1])  # w of three channels
CHANNELS = np.array(
    [
        [[0.1, 0.2, 0.0], [0.9, 0.7, 0.1], [0.6, 0.5, 0.0]],
        [[0.0, 0.3, 0.8], [0.1, 0.2, 0.9], [0.0, 0.1, 0.4]],
        [[0.5, 0.1, 0.3], [0.2, 0.6, 0.2], [0.7, 0.2, 0.5]],
    ]
)
ROW = 254  # the middle of the lower half


def uncertainty_map() -> Diagram:
    """Forward to the disagreement of both branches, back to a weight for each channel, and their weighted sum."""
    d = Diagram(
        640,
        358,
        "How an uncertainty map is made",
        "The backbone makes the features Z, pooling makes one number p_c of each channel c. Both branches answer, "
        "and each answer goes through a softmax over the classes. The KL divergence of the calibration branch's "
        "distribution from the classification branch's says how much they disagree. Its gradient goes back through "
        "both branches to the pooled features and gives each channel a weight w_c, Eq. 15. The map A is the sum of "
        "the channels of Z, each times its weight, Eq. 16. It has positive and negative cells.",
    )
    disagreement(d)
    d.text(
        258,
        203,
        "Eq. 15:  $w_c = \\sum_{hw}\\; \\partial\\mathrm{KL}/\\partial Z_{chw} = \\partial\\mathrm{KL}/\\partial p_c$",
    )
    d.text(632, 203, "Eq. 16:  $A_{hw} = \\sum_c\\; w_c\\, Z_{chw}$", align="right")
    d.text(8, 203, "Example: $D$ = 3", align="left")
    weighted_sum(d)
    d.text(
        8,
        336,
        "Positive cells (solid): stronger features there would make the branches disagree more. Negative cells\n"
        "(dashed): less. No ReLU, no normalisation; evaluation mode, but for a student in training.",
        align="left",
    )
    return d


def disagreement(d: Diagram) -> None:
    """The upper half: from the image to the KL of both branches, and the gradient back to the pooled features."""
    image = picture(d, 8, 63, 56)
    backbone = d.box(80, 68, 66, 46, "backbone")
    features = stack(d, 160, 73, 36)
    pooled = d.box(222, 62, 56, 58, "pooling\n→ $p_c$")
    d.text(184, 126, "features $Z$\n($D × h × w$)", first=True)
    logits = d.box(314, 14, 96, 46, "classification\nbranch", CLASSIFICATION)
    calibration = d.box(314, 122, 96, 46, "calibration\nbranch", CALIBRATION)
    outcome = {logits: d.box(432, 14, 80, 46, "softmax\n→ $T^o$", CLASSIFICATION)}
    outcome[calibration] = d.box(432, 122, 80, 46, "softmax\n→ $T^a$", CALIBRATION)
    kl = d.box(538, 62, 96, 58, "disagreement\n$\\mathrm{KL}(T^a \\,\\|\\, T^o)$", fill=WHITE, edge=INK, lw=1.6)
    d.arrow(image.right(), backbone.left())
    d.arrow(backbone.right(), (160, 91))
    d.arrow((features.right()[0], 91), pooled.left())
    for branch, role, share, end in (
        (logits, CLASSIFICATION, 0.2, kl.top()),
        (calibration, CALIBRATION, 0.8, kl.bottom()),
    ):
        x, y = pooled.right(share)
        level = branch.left()[1]
        d.arrow((x, y), (296, y), (296, level), branch.left(), role=role, lw=1.6)
        d.arrow(branch.right(), outcome[branch].left(), role=role, lw=1.6)
        d.arrow(outcome[branch].right(), (end[0], level), end, role=role, lw=1.6)
    d.arrow(kl.left(), pooled.right(), role=GRADIENT, lw=2.0)
    d.text(415, 80, "gradient, back through both branches")
    d.arrow(pooled.bottom(), (250, 192), role=GRADIENT, lw=2.0)
    d.text(258, 146, "$w_c$", align="left", size=12)


def weighted_sum(d: Diagram) -> None:
    """The lower half: three channels of Z with their weights, and the map."""
    result = np.einsum("c,chw->hw", WEIGHTS, CHANNELS)  # Eq. 16
    cell, x = 20, 6
    signs = ("", "+", "+")
    for sign, index, weight, channel in zip(signs, ("1", "2", "3"), WEIGHTS, CHANNELS):
        words = f"{sign}  $w_{index}$ ×"
        start = x + 30 + (22 if sign else 0)
        d.text(start - 7, ROW, words.strip(), align="right")
        for r, row in enumerate(channel):
            for c, value in enumerate(row):
                d.area(
                    start + c * cell, ROW + (r - 1.5) * cell, cell, cell, mixed(BLUE, 0.05 + 0.7 * value), linewidth=0.6
                )
        d.text(start + 30, ROW + 41, f"channel {index},\n$w_{index}$ = {number(weight, 1)}", first=True)
        x = start + 3 * cell + 14
    d.text(x + 8, ROW, "=")
    wide = 40
    for r, row in enumerate(result):
        for c, value in enumerate(row):
            place = Box(x + 26 + c * (wide + 3), ROW - 34 + r * 23, wide, 20)
            role = Role(PURPLE) if value >= 0 else Role(GREEN, (0, (3, 1.5)))
            ground = mixed(role.color, min(0.1 + abs(value), 0.6))
            d.box(place.x, place.y, place.width, place.height, number(value), role, fill=ground, radius=1, size=10)
    d.text(x + 26 + 3 * wide + 14, ROW, "uncertainty\nmap $A$\n($h × w$)", align="left")


DIAGRAMS = {"uncertainty_map": uncertainty_map}
