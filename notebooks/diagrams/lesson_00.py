"""Lesson 00: how the ideas of the course belong together."""

from notebooks.diagrams.drawing import ATTENTION, CALIBRATION, CLASSIFICATION, INK, PLAIN, WHITE, Box, Diagram

HEADING = {"weight": "bold", "align": "left"}


def concept_map() -> Diagram:
    """Each idea in a box with its lesson; each arrow says what one does for the other."""
    d = Diagram(
        640,
        450,
        "The ideas of the course, and how they belong together",
        "A network turns a picture into a probability for each label (lesson 02). Binary cross-entropy trains it with "
        "the labels (lesson 02), and a calibration branch, trained with the PAL-N loss, is added beside it (lesson 03). "
        "The calibration error says whether the probabilities can be trusted, and a temperature corrects them after the "
        "training (lesson 04). A trained network becomes a teacher: knowledge distillation passes its probabilities on "
        "to a student (lesson 05). Where the two branches disagree, there is uncertainty, and an uncertainty map shows "
        "the place (lesson 06). Uncertainty distillation passes on the answers of both branches and this map (lesson "
        "07). The teacher may also be the network itself (lesson 08), several specialists (lesson 09) or a detector "
        "(lesson 10). Lesson 11 does all this on your own images.",
    )
    _draw_network(d)
    teacher, distillation = _draw_distillation(d)
    _draw_other_teachers(d, teacher, distillation)
    return d


def _draw_network(d: Diagram) -> None:
    """The upper part: what trains one network, and what measures and corrects its probabilities."""
    d.text(8, 14, "One network", **HEADING)
    labels = d.box(8, 30, 118, 48, "pictures with\nseveral labels · 01", fill=WHITE)
    network = d.box(232, 30, 118, 48, "network: backbone\nand heads · 02", CLASSIFICATION)
    answers = d.box(480, 30, 152, 48, "a probability\nfor each label · 02", CLASSIFICATION)
    d.arrow(labels.right(), network.left())
    d.text(179, 44, "are shown to a", size=10)
    d.arrow(network.right(), answers.left())
    d.text(415, 44, "computes", size=10)

    bce = d.box(8, 120, 118, 48, "binary\ncross-entropy · 02", CLASSIFICATION)
    branch = d.box(232, 120, 118, 48, "calibration branch,\nPAL-N loss · 03", CALIBRATION)
    error = d.box(480, 104, 152, 34, "calibration error · 04", fill=WHITE, edge=INK)
    temperature = d.box(480, 164, 152, 34, "temperature · 04", CALIBRATION)
    d.arrow(bce.right(0.3), (190, bce.right(0.3)[1]), (190, 66), (232, 66))
    d.text(158, 122, "trains", size=10)
    d.arrow(branch.top(), network.bottom())
    d.text(296, 99, "trains too,\nwith weight λ", size=10, align="left")
    d.arrow(error.top(0.25), answers.bottom(0.25))
    d.text(524, 91, "measures", size=10, align="left")
    d.arrow(temperature.right(0.5), (637, 181), (637, 54), answers.right())
    d.text(560, 151, "corrects after training", size=10)


def _draw_distillation(d: Diagram) -> tuple[Box, Box]:
    """The middle: what a teacher passes on to a student; returns the boxes of the teacher and of UD."""
    d.text(8, 212, "A teacher and a student", **HEADING)
    teacher = d.box(8, 228, 118, 48, "teacher: a\ntrained network", CLASSIFICATION, lw=2.2)
    kd = d.box(196, 228, 190, 34, "KD: its probabilities · 05", CLASSIFICATION)
    both = d.box(196, 270, 190, 34, "calibration branch’s answers · 07", CALIBRATION)
    where = d.box(196, 312, 190, 48, "uncertainty map: where the\nbranches disagree · 06", ATTENTION)
    student = d.box(500, 228, 132, 48, "student", CLASSIFICATION)
    ud = d.box(424, 312, 208, 48, "UD, uncertainty\ndistillation: all three · 07", fill=WHITE, edge=INK, lw=2.2)
    d.arrow(teacher.right(0.36), kd.left())
    d.arrow(teacher.bottom(0.75), (96.5, 287), both.left())
    d.arrow(teacher.bottom(0.45), (61, 336), where.left())
    d.text(161, 250, "gives", size=10)
    d.arrow(kd.right(), student.left(0.36))
    d.text(444, 230, "teaches", size=10)
    for place in (both, where):
        d.line([place.right(), (405, place.right()[1]), (405, 336), (412, 336)])
    d.line([(386, 252), (405, 252), (405, 290)])
    d.arrow((405, 336), ud.left())
    d.arrow(ud.top(0.68), student.bottom(0.5))
    d.text(572, 294, "teaches", size=10, align="left")
    return teacher, ud


def _draw_other_teachers(d: Diagram, teacher: Box, ud: Box) -> None:
    """The last row: who else may be the teacher, and the lesson that does all of it on one's own images."""
    row = 396
    itself = d.box(8, row, 118, 48, "the network\nitself · 08", PLAIN)
    parts = d.box(142, row, 154, 48, "specialists for parts\nof the classes · 09", PLAIN)
    detector = d.box(312, row, 112, 48, "a detector · 10", PLAIN)
    own = d.box(472, row, 160, 48, "your own images:\nall of this · 11", fill=WHITE, edge=INK)
    d.line([detector.top(), (detector.top()[0], 384), (28, 384)])
    d.line([parts.top(), (parts.top()[0], 384)])
    d.line([itself.top(), (itself.top()[0], 384)])
    d.arrow((28, 384), (28, teacher.bottom()[1]))
    d.text(36, 373, "may be the teacher", size=10, align="left")
    d.arrow(own.top(0.5), (own.top()[0], ud.bottom()[1]))
    d.text(560, 379, "uses", size=10, align="left")


DIAGRAMS = {"concept_map": concept_map}
