"""The student that ships, on scikit-learn's two photographs: labels and maps, in float16 as in float32, without photographs."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from udlib.course import sample_photos
from udlib.course.packing import pack
from udlib.course.photo_arms import causes, photo_groups, photos, shipped_photo_student
from udlib.course.recipes import keeps_weights
from udlib.course.sample_photos import answers_on_samples, draw_maps_on_samples, photo_student
from udlib.datasets.photos_table import read_table
from udlib.methods import method_of
from udlib.models import TrainedModel
from udlib.training.checkpoints import save_checkpoint

RECIPE = shipped_photo_student()
CLASSES = read_table()[0]


@pytest.fixture(scope="module")
def network():
    """The student before any training: ImageNet's backbone, random heads of the size of trained ones."""
    torch.manual_seed(0)
    network = method_of(RECIPE.method).build(RECIPE, len(CLASSES), weights=RECIPE.weights).eval()
    with torch.no_grad():
        network.head.classification.weight.mul_(5)
    return network


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A course without any results, whose photographs are hidden."""
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("UDLIB_PHOTOS", "none")
    monkeypatch.setattr("udlib.course.store.checkout", lambda: tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def shipped(network, tmp_path_factory):
    """The network, packed in float16 as it ships: the folder of the results."""
    folder = tmp_path_factory.mktemp("packed")
    state = {"recipe": {"method": RECIPE.method} | RECIPE.choices()}
    save_checkpoint(folder / "trained", network.state_dict(), state)
    pack(folder, folder / "results", {}, networks={RECIPE.key: folder / "trained"}, half=True)
    return folder / "results"


def test_exactly_one_student_on_photographs_ships_with_its_network():
    assert any(RECIPE in recipes for recipes in photo_groups().values()), "so it is trained"
    arms = [recipes[0] for recipes in [*photos().values(), *causes("photos").values()]]
    assert {recipe for recipe in arms if keeps_weights(recipe)} == {RECIPE}
    assert RECIPE.data == "photos" and RECIPE.method == "distillation" and RECIPE.training.seed == 0


@pytest.mark.parametrize("profile", ["course", "smoke"])
def test_the_packed_network_in_float16_gives_the_answers_of_float32(data, shipped, network, monkeypatch, profile):
    monkeypatch.setenv("UDLIB_PROFILE", profile)
    (data / "data").mkdir()
    (data / "data" / "results").symlink_to(shipped)
    assert (shipped / "models" / f"{RECIPE.key}.safetensors").stat().st_size < 9e6
    ours, exact = photo_student(), TrainedModel(network, RECIPE.network, CLASSES, 128)
    assert (ours.size, ours.classes, ours.mean, ours.std) == (128, CLASSES, (0.5,) * 3, (0.5,) * 3)
    packed, original = answers_on_samples(ours, top=29), answers_on_samples(exact, top=29)
    for name in ("china", "flower"):
        assert packed[name] == pytest.approx(original[name], abs=0.01)
        by_label = original[name]
        ranked = list(packed[name])
        assert list(packed[name].values()) == sorted(packed[name].values(), reverse=True)
        for higher, lower in zip(ranked, ranked[1:]):
            assert by_label[higher] > by_label[lower] - 0.01, "only labels as good as equal may change places"
    assert packed["china"] != packed["flower"]


def test_the_answers_are_those_of_the_stretched_pixels(network):
    model = TrainedModel(network, RECIPE.network, CLASSES, 128)
    answers = answers_on_samples(model, top=3)
    assert [len(labels) for labels in answers.values()] == [3, 3]
    for name, labels in answers.items():
        pixels = torch.tensor(np.array(load_sample_image(f"{name}.jpg"))).permute(2, 0, 1)[None].float()
        small = F.interpolate(pixels, (128, 128), mode="bilinear", antialias=True)
        with torch.no_grad():
            p = network(small / 127.5 - 1).logits[0].sigmoid()
        for label, probability in labels.items():
            assert p[CLASSES.index(label)].item() == pytest.approx(probability, abs=0.01)


def test_each_picture_stands_beside_two_maps_and_has_a_credit(network):
    model = TrainedModel(network, RECIPE.network, CLASSES, 128)
    figure = draw_maps_on_samples(model)
    titles = [axes.get_title() for axes in figure.axes]
    first = {name: next(iter(labels)) for name, labels in answers_on_samples(model, top=1).items()}
    assert titles[:3] == [f"china: {first['china']}", "uncertainty", "Grad-CAM, most probable label"]
    assert titles[3] == f"flower: {first['flower']}" and len(titles) == 6
    assert figure.axes[1].images[1].get_array().shape == (4, 4)
    assert figure.axes[0].images[0].get_array().shape == (427, 640, 3)
    credits = [photo.credit for photo in sample_photos.sample_photos().values()]
    assert all("CC BY 2.0" in credit and "flickr.com" in credit for credit in credits)


def test_without_the_network_it_says_what_training_takes(data):
    with pytest.raises(FileNotFoundError, match=r"`udlib data photos --coco ROOT` makes the folder"):
        photo_student()
