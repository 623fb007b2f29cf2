"""Rows of the paper's tables as recipes: the paper's settings with their sources, and the course's own recipes."""

import pytest

from udlib.course import recipes
from udlib.course.paper_recipes import (
    COURSE_DEPARTURES,
    DEPARTURES,
    METHODS,
    SOURCES,
    default_size,
    row_recipe,
    settings,
)
from udlib.course.paper_tables import TABLES, table
from udlib.course.profiles import FULL, OURS, PAPER, RELEASED
from udlib.course.store import needed


def full(name, row, **options):
    return row_recipe(table(name), table(name).row(row), **options)


def course(name, row, seed=0):
    return row_recipe(table(name), table(name).row(row), "scenes", "course", seed)


EVERY = [(found, row) for found in TABLES.values() for row in found.rows if not row.cited]


def test_every_row_of_the_papers_own_has_a_full_size_recipe_and_no_two_in_a_table_are_alike():
    for printed in TABLES.values():
        row_recipes = [row_recipe(printed, row) for row in printed.rows if not row.cited]
        assert None not in row_recipes and len(set(row_recipes)) == len(row_recipes)
        assert all(row_recipe(printed, row) is None for row in printed.rows if row.cited)


def test_the_papers_settings_stand_in_every_recipe():
    for printed, row in EVERY:
        flat = row_recipe(printed, row, seed=3).flat()
        assert (flat["crop"], flat["weights"], flat["seed"], flat["data"]) == (448, "IMAGENET1K_V1", 3, printed.data)
        assert flat["network"] == row.network and flat["limit"] is None
        assert flat["epochs"] == (40 if printed.data == "coco2014" or printed.name == "table4" else 20)
        tricks = {
            "neither": (0, "step"),
            "CutOut": (0.5, "step"),
            "cosine decay": (0, "cosine"),
            "both": (0.5, "cosine"),
        }
        assert (flat["erase"], flat["schedule"]) == tricks.get(row.method, (0.5, "cosine"))


def test_what_the_paper_leaves_unsaid_is_the_released_codes():
    flat = full("table2a", "ResNet-101, with branch").flat()
    assert (flat["optimizer"], flat["lr"], flat["momentum"], flat["weight_decay"], flat["clip"]) == (
        "sgd",
        1e-3,
        0.9,
        1e-4,
        5.0,
    )
    assert (flat["pooling"], flat["embedding"], flat["flip"], flat["policy"]) == ("max", 512, True, "positive")
    assert {name for name, (_, source, _) in FULL.items() if source == RELEASED} == {
        "erase",
        "flip",
        "pooling",
        "embedding",
        "policy",
        "optimizer",
        "lr",
        "lr_end",
        "bias",
        "momentum",
        "weight_decay",
        "clip",
        "size",
    }
    assert {name for name, (_, source, _) in FULL.items() if source == OURS} == {"batch_size", "keep"}


def test_methods_and_their_weights():
    assert (
        full("table2b", "VGG-19-BN, without branch").settings.lam
        == 0
        != full("table2b", "VGG-19-BN, with branch").settings.lam
        == 0.1
    )
    kd, ud = (full("table3b", f"MobileNet-v2, {name} from VGG-19-BN").settings for name in ("KD", "UD"))
    assert (kd.teacher, kd.alpha, kd.beta, kd.temperature) == ("vgg19_bn", 0, 0, 3)
    assert (ud.teacher, ud.alpha, ud.beta, ud.temperature, ud.normalize, ud.teacher_lam) == (
        "vgg19_bn",
        0.5,
        0.5,
        3,
        False,
        0.1,
    )
    hard, ud = (full("table4", f"ResNet-101, {name}") for name in ("hard labels", "UD"))
    assert (hard.method, hard.settings.distil, ud.settings.distil, ud.settings.lam) == (
        "self_distillation",
        False,
        True,
        0.1,
    )
    assert full("table5", "ResNet-18, softmax, T = 3").settings.loss == "softmax"
    assert full("table5", "ResNet-18, label smoothing").settings.smoothing == 9
    without = full("table5", "ResNet-18, KD + distribution from ResNet-101").settings
    assert (without.alpha, without.beta, without.teacher) == (0.5, 0, "resnet101")


