"""Lesson 02: from one image to the loss."""

import torch

from notebooks.diagrams.drawing import CLASSIFICATION, Box, Diagram
from notebooks.diagrams.parts import CLASSES, PRESENT, bar, bracket, number, picture, stack
from udlib.losses import ova_loss

LOGITS = (2.0, 0.4, -1.5, -3.0)
TOP, STEP = 66, 34  # of the rows


def from_image_to_loss() -> Diagram:
    """The path of one image through the network, and one question per class."""
    z, y = torch.tensor([LOGITS]), torch.tensor([PRESENT])
    f, total = torch.sigmoid(z)[0].tolist(), ova_loss(z, y).item()
    losses = [ova_loss(z[:, [k]], y[:, [k]]).item() for k in range(len(CLASSES))]
    assert abs(sum(losses) - total) < 1e-5  # Eq. 3 is the sum of the questions
    rows = list(zip(CLASSES, LOGITS, f, PRESENT, losses))
    d = Diagram(
        640,
        232,
        "From one image to the loss: one question per class",
        "An image goes through the backbone to features, through pooling and the head to one logit per class. A "
        "sigmoid turns each logit into a probability, which is compared with the target of its class. The losses of"
        " the classes are added. "
        + " ".join(f"{n}: logit {a:g}, probability {b:.2f}, target {c}, loss {e:.2f}." for n, a, b, c, e in rows)
        + f" Sum: {total:.2f} nats.",
    )
    network(d)
    columns = {
        "logit\n$z_i$": 394,
        "sigmoid\n$f_i = \\sigma(z_i)$": 472,
        "target\n$y_i$": 543,
        "loss of the\nquestion": 593,
    }
    for words, x in columns.items():
        d.text(x, 24, words)
    d.line([(340, 45), (628, 45)], lw=0.8)
    for k, (name, z_k, f_k, y_k, loss) in enumerate(rows):
        at = TOP + STEP * k
        d.line([(318, 117), (329, 117), (329, at), (338, at)], CLASSIFICATION, lw=1.1)
        d.text(358, at, name)
        d.text(394, at, number(z_k, 1))
        d.arrow((410, at), (428, at), role=CLASSIFICATION, lw=1.2, head=6)
        bar(d, Box(433, at - 7, 46, 14), f_k, CLASSIFICATION)
        d.text(498, at, number(f_k))
        d.text(543, at, str(y_k))
        d.text(593, at, number(loss))
    last = TOP + 3 * STEP
    bracket(d, 622, TOP - 8, last + 8)
    d.text(
        622,
        last + 34,
        f"sum over classes, Eq. 3:  $\\ell_\\mathrm{{OVA}}$ = {total:.2f} nats",
        align="right",
        weight="bold",
    )
    d.text(
        8,
        last + 34,
        "The classes do not compete: each row is a\nquestion of its own. Dotted: the threshold 0.5.",
        align="left",
    )
    d.line([(622, TOP + 51), (630, TOP + 51), (630, last + 34), (626, last + 34)], lw=1.1)
    return d


def network(d: Diagram) -> None:
    """The left half: image, backbone, features, pooling and head."""
    image = picture(d, 8, 81, 72)
    d.text(44, 167, "image $x$")
    backbone = d.box(98, 90, 74, 54, "backbone")
    features = stack(d, 190, 100, 44)
    d.text(216, 167, "features")
    head = d.box(258, 90, 60, 54, "pooling,\nhead")
    d.arrow(image.right(), backbone.left())
    d.arrow(backbone.right(), (190, 117))
    d.arrow((features.right()[0], 117), head.left())


DIAGRAMS = {"from_image_to_loss": from_image_to_loss}
