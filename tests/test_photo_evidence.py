"""The experiments on photographs: arms that pair up, claims about trained arms, tables beside the paper's, evidence."""

import math

import pytest

from udlib.course import evidence, photo_tables, recipes
from udlib.course.evidence import differences, evidence_figure, evidence_table
from udlib.course.paper_tables import table
from udlib.course.photo_arms import (
    FINE_TUNING,
    SEEDS,
    TEACHER,
    TEACHER_SIZE,
    causes,
    photo_as_released,
    photo_groups,
    photo_students,
    photo_teachers,
    photos,
    summed_without_attention,
)
from udlib.course.photo_claims import photo_claims
from udlib.course.photo_tables import photo_counterparts, photo_table
from udlib.course.verdicts import Verdict, after_holm, judge
from udlib.methods import needs_of
from udlib.statistics import PairedDifference, paired_difference


def test_every_claim_pairs_its_runs_by_seed_on_one_data_set_and_all_of_them_are_planned():
    claims, known = photo_claims(), {one for group in photo_groups().values() for one in group}
    assert len(claims) > 80 and len({claim.question + claim.data for claim in claims}) == len(claims)
    for claim in claims:
        ours, theirs = ([one.training.seed for one in side] for side in (claim.recipes, claim.against))
        assert ours == theirs == list(SEEDS)
        assert {one.data for one in (*claim.recipes, *claim.against)} == {claim.data}
        assert known.issuperset(claim.recipes) and known.issuperset(claim.against), claim.question
        assert claim.recipes != claim.against or claim.against_metric, claim.question


def test_students_of_every_arm_have_the_same_teacher_of_their_seed_and_see_the_same_crops():
    teachers = photo_teachers()
    for (start, name), arm in causes("photos").items():
        for seed, student in enumerate(arm):
            needs = needs_of(student)
            if name != "hard labels":
                assert needs["teacher"] == teachers[seed], (start, name)
            assert ("start" in needs) == (start == "trained")
            if start == "trained":
                assert needs["start"] == photos()["lambda 0.1"][seed], (start, name)
            for part in ("batch_size", "flip", "shift", "erase", "crop", "crop_scales", "seed"):
                assert getattr(student.training, part) == getattr(photo_students()[seed].training, part), (name, part)


def test_on_scenes_the_search_for_a_cause_starts_from_the_courses_own_networks():
    for (start, name), arm in causes("scenes").items():
        for seed, student in enumerate(arm):
            needs = needs_of(student)
            if name != "hard labels":
                assert needs["teacher"] == recipes.two_branch(0.1, network="small_wide")[seed], (start, name)
            if start == "trained":
                assert needs["start"] == recipes.two_branch(0.1)[seed], (start, name)
    assert causes("scenes")["first", "UD"] == recipes.distilled(), "the very runs that ship"


def test_a_tenth_of_the_learning_rate_is_the_students_alone():
    for data, usual in (("photos", FINE_TUNING["lr"]), ("scenes", 3e-3)):
        for start in ("first", "trained"):
            slow = causes(data)[start, "UD, lr / 10"][0]
            assert slow.training.lr == pytest.approx(usual / 10)
            assert {needed.training.lr for needed in needs_of(slow).values()} == {usual}


def test_the_teacher_sees_more_and_the_released_arm_has_a_teacher_of_its_own():
    teacher = needs_of(photo_students()[0])["teacher"]
    assert (teacher.network, teacher.side, teacher.training.erase) == (TEACHER, TEACHER_SIZE, 0.5)
    own = photo_as_released()
    for terms in ("KD", "UD released"):
        assert [needs_of(student)["teacher"] for student in own[terms]] == own["teacher"]
    assert own["teacher"][0].pooling == "max" and not own["teacher"][0].bias


def stored(monkeypatch, values):
    """Evidence reads these values, one list for each arm's first recipe, in place of stored runs."""

    def metric_values(arm, metric, split="test"):
        if (arm[0], metric) not in values:
            raise FileNotFoundError(metric)
        return values[arm[0], metric]

    for module in (evidence, photo_tables):
        monkeypatch.setattr(module, "metric_values", metric_values)


