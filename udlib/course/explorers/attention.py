"""The explorer of attention: a picture, a network and a kind of map, which is drawn over the picture."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from udlib.attention import class_attention, energy_inside, uncertainty_attention
from udlib.course.explorers.base import Explorer, Frame
from udlib.datasets.base import MultiLabelDataset, to_memory
from udlib.datasets.transforms import normalise
from udlib.figures import overlays
from udlib.heads import DualBranchNet, Prediction
from udlib.losses import softmax_kl
from udlib.training.localisation import box_mask
from udlib.training.optimization import normalisation_of


class AttentionExplorer(Explorer):
    """Picture, network and map under three sliders: where a network looks, and what its two heads answer.

    `MAPS` names the kinds of map: uncertainty attention (a network without a calibration branch has none), and class
    attention, without ReLU, of the most probable class and of the least certain one (p nearest ½). Each network sees
    all pictures once, at the start, normalised by the mean and the standard deviation that it expects. A frame is drawn
    when it is first shown, and then kept.

    Args:
        models: Trained networks by name.
        dataset: The data set of the pictures.
        rows: The pictures of the data set to offer.
        size: Side in pixels of the squares that the pictures are stretched to.
        start: First value of some sliders, by name.
        warm: Whether to draw all frames now.
        crop: Side in pixels to which these squares are resized for a network that was trained on crops of them: one
            for all networks, or one by name; 0 leaves them as they are.

    Raises:
        ValueError: Without a network, without a picture, or without the side of one of the networks.
        FileNotFoundError: The pictures are not there; the message says how to get them.
    """

    origin = "loaded"
    MAPS = ("uncertainty", "most probable class", "least certain class")

    def __init__(
        self,
        models: Mapping[str, DualBranchNet],
        dataset: MultiLabelDataset,
        rows: Sequence[int],
        size: int = 64,
        start: Mapping[str, Hashable] | None = None,
        warm: bool = False,
        crop: int | Mapping[str, int] = 0,
    ):
        self.models, self.dataset, self.rows, self.size = dict(models), dataset, list(rows), size
        if not self.models or not self.rows:
            raise ValueError(f"{len(self.models)} networks and {len(self.rows)} pictures: give at least one of each")
        sides = crop if isinstance(crop, Mapping) else dict.fromkeys(self.models, crop)
        if missing := [name for name in self.models if name not in sides]:
            raise ValueError(f"crop has no side for '{missing[0]}': give one for each of {', '.join(self.models)}")
        images = to_memory(dataset.subset(self.rows), size)
        self.predictions = {name: _predict(model, images, sides[name]) for name, model in self.models.items()}
        super().__init__(
            {"picture": self.rows, "network": list(self.models), "map": list(self.MAPS)},
            self.frame,
            start=start,
            warm=warm,
            note="Dashed boxes: difficult objects. Each map has its own scale; solid lines "
            "hold its most positive part, dashed lines its most negative.",
        )

    def look(self, picture: int, network: str, kind: str) -> tuple[Tensor | None, str]:
        """Return the map (h, w) of this setting, or None where there is none, and what it is a map of, in words."""
        k, model, prediction = self.rows.index(picture), self.models[network], self.predictions[network]
        features = prediction.features[k : k + 1]
        if kind == "uncertainty":
            if prediction.calibration_logits is None:
                return None, "no calibration branch"
            return uncertainty_attention(model.head, features, model.pooling)[0], "uncertainty attention"
        p = torch.sigmoid(prediction.logits[k])
        class_index = int(p.argmax() if kind == "most probable class" else (p - 0.5).abs().argmin())
        return (
            class_attention(model.head, features, class_index, model.pooling, relu=False)[0],
            f"{self.dataset.classes[class_index]}, p = {p[class_index]:.2f}",
        )

    def measure(self, picture: int, network: str, kind: str) -> dict[str, str]:
        """Return the readings in words: the heads' divergence, the map's cells, and the shares on easy and on difficult objects.

        The shares are those of the map's positive part, of its negative part, and of the picture's area.
        """
        k, prediction, heat = self.rows.index(picture), self.predictions[network], self.look(picture, network, kind)[0]
        divergence = (
            "–"
            if prediction.calibration_logits is None
            else f"{softmax_kl(prediction.calibration_logits[k : k + 1], prediction.logits[k : k + 1]):.3f} nats"
        )
        cells = "–" if heat is None else f"{heat.shape[0]} × {heat.shape[1]}"
        readings = {"KL of the heads": divergence, "cells of the map": cells}
        for group, hard in (("easy", False), ("difficult", True)):
            boxes = [box for box in self.dataset.boxes(picture) if box.difficult == hard]
            mask = box_mask(boxes, self.dataset.image_size(picture), self.size)[None]
            shares = (
                ["–", "–"] if heat is None else [_share(energy_inside(sign * heat[None], mask)) for sign in (1, -1)]
            )
            readings[f"on {group} objects"] = (
                f"+ {shares[0]}, − {shares[1]}, picture {_share(mask.double().mean())}" if boxes else "none here"
            )
        return readings

    def frame(self, picture: int, network: str, kind: str) -> Frame:
        """Return the picture, the map over it, the readings, and both heads' bars of the six highest classes."""
        prediction, (heat, what) = self.predictions[network], self.look(picture, network, kind)
        k = self.rows.index(picture)
        heads = {"sigmoid": torch.sigmoid(prediction.logits[k]), "softmax": prediction.logits[k].softmax(0)}
        if prediction.calibration_logits is not None:
            heads["calibration branch's softmax"] = prediction.calibration_logits[k].softmax(0)
        top = torch.stack(list(heads.values())).amax(0).argsort(descending=True)[:6].tolist()
        labels, hard = self.dataset.targets[picture], self.dataset.difficult[picture]
        marks = [" (difficult)" if hard[c] else " (labelled)" if labels[c] else "" for c in top]
        readings = self.measure(picture, network, kind)
        readings_in_words = ", ".join(f"{name} {value}" for name, value in readings.items())
        return Frame(
            overlays.attention(
                self.dataset.image(picture),
                heat,
                [self.dataset.classes[c] + mark for c, mark in zip(top, marks)],
                {name: p[top].tolist() for name, p in heads.items()},
                what,
                self.dataset.boxes(picture),
            ),
            f"picture {picture}, {network}, {what}: {readings_in_words}",
            readings,
        )


def _predict(model: DualBranchNet, images: Tensor, side: int) -> Prediction:
    """What a network answers for square images, each normalised as it expects and resized to `side`, unless that is 0."""
    mean, std = normalisation_of(model)
    with torch.inference_mode():
        return model.eval()(normalise(images, mean, std, size=side or None))


def _share(value: Tensor) -> str:
    """A share in per cent, or a dash where it is undefined."""
    return "–" if value.isnan().any() else f"{100 * float(value):.0f} %"
