"""Claims against stored runs: which difference is meant, in which direction, and what becomes of the claim."""

import pytest
import torch

from udlib.course import photo_arms, recipes
from udlib.course import store as experiments
from udlib.course.report import tally, verdicts
from udlib.course.store import Run, recipe, save
from udlib.course.verdicts import (
    Claim,
    best_beta,
    best_lambda,
    calibration_claims,
    detection_claims,
    distillation_claims,
    judge,
    metric_values,
    parallel_claims,
)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A function that stores runs of the given seeds' test (and validation) metrics, in an empty store."""
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    monkeypatch.delenv("UDLIB_PROFILE", raising=False)

    def store(group, val=None, **test):
        logits = torch.zeros(2, 3)
        for k, one in enumerate(group):
            of_seed = {name: values[k] for name, values in test.items()}
            save(
                Run(one, logits, logits, None, None, {"test": of_seed, "val": {"mAP": val} if val else of_seed}, [], {})
            )
        return group

    return store


def seeds(**choices):
    return [recipe(seed=seed, **choices) for seed in range(3)]


@pytest.fixture
def pair(stored):
    return (
        stored(seeds(lam=1.0), mAP=[0.72, 0.73, 0.74], hard=[0.60, 0.62, 0.61]),
        stored(seeds(), mAP=[0.70, 0.71, 0.72], hard=[0.55, 0.56, 0.55]),
    )


@pytest.mark.parametrize("expected, verdict", [("higher", "holds"), ("lower", "reversed")])
def test_a_difference_that_every_seed_shows_holds_or_reverses_the_claim(pair, expected, verdict):
    result = judge(Claim("?", "?", ("mAP",), *pair, expected))
    assert result.verdict == verdict
    assert result.difference.mean == pytest.approx(0.02) and result.difference.n == 3


def test_seeds_that_disagree_detect_nothing(stored):
    pair = stored(seeds(lam=1.0), mAP=[0.70, 0.75, 0.69]), stored(seeds(), mAP=[0.71, 0.70, 0.71])
    assert judge(Claim("?", "?", ("mAP",), *pair, "higher")).verdict == "not detected"


def test_two_metrics_compare_one_gain_with_the_other(pair):
    result = judge(Claim("?", "?", ("hard", "mAP"), *pair, "higher"))
    assert result.difference.mean == pytest.approx((0.05 + 0.06 + 0.06) / 3 - 0.02) and result.verdict == "holds"


def test_runs_are_paired_by_seed_in_the_order_of_the_recipes(pair):
    ours, theirs = pair
    swapped = judge(Claim("?", "?", ("mAP",), ours[::-1], theirs[::-1], "higher")).difference
    assert swapped == judge(Claim("?", "?", ("mAP",), ours, theirs, "higher")).difference
    assert judge(Claim("?", "?", ("mAP",), ours[::-1], theirs, "higher")).difference.low < swapped.low


def test_a_claim_without_a_direction_is_refused(pair):
    with pytest.raises(ValueError, match="expected is 'better': a claim says 'higher' or 'lower'"):
        judge(Claim("?", "?", ("mAP",), *pair, "better"))


def test_a_missing_run_is_named_with_the_command_that_trains_it(pair):
    missing = recipe(seed=7)
    with pytest.raises(FileNotFoundError, match=f"udlib runs --only {missing.key}"):
        metric_values([missing], "mAP")


def test_lambda_is_chosen_on_validation_and_0_is_no_candidate(stored):
    for lam, runs in recipes.sweep("digits").items():
        stored(runs, val={0.0: 0.9, 0.1: 0.6, 1.0: 0.7}[lam], mAP=[1 - lam / 2] * 5)
    assert best_lambda(data="digits") == 1.0, "0.1 is better on test, 0 on validation"
    assert best_lambda(data="digits", higher_is_better=False) == 0.1


def test_every_claim_of_the_course_is_judged_by_what_ships():
    claims = calibration_claims()
    assert {claim.data for claim in claims} == {"scenes", "digits"} and len(claims) >= 15
    for claim in claims:
        result = judge(claim)
        assert result.verdict in ("holds", "not detected", "reversed") and result.difference.n == len(recipes.SEEDS)
        assert result.difference.low <= result.difference.mean <= result.difference.high