def test_one_setting_in_several_tables_is_one_recipe_trained_once():
    assert (
        full("table2a", "ResNet-18, without branch")
        == full("table3a", "ResNet-18, baseline")
        == full("table5", "ResNet-18, hard labels")
    )
    assert full("table1", "ResNet-101, both") == full("table2a", "ResNet-101, without branch")
    assert full("table3a", "ResNet-18, UD from ResNet-101") == full("table5", "ResNet-18, UD from ResNet-101")
    teacher = needed(full("table3a", "ResNet-18, UD from ResNet-101", seed=2))["teacher"]
    assert teacher == full("table2a", "ResNet-101, with branch", seed=2)


def test_every_setting_of_every_full_size_recipe_has_a_source_and_a_reason():
    every = settings([row_recipe(printed, row) for printed, row in EVERY])
    assert {name for name, *_ in every} == SOURCES.keys() - {"seed"}
    assert all(source in (PAPER, RELEASED, OURS) and where for _, _, source, where in every)
    order = [source for *_, source, _ in every]
    assert order == sorted(order, key=(PAPER, RELEASED, OURS).index)
    assert ("epochs", "20, 40", PAPER, SOURCES["epochs"][1]) in every


def test_what_a_recipe_cannot_express_is_said():
    assert {"validation", "epoch", "step decay"} <= DEPARTURES.keys()
    assert {"stand-ins", "VGG-19-BN", "temperature"} <= COURSE_DEPARTURES.keys()


def test_at_the_courses_size_rows_are_the_courses_own_recipes():
    for k, name in enumerate(recipes.TRICKS):
        assert course("table1", f"ResNet-101, {name}", 4) == recipes.tricks()[name][4], k
    sizes = {"ResNet-101": "small_wide", "ResNet-18": "small", "MobileNet-v2": "small_narrow"}
    for printed, small in sizes.items():
        for method, lam in (("without branch", 0.0), ("with branch", 0.1)):
            assert course("table2a", f"{printed}, {method}", 1) == recipes.by_size()[small, lam][1]
    for printed, small in (("ResNet-101", "small_wide"), ("VGG-19-BN", "small")):
        for student in ("ResNet-18", "MobileNet-v2"):
            for method in ("KD", "UD"):
                assert (
                    course("table3a", f"{student}, {method} from {printed}", 2)
                    == recipes.pairs()[small, sizes[student], method][2]
                )
    for method in ("hard labels", "UD"):
        assert course("table4", f"ResNet-18, {method}", 3) == recipes.restarted()[method][3]
    for method, own in recipes.hard_labels().items():
        assert course("table5", f"ResNet-18, {method}") == own[0]
    assert course("table5", "ResNet-18, KD + distribution from ResNet-101") == recipes.distilled("KD + distribution")[0]
    assert course("table2a", "VGG-19-BN, with branch") is None, "no stand-in"


def test_other_data_changes_nothing_but_the_data():
    own = row_recipe(table("table3b"), table("table3b").rows[-1], "tree", "course")
    assert own == row_recipe(table("table3b"), table("table3b").rows[-1], "scenes", "course").but(data="tree")
    assert full("table2a", "ResNet-18, with branch", data="coco2014") == full("table2b", "ResNet-18, with branch")


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="size is 'tiny': choose one of course, full"):
        full("table4", "ResNet-18, UD", size="tiny")


@pytest.mark.parametrize(
    "profile, expected", [("course", ("full", "course")), ("smoke", ("course", "course")), ("full", ("full", "full"))]
)
def test_papers_data_are_trained_at_full_size_unless_the_profile_says_otherwise(monkeypatch, profile, expected):
    monkeypatch.setenv("UDLIB_PROFILE", profile)
    assert (default_size("voc2007"), default_size("scenes")) == expected


def test_every_method_of_every_table_is_known():
    assert {(printed.name[:6], row.method) for printed, row in EVERY} == {
        (name, method) for name, printed in METHODS.items() for method in printed
    }
