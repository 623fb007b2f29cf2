"""Lesson 07: what goes from the teacher to the student in KD, KD + distribution and UD."""

from notebooks.diagrams.drawing import ATTENTION, CALIBRATION, CLASSIFICATION, INK, Diagram, mixed
from notebooks.diagrams.parts import picture

COLUMNS, WIDE = (224, 364, 504), 130  # left ends and width
TERMS = (
    (
        CLASSIFICATION,
        "sigmoids\nof the logits  $T^o$",
        "sigmoids\nof the logits  $S^o$",
        "$L^{\\prime}_b$  (Eq. 13)\nKL, weight 1",
    ),
    (
        CALIBRATION,
        "softmax of the cali-\nbration logits  $T^a$",
        "softmax of the cali-\nbration logits  $S^a$",
        "$L^{\\prime}_{ps}$  (Eq. 14)\nKL, weight α = 0.5",
    ),
    (ATTENTION, "uncertainty\nmap  $A_T$", "uncertainty\nmap  $A_S$", "$L_{att}$  (Eq. 17)\nnorm, weight β = 0.5"),
)
STUDENTS = (
    ("KD", "$L^{\\prime}_b$"),
    ("KD + distribution", "$L^{\\prime}_b + \\alpha\\, L^{\\prime}_{ps}$"),
    ("UD", "$L^{\\prime}_b + \\alpha\\, L^{\\prime}_{ps} + \\beta\\, L_{att}$   (Eq. 18)"),
)


def three_students() -> Diagram:
    """Three terms between teacher and student, and which student has which."""
    d = Diagram(
        640,
        352,
        "What the student learns from the teacher in KD, KD + distribution and UD",
        "Teacher and student see the same image, and each gives three answers: the sigmoids of its logits, the "
        "softmax of its calibration logits, and its uncertainty map. Three terms compare them: the KL divergence of"
        " Eq. 13 with weight 1, the KL divergence of Eq. 14 with weight α, which is 0.5 in the paper, and the norm "
        "of Eq. 17 with weight β, also 0.5. KD has the first term, KD + distribution the first two, UD all three, "
        "Eq. 18. No term holds a hard label, and the gradient goes to the student alone.",
    )
    image = picture(d, 6, 98, 58)
    d.text(35, 171, "image $x$")
    teacher = d.box(92, 20, 104, 58, "teacher\n(fixed)", lw=2.4)
    student = d.box(92, 176, 104, 58, "student\n(trained)", lw=1.2)
    for network in (teacher, student):
        middle = network.left()[1]
        d.arrow(image.right(), (78, 127), (78, middle), network.left())
        d.area(216, middle - 37, 422, 74, (0.96, 0.96, 0.96), linewidth=0, zorder=1)
        d.arrow(network.right(), (216, middle))
    for x, (role, theirs, ours, loss) in zip(COLUMNS, TERMS):
        above = d.box(x, 24, WIDE, 50, theirs, role)
        term = d.box(x, 104, WIDE, 46, loss, role, fill=(1, 1, 1), lw=2.0)
        below = d.box(x, 180, WIDE, 50, ours, role)
        d.arrow(above.bottom(), term.top(), role=role, lw=2.2, head=9)
        d.arrow(below.top(), term.bottom(), role=role, lw=1.4)
    d.text(92, 252, "No hard label takes part. The gradient of the loss goes to the student alone.", align="left")
    for k, (name, loss) in enumerate(STUDENTS):
        y = 270 + 27 * k
        d.text(208, y + 11, name, align="right", weight="bold")
        ground = mixed(INK, 0.08 + 0.05 * k)
        d.box(COLUMNS[0], y, COLUMNS[k] + WIDE - COLUMNS[0], 22, loss, fill=ground, radius=3, lw=1.0)
    return d


DIAGRAMS = {"three_students": three_students}