def test_beta_is_chosen_on_validation_and_0_is_no_candidate(stored):
    for (name, value), runs in recipes.weights().items():
        if name == "beta":
            stored(runs, val={0.0: 0.9, 0.005: 0.6, 0.05: 0.7, 0.5: 0.1}[value], mAP=[1 - value] * 5)
    assert best_beta() == 0.05


def test_on_photographs_beta_is_chosen_among_the_three_that_are_trained(stored):
    for value, runs in photo_arms.betas("photos").items():
        stored(runs, val={0.005: 0.6, 0.05: 0.7, 0.5: 0.1}[value], mAP=[1 - value] * 5)
    assert best_beta(data="photos") == 0.05


def test_every_claim_about_distillation_pairs_its_runs_by_seed_on_one_data_set():
    claims = distillation_claims()
    known = {one for group in recipes.groups().values() for one in group}
    assert len(claims) >= 30 and len({claim.question + claim.data for claim in claims}) == len(claims)
    for claim in [*claims, *calibration_claims()]:
        ours, theirs = ([one.training.seed for one in side] for side in (claim.recipes, claim.against))
        assert ours == theirs == list(recipes.SEEDS)
        assert {one.data for one in (*claim.recipes, *claim.against)} == {claim.data}
        assert known.issuperset(claim.recipes) and known.issuperset(claim.against)


@pytest.mark.parametrize("claims", [parallel_claims(), detection_claims()], ids=["parallel", "detection"])
def test_every_claim_about_the_other_systems_pairs_its_runs_by_seed(claims):
    known = {one for group in recipes.groups().values() for one in group}
    assert len(claims) >= 15 and len({claim.question for claim in claims}) == len(claims)
    for claim in claims:
        ours, theirs = ([one.training.seed for one in side] for side in (claim.recipes, claim.against))
        assert ours == theirs and ours in (list(recipes.SEEDS), list(recipes.SWEEP_SEEDS)), claim.question
        assert known.issuperset(claim.recipes) and known.issuperset(claim.against)
        assert claim.recipes[0] != claim.against[0]


def test_a_claim_whose_runs_are_not_stored_stands_in_the_table_without_a_verdict(pair):
    missing = Claim("one day", "ours", ("mAP",), seeds(lam=0.7), pair[1], "higher")
    judged, waiting = verdicts([Claim("today", "ours", ("mAP",), *pair, "higher"), missing])[1:]
    assert judged[-1] == "**holds**" and waiting == ["one day", "ours", "scenes", "–", "–", "not trained yet"]


def test_a_number_that_some_run_lacks_makes_a_claim_not_measured_rather_than_an_error(pair):
    claim = Claim("where?", "ours", ("uncertainty_energy_easy",), *pair, "higher")
    result = judge(claim)
    assert result.verdict == "not measured" and result.difference.mean != result.difference.mean
    assert verdicts([claim])[1] == ["where?", "ours", "scenes", "–", "–", "not measured"]


def test_the_tally_counts_each_paper(pair):
    claims = [
        Claim("a", "UD, Table 2", ("mAP",), *pair, "higher"),
        Claim("b", "UD, Fig. 3", ("mAP",), *pair, "lower"),
        Claim("c", "ours", ("mAP",), *pair, "higher"),
        Claim("d", "ours", ("mAP",), seeds(lam=0.7), pair[1], "higher"),
    ]
    assert tally(verdicts(claims))[1:] == [
        ["Uncertainty Distillation (UD)", "1", "1", "0"],
        ["the course's own questions", "1", "0", "0"],
    ]


def test_the_headlines_are_a_few_claims_of_all_systems():
    headlines = [
        c.source.split(",")[0]
        for c in [*calibration_claims(), *distillation_claims(), *parallel_claims(), *detection_claims()]
        if c.headline
    ]
    assert 8 <= len(headlines) <= 12 and set(headlines) == {"UD", "PSD", "WSD", "ours"}
