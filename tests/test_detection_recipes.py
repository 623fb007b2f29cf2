"""The detection groups of the course: who is compared with whom, what ships, and what a training costs."""

import pytest

from udlib.course import recipes
from udlib.course.profiles import SPEED, for_profile, seconds
from udlib.course.store import needed, recipe
from udlib.methods.detection.method import REGION_STEP as REGIONS

FIVE = ("teacher, grid", "both", "predictions", "classifier")


def test_teachers_and_students_train_as_the_baseline_does_seed_by_seed():
    plain = recipes.baseline(seed=2)
    for name, found in recipes.detection().items():
        assert [chosen.training.seed for chosen in found] == list(range(5 if name in FIVE else 3)), name
        for chosen in found:
            assert chosen.training == plain.but(seed=chosen.training.seed).training and chosen.network == plain.network


def test_every_students_teacher_is_a_recipe_of_the_course_and_so_its_network_is_kept():
    groups = recipes.detection()
    for name, found in groups.items():
        if name.startswith("teacher"):
            assert all(map(recipes.teaches, found)) and not any(map(needed, found))
            continue
        teachers = (
            recipes.two_branch(0.0)
            if name == "classifier"
            else groups[f"teacher, {name.removeprefix('both, ') if name.startswith('both, ') else 'grid'}"]
        )
        assert [needed(chosen)["teacher"] for chosen in found] == teachers[: len(found)], name


@pytest.mark.parametrize(
    "name, ships",
    [
        ("teacher, grid", True),
        ("both", True),
        ("features", False),
        ("predictions", False),
        ("classifier", False),
        ("teacher, boxes", False),
        ("both, boxes", False),
        ("teacher, selective-search", False),
        ("both, selective-search", False),
    ],
)
def test_logits_ship_where_a_lesson_reads_them(name, ships):
    assert [recipes.keeps_logits(chosen) for chosen in recipes.detection()[name]] == [ships] * len(
        recipes.detection()[name]
    )


def test_a_forecast_adds_up_the_stages():
    plain, found = (
        seconds(recipe()),
        {
            transfer: seconds(recipe("detection", transfer=transfer))
            for transfer in ("none", "features", "predictions", "both")
        },
    )
    assert seconds(recipe("detection", part="teacher")) == pytest.approx(REGIONS * plain)
    assert found["none"] == found["predictions"] == pytest.approx(plain), (
        "a teacher's predictions are stored beforehand"
    )
    assert found["features"] == found["both"] == pytest.approx(plain * (0.25 * REGIONS * 4 / 3 + 0.75))
    full = recipe("detection", network="resnet18", teacher="resnet101", data="voc2007", size=448, epochs=20)
    step, asked = 1 / SPEED["resnet18"], REGIONS / (3 * SPEED["resnet101"])
    assert seconds(full) == pytest.approx(5011 * 20 * (0.25 * (REGIONS * step + asked) + 0.75 * (step + asked)))
    control = full.but(transfer="predictions", taught_by="classifier")
    assert seconds(control) == pytest.approx(5011 * 20 * (step + asked / REGIONS)), "no regions to look at"


def test_full_size_has_networks_of_full_size_on_both_sides():
    full = for_profile(recipe("detection"), "full")
    assert (full.network, full.settings.teacher, full.size) == ("resnet18", "resnet18", 448)
    assert needed(full)["teacher"].network == "resnet18"
