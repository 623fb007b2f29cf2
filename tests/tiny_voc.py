"""A folder in VOC layout, small and separable: class c is present where stripe c of the picture is bright."""

from functools import partial

import numpy as np

from udlib.datasets.voc_writer import SceneObject, SceneRecord, write_voc

CLASSES = ("bike", "cat", "dog")
COUNTS = {"train": 48, "val": 32, "test": 32}


def write_tiny_voc(root, counts=COUNTS, classes=CLASSES, size=32, seed=0):
    """Write images of `size` pixels for each split; some labels are difficult, and some pictures have none."""
    splits = {split: map(partial(scene, split, classes, size, seed), range(count)) for split, count in counts.items()}
    write_voc(root, splits, classes, {})
    (root / "truth.npz").unlink()  # as a folder of anyone's has none
    return root


def scene(split, classes, size, seed, number):
    draw = np.random.default_rng([seed, number, *split.encode()])
    image = draw.integers(0, 120, (size, size, 3), dtype=np.uint8)
    height, objects = size // len(classes), []
    for c, name in enumerate(classes):
        if draw.random() < 0.4:
            image[c * height : (c + 1) * height] += 110
            box = (0, c * height, size, (c + 1) * height)
            objects.append(SceneObject(name, box, False, False, bool(draw.random() < 0.15), True, 1.0))
    return SceneRecord(f"{split}_{number:03d}", image, tuple(objects))