def test_a_table_of_evidence_marks_what_is_detected(monkeypatch):
    arms = {"baseline": photos()["baseline"], "KD": photos()["KD"], "UD": photos()["UD"]}
    base, kd, ud = (arm[0] for arm in arms.values())
    numbers = {base: [0.40, 0.42, 0.41], kd: [0.45, 0.47, 0.46], ud: [0.40, 0.43, 0.40]}
    stored(monkeypatch, {(one, "mAP"): values for one, values in numbers.items()})
    head, *rows = evidence_table(arms, {"mAP": "mAP (%)"}, "baseline")
    assert head == ["Mean ± sd over seeds (**change** from baseline, if detected)", "mAP (%)"]
    assert rows == [["baseline", "41.00 ± 1.00"], ["KD", "46.00 ± 1.00 (**+5.00**)"], ["UD", "41.00 ± 1.73"]]
    gaps = differences(arms, "baseline", "mAP")
    assert list(gaps) == ["KD", "UD"] and gaps["UD"] == paired_difference(numbers[ud], numbers[base])
    figure = evidence_figure(arms, {"mAP": "mAP"}, "baseline")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["KD", "UD"]
    assert axes.get_xlabel() == "mAP, against baseline (points)"
    with pytest.raises(ValueError, match="different units"):
        evidence_figure(arms, {"mAP": "mAP", "NLL": "NLL"}, "baseline")


@pytest.mark.parametrize("data", ["photos", "scenes"])
def test_the_control_beside_the_sum_lacks_the_attention_term_and_nothing_else(data):
    summed = causes(data)["first", "UD, Eq. 13 summed"]
    assert [recipe.but(beta=0.0) for recipe in summed] == summed_without_attention(data)
    assert len(summed) == 5 and all(recipe.settings.beta for recipe in summed)


def test_a_papers_table_stands_beside_ours_and_leaves_out_what_is_not_trained(monkeypatch):
    baseline = photos()["baseline"][0]
    stored(monkeypatch, {(baseline, metric): [0.5, 0.6] for metric in ("mAP", "mAP_difficult")})
    head, row = photo_table("table2a")
    assert head == ["on photographs", "mAP", "Difficult", "in the paper", "mAP", "Difficult"]
    assert row == ["lite0, without branch", "55.0 ± 7.1", "55.0 ± 7.1", "ResNet-18, without branch", "88.91", "83.77"]
    parts = photo_tables.generated_part().split("\n\n")
    assert parts[::2] == [f"**{photo_tables.TITLES[name]}**" for name in ("table2a", "table5")], (
        "the others have no row"
    )
    assert [part.count("\n") for part in parts[1::2]] == [2, 2], "head, rule, one row"
    with pytest.raises(ValueError, match="no row of 'table1'"):
        photo_table("table1")
    for counterpart in photo_counterparts():
        printed = table(counterpart.table).row(counterpart.row)
        assert set(counterpart.columns) <= set(printed.cells)


def test_holms_correction_leaves_out_what_was_not_measured():
    verdicts = [Verdict(PairedDifference(0, 0, 0, 5), "", p) for p in (0.01, math.nan, 0.04, 0.03)]
    assert after_holm(verdicts)[0] == pytest.approx(0.03) and math.isnan(after_holm(verdicts)[1])
    assert after_holm(verdicts)[2:] == pytest.approx([0.06, 0.06])


def test_a_claim_may_compare_two_metrics(monkeypatch):
    claim = next(claim for claim in photo_claims() if claim.against_metric)
    values = {"ECE_pooled": [0.01, 0.012, 0.011, 0.01, 0.012], "test/temperature ECE_pooled": [0.02] * 5}
    monkeypatch.setattr("udlib.course.verdicts.metric_values", lambda arm, metric: values[metric])
    verdict = judge(claim)
    assert verdict.verdict == "holds" and verdict.difference.mean == pytest.approx(-0.009) and verdict.p < 0.001
