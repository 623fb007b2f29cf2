"""scikit-learn's two sample photographs, and what the photo student that ships answers to them; no download is needed.

Both are CC BY 2.0, so a committed notebook may show them, unlike the photographs of `photos`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image

from udlib.attention import class_attention, uncertainty_attention
from udlib.course.data import labels
from udlib.course.photo_arms import shipped_photo_student
from udlib.course.store import load_model, places
from udlib.datasets.photos import require_photos
from udlib.datasets.transforms import normalise
from udlib.figures.overlays import attention_grid
from udlib.methods import method_of
from udlib.methods.base import Recipe
from udlib.models import TrainedModel
from udlib.training.checkpoints import load_weights

SOURCE = "distributed with scikit-learn, CC BY 2.0, https://www.flickr.com/photos/"
CREDITS = {
    "china": f"china.jpg: danielbuechele, {SOURCE}danielbuechele/6061409035/",
    "flower": f"flower.jpg: vultilion, {SOURCE}vultilion/6056698931/",
}


class SamplePhoto(NamedTuple):
    """A photograph that may be shown, and its photographer, licence and source in words."""

    image: Image.Image
    credit: str


def sample_photos() -> dict[str, SamplePhoto]:
    """Load scikit-learn's two sample photographs.

    Returns:
        "china", a palace, and "flower", a blossom, each 640 × 427 pixels in RGB.
    """
    from sklearn.datasets import load_sample_image  # takes a second, which the other lessons need not wait for

    return {
        name: SamplePhoto(Image.fromarray(load_sample_image(f"{name}.jpg")), credit) for name, credit in CREDITS.items()
    }


def photo_student(recipe: Recipe | None = None) -> TrainedModel:
    """Load the photo student that ships.

    It is the same in every profile. A network that is stored nowhere is trained now, at the size of the profile.

    Args:
        recipe: Of a network on `photos`; by default the student whose network ships.

    Returns:
        The network with its classes, its size, and the mean and the standard deviation that its backbone expects.

    Raises:
        FileNotFoundError: The network is stored nowhere, and the photographs that would train it are not there.
    """
    recipe = recipe or shipped_photo_student()
    method, classes = method_of(recipe.method), labels(recipe, "val").classes
    networks = (place.network(recipe.key) for place in places(recipe))
    stored = next((network for network in networks if network is not None), None)
    if stored is None:
        require_photos()
        network = load_model(recipe)
    else:
        network = method.build(recipe, len(classes))
        load_weights(network, stored[0], Path(recipe.key))
    return TrainedModel(network, recipe.network, classes, recipe.side, read_as=method.scores(recipe))


def answers_on_samples(model: TrainedModel, top: int = 5) -> dict[str, dict[str, float]]:
    """Ask a network what is in the sample photographs.

    Args:
        model: A network with classes of its own.
        top: How many labels to return per photograph, at least 1.

    Returns:
        For each photograph its most probable labels with their probabilities in [0, 1], highest first.
    """
    photos = sample_photos()
    answers = model.predict([photo.image for photo in photos.values()]).labels(top=top)
    return {name: dict(labels_of_photo) for name, labels_of_photo in zip(photos, answers)}


def draw_maps_on_samples(model: TrainedModel) -> Figure:
    """Draw the sample photographs with two maps over each: uncertainty attention, and Grad-CAM of the most probable label.

    Args:
        model: As in `answers_on_samples`; a network without a calibration branch has no uncertainty map.

    Returns:
        The figure, with one row per photograph.
    """
    photos, network = sample_photos(), model.network
    images = [photo.image for photo in photos.values()]
    pixels = torch.stack([model.prepare(image) for image in images]).to(next(network.parameters()).device)
    with torch.inference_mode():
        prediction = network(normalise(pixels, model.mean, model.std))
    first = prediction.logits.argmax(1)
    maps = {}
    if prediction.calibration_logits is not None:
        maps["uncertainty"] = uncertainty_attention(network.head, prediction.features, network.pooling)
    maps["Grad-CAM, most probable label"] = class_attention(network.head, prediction.features, first, network.pooling)
    titles = [f"{name}: {model.classes[c]}" for name, c in zip(photos, first.tolist())]
    return attention_grid(images, {name: list(values.cpu()) for name, values in maps.items()}, titles)
