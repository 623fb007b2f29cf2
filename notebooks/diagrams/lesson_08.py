"""Lesson 08: the learning rate with a restart, and who teaches whom."""

from matplotlib.patches import Circle

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, INK, PLAIN, WHITE, Box, Diagram
from udlib.training import TrainingConfig, learning_rate

HALF, EVERY, BEST = 40, 5, 35  # epochs: of each half, between two validations, of the best network of the first half
LEFT, EPOCH = 92, 6.6  # points: where epoch 0 is, and the width of an epoch


def at(epoch: float) -> float:
    """Where an epoch ends, in points from the left."""
    return LEFT + EPOCH * epoch


def restart() -> Diagram:
    """The learning rate over both halves, and below it the network and its teacher."""
    d = Diagram(
        640,
        326,
        "Self-distillation: a restart of the learning rate, and the best network so far as the teacher",
        "The learning rate rises and falls on a cosine over 40 epochs, goes back to its start, and does the same "
        "again until epoch 80. In the first half the network learns from hard labels, Eq. 12. It is validated every"
        " 5 epochs. At the restart a copy with the weights of the best epoch on validation becomes the teacher, "
        "which stays fixed. The last weights go on training as the student, on the teacher's answers, Eq. 18.",
    )
    rate(d)
    first = d.box(at(0) + 2, 166, HALF * EPOCH - 4, 44, "hard labels (Eq. 12)", CLASSIFICATION)
    second = d.box(
        at(HALF) + 12, 166, HALF * EPOCH - 12, 44, "student: the teacher’s answers (Eq. 18)", CALIBRATION, line="-"
    )
    d.text(LEFT - 8, 188, "network", align="right", weight="bold")
    d.arrow(first.right(), second.left(), lw=2.6, head=9)
    d.text(at(HALF) + 12, 153, "last weights, fresh optimiser", align="left")
    for epoch in range(EVERY, HALF + 1, EVERY):
        d.patch(
            Circle(
                (at(epoch), 224), 4, facecolor=INK if epoch == BEST else WHITE, edgecolor=INK, linewidth=1.0, zorder=4
            )
        )
    d.text(LEFT - 8, 224, "validation", align="right")
    teacher = d.box(at(HALF) + 12, 252, HALF * EPOCH - 12, 40, "teacher: a copy, fixed", PLAIN, lw=2.4)
    d.text(LEFT - 8, 272, "teacher", align="right", weight="bold")
    d.arrow((at(BEST), 228), (at(BEST), 272), teacher.left(), lw=1.8)
    d.text(at(BEST) - 8, 256, "best epoch on validation:\nits weights are copied", align="right")
    for share in (0.25, 0.5, 0.75):
        d.arrow(teacher.top(share), second.bottom(share), role=CALIBRATION, linestyle="-", lw=1.8)
    d.text((teacher.top(0.625))[0], 231, "answers")
    d.text(
        at(0),
        312,
        "Control: hard labels in the second half, too. It shows what the restart alone is worth.",
        align="left",
    )
    return d


def rate(d: Diagram) -> None:
    """The course's learning rate, step by step, and the line of the restart."""
    config = TrainingConfig(epochs=HALF)
    steps = 4 * HALF
    curve = [learning_rate(step, steps, config) / config.lr for step in range(steps)]
    frame = Box(at(0), 30, 2 * HALF * EPOCH, 84)
    d.line([frame.top(0), frame.bottom(0), frame.bottom(1)], lw=1.0)
    for half in (0, 1):
        points = [(at(HALF * half + (step + 1) / 4), 114 - 80 * value) for step, value in enumerate(curve)]
        d.line(points, lw=2.0)
    d.line([(at(HALF), 22), (at(HALF), 296)], lw=1.2, linestyle=(0, (2, 2)), zorder=1)
    d.text(at(HALF), 12, "restart", weight="bold")
    d.text(LEFT - 8, 60, "learning\nrate", align="right", weight="bold")
    for epoch in (0, BEST, HALF, 2 * HALF):
        d.text(at(epoch) + {BEST: -4, HALF: 11}.get(epoch, 0), 126, str(epoch), size=10)
    d.text(at(HALF / 2), 126, "epochs", size=10)
    d.text(at(3 * HALF / 2), 126, "epochs", size=10)


DIAGRAMS = {"restart": restart}
