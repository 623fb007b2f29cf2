"""Lesson 05: what goes from the teacher to the student in knowledge distillation."""

import torch

from notebooks.diagrams.drawing import CLASSIFICATION, GRADIENT, INK, WHITE, Box, Diagram
from notebooks.diagrams.parts import CLASSES, PRESENT, bar, number, picture
from udlib.losses import bernoulli_kl

TEACHER = (0.94, 0.58, 0.12, 0.02)  # its probabilities, and the student's
STUDENT = (0.78, 0.36, 0.25, 0.06)


def what_kd_hands_on() -> Diagram:
    """Hard labels for the teacher, the teacher's soft labels for the student."""
    t, s = (torch.tensor([p]).logit() for p in (TEACHER, STUDENT))
    loss = bernoulli_kl(t, s).item()
    d = Diagram(
        640,
        280,
        "Knowledge distillation: what goes from the teacher to the student",
        "The teacher, a wide network, was trained on hard labels before. Now teacher and student see the same "
        "image. The teacher's sigmoids are the soft labels "
        + ", ".join(f"{name} {p:.2f}" for name, p in zip(CLASSES, TEACHER))
        + ". The loss of Eq. 13 is the mean over classes of the Kullback-Leibler divergence of the student's "
        "sigmoids from them. Its gradient goes to the student alone, which sees no hard label.",
    )
    labels = d.box(98, 8, 118, 28, "hard labels  " + ", ".join(map(str, PRESENT)), fill=WHITE)
    teacher = d.box(98, 66, 118, 58, "teacher\n(wide, trained\nbefore, now fixed)", lw=2.4)
    student = d.box(98, 178, 118, 58, "student\n(small, trained\nnow)", lw=1.2)
    d.arrow(labels.bottom(), teacher.top(), linestyle=(0, (4, 2)))
    d.text(164, 52, "before", align="left")
    image = picture(d, 8, 120, 62)
    d.text(39, 197, "image $x$")
    for network in (teacher, student):
        d.arrow(image.right(), (84, 151), (84, network.left()[1]), network.left())
    for network, values, top, words in (
        (teacher, TEACHER, 64, "soft labels  $T_i = \\sigma(t_i)$"),
        (student, STUDENT, 176, "sigmoids  $S_i = \\sigma(s_i)$"),
    ):
        d.text(340, top - 14, words)
        for k, (name, value) in enumerate(zip(CLASSES, values)):
            at = top + 7.5 + 16 * k
            d.text(284, at, name, align="right")
            bar(d, Box(291, at - 5.5, 88, 11), value, CLASSIFICATION, "////" if network is student else None)
            d.text(387, at, number(value), align="left")
        d.arrow(network.right(), (250, network.right()[1]), role=CLASSIFICATION, lw=1.8)
    criterion = d.box(470, 108, 164, 84, fill=WHITE, edge=INK, lw=1.6)
    d.text(
        552,
        134,
        "$L^{\\prime}_b = \\frac{1}{C}\\, \\sum_i\\; \\mathrm{KL}(T_i \\,\\|\\, S_i)$",
        size=12,
        inside=criterion,
    )
    d.text(552, 172, f"Eq. 13; here {loss:.3f} nats", inside=criterion)
    d.arrow((418, 95), (552, 95), criterion.top(), role=CLASSIFICATION, lw=1.8)
    d.arrow((418, 207), (520, 207), criterion.bottom((520 - 470) / 164), role=CLASSIFICATION, lw=1.8)
    d.arrow((584, 192), (584, 262), (157, 262), student.bottom(), role=GRADIENT, lw=1.8)
    d.text(250, 252, "gradient: to the student alone", align="left")
    return d


DIAGRAMS = {"what_kd_hands_on": what_kd_hands_on}
