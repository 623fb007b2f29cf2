"""Lesson 09: two partitions of the classes, a specialist for each part, and one student."""

from notebooks.diagrams.drawing import CALIBRATION, CLASSIFICATION, INK, WHITE, Box, Diagram, Role
from notebooks.diagrams.parts import rounded

# Rows: classes that often share an image. Columns: one class of each row.
NAMES = (("cup", "lamp", "book"), ("boat", "fish", "bird"), ("car", "tree", "ball"))
TILE, HIGH, GAP = 46, 19, 17  # points
STEP = (TILE + GAP, HIGH + GAP)


def specialists() -> Diagram:
    """The graph of the classes, cut twice; the specialists; the student and its three terms."""
    d = Diagram(
        640,
        410,
        "Parallel self-distillation: two partitions, six specialists, one student",
        "Nine classes stand in three rows; classes of one row often share an image. The co-occurrence partition, "
        "CGP, cuts the graph between the rows, the dis-occurrence partition, DGP, makes parts of classes that "
        "seldom meet, here the columns. Each part has a specialist, a network that knows only the classes of the "
        "part and is trained on all images by the asymmetric loss. The logits of the three specialists of a "
        "partition, in the global order of the classes, are z_co and z_dis. The student knows all classes. Its loss"
        " is half the asymmetric loss with the labels, plus half α times the squared distance to z_co, plus half "
        "one minus α times that to z_dis.",
    )
    groups = {"co": (CLASSIFICATION, 12), "dis": (CALIBRATION, 456)}
    d.text(12, 14, "CGP: often together", align="left", weight="bold")
    d.text(628, 14, "DGP: seldom together", align="right", weight="bold")
    for kind, (role, x) in groups.items():
        graph(d, x, 40, kind, role)
    labels = d.box(252, 50, 136, 54, "training labels $Y$\n→ affinity $S$", fill=WHITE)
    d.arrow(labels.left(), (194, 77), role=CLASSIFICATION)
    d.arrow(labels.right(), (446, 77), role=CALIBRATION)
    d.text(224, 64, "cut $S$")
    d.text(418, 64, "cut 1 − $S$")
    images = d.box(252, 176, 136, 46, "all images and\ntheir labels $y$", fill=WHITE)
    answers = {}
    for kind, (role, x) in groups.items():
        d.text(x + 86, 155, "one specialist for each part")
        d.area(x - 6, 166, 184, 66, (0.96, 0.96, 0.96), linewidth=0, zorder=1)
        for k in range(3):
            classes = NAMES[k] if kind == "co" else [row[k] for row in NAMES]
            part = d.box(x + 60 * k, 174, 52, 50, "\n".join(classes), role)
            d.arrow(part.bottom(), (part.bottom()[0], 250), role=role)
        answers[kind] = d.box(x, 250, 172, 32, f"logits  $z^\\mathrm{{{kind}}}$  of all classes", role)
    d.arrow(images.left(), (190, 199))
    d.arrow(images.right(), (450, 199))
    d.text(219, 188, "ASL")
    d.text(421, 188, "ASL")
    student(d, images, answers)
    return d


def graph(d: Diagram, x: float, y: float, kind: str, role: Role) -> None:
    """The classes as tiles, thick lines within a row, thin ones between rows, and the parts around them."""
    for r, row in enumerate(NAMES):
        for c, name in enumerate(row):
            left, top = x + c * STEP[0], y + r * STEP[1]
            d.box(left, top, TILE, HIGH, name, fill=WHITE, radius=3, lw=0.9, size=10)
            if c < 2:
                d.line([(left + TILE, top + HIGH / 2), (left + STEP[0], top + HIGH / 2)], lw=2.6)
            if r < 2:
                d.line([(left + TILE / 2, top + HIGH), (left + TILE / 2, top + STEP[1])], lw=0.7)
    wide, high = 2 * STEP[0] + TILE, 2 * STEP[1] + HIGH
    for k in range(3):
        place = Box(x - 5, y - 5 + k * STEP[1], wide + 10, HIGH + 10)
        if kind == "dis":
            place = Box(x - 5 + k * STEP[0], y - 5, TILE + 10, high + 10)
        rounded(d, place, role.dark, linestyle=role.line)


def student(d: Diagram, images: Box, answers: dict[str, Box]) -> None:
    """The lower third: the student and the terms of its loss."""
    network = d.box(252, 262, 136, 46, "student:\nall classes → $z$", lw=1.2)
    d.arrow(images.bottom(), network.top())
    terms = {
        "co": d.box(
            12, 336, 188, 36, "$\\frac{1}{2}\\,\\alpha\\, \\| z - z^\\mathrm{co} \\|^2$", CLASSIFICATION, size=12
        ),
        "labels": d.box(252, 336, 136, 36, "$\\frac{1}{2}\\,\\mathrm{ASL}(z, y)$", fill=WHITE, edge=INK, size=12),
        "dis": d.box(
            440, 336, 188, 36, "$\\frac{1}{2}\\,(1 - \\alpha)\\, \\| z - z^\\mathrm{dis} \\|^2$", CALIBRATION, size=12
        ),
    }
    d.arrow(network.bottom(), terms["labels"].top())
    d.arrow(network.left(0.8), (190, network.left(0.8)[1]), (190, 336))
    d.arrow(network.right(0.8), (450, network.right(0.8)[1]), (450, 336))
    d.arrow(answers["co"].bottom(), (answers["co"].bottom()[0], 336), role=CLASSIFICATION)
    d.arrow(answers["dis"].bottom(), (answers["dis"].bottom()[0], 336), role=CALIBRATION)
    d.text(226, 354, "+", size=14)
    d.text(414, 354, "+", size=14)
    d.text(
        320,
        396,
        "The loss of the student, with α = 0.5. The specialists are trained before and fixed now; the cuts are an example.",
    )


DIAGRAMS = {"specialists": specialists}
