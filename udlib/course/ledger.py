"""The ledger of UD's equations: the code, the lesson and the test of each, and what the authors' code does instead.

The page `notebooks/equations.md` is made from this list; a test fails where an entry points at nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SAME = "none known"


@dataclass(frozen=True)
class Entry:
    """One equation of Song et al., "Uncertainty Distillation", ACM MM 2021.

    Attributes:
        equation: Its number.
        computes: What it computes, in words.
        function: The function in udlib, or "lesson NN: name" for a function that a lesson builds step by step.
        lesson: Number of the lesson that teaches it.
        words: The first code cell of the lesson with all of these words teaches it.
        test: file::function below tests/.
        released: Where the authors' code departs from the equation.
        as_released: What makes `function` compute that, and the test that shows it; empty where there is nothing to do.
        variants: Other variants that the course compares.
    """

    equation: str
    computes: str
    function: str
    lesson: str
    words: tuple[str, ...]
    test: str
    released: str
    as_released: str = ""
    variants: str = ""


LEDGER = (
    Entry(
        "1",
        "perfect calibration: where f = p, P(y = 1) is p",
        "calibration.true_calibration_error",
        "04",
        ("true_calibration_error(f, chance)",),
        "test_calibration.py::test_the_true_calibration_error_is_where_the_estimate_goes_when_labels_abound",
        SAME,
    ),
    Entry(
        "2",
        "expected calibration error, class-wise",
        "calibration.expected_calibration_error",
        "04",
        ("expected_calibration_error", "assert", "classwise[0]"),
        "test_calibration.py::test_both_averages_equal_the_literal_loop_with_masks_ties_and_a_minimum",
        "computes no calibration error",
    ),
    Entry(
        "3",
        "OVA loss: binary cross-entropy, summed over classes",
        "losses.ova_loss",
        "02",
        ("ova_loss(z, y)", "assert"),
        "test_losses.py::test_ova_is_pytorchs_binary_cross_entropy_summed_over_classes",
        "divided by C, and the total again by the batch size",
        '`scale="released"`',
    ),
    Entry(
        "4",
        "PAL-N loss with any f",
        "losses.one_over_k_softmax_loss",
        "03",
        ("# Eq. 4",),
        "test_losses.py::test_hard_label_losses_equal_their_formulas_written_as_loops",
        "uses a full softmax, because the mask of Eq. 10 is inverted wrongly",
    ),
    Entry(
        "5",
        "risk of OVA, lowest where f is the marginal",
        "losses.ova_loss",
        "03",
        ("minimise(ova_loss, JOINT)", "marginals"),
        "test_losses_theory.py::test_proposition_1_the_two_risks_are_those_of_the_marginals_and_of_z_prime",
        SAME,
    ),
    Entry(
        "6",
        "risk of PAL-N, lowest where f is z'",
        "losses.one_over_k_softmax_loss",
        "03",
        ("minimise(", "z_prime", "full_best"),
        "test_losses_theory.py::test_proposition_1_the_two_risks_are_those_of_the_marginals_and_of_z_prime",
        "none known; but the proposition holds for a loss that depends only on (z', f), and the partial softmax does "
        "not",
    ),
    Entry(
        "7",
        "z', the distribution of one positive picked at random",
        "losses.pick_all_labels_marginals",
        "03",
        ("pick_all_labels_marginals(LABELS, JOINT)",),
        "test_losses_theory.py::test_z_prime_of_eq_7_equals_the_sum_that_defines_it",
        SAME,
    ),
    Entry(
        "8",
        "Assumption 1: at equal confidence, answers are right less often in images with many labels",
        "lesson 04: at_like_confidence",
        "04",
        ("def at_like_confidence",),
        "test_ledger.py::test_eq_8_at_like_confidence_is_the_weighted_gap_of_a_literal_loop",
        "not tested there",
    ),
    Entry(
        "9",
        "the ℓ1 form of PAL-N's risk: distance between f and z'",
        "lesson 03: distances",
        "03",
        ("def distances",),
        "test_ledger.py::test_eq_9_distances_are_those_from_z_prime_given_a_label",
        "not computed there",
    ),
    Entry(
        "10",
        "partial softmax: one positive against the negatives",
        "losses.partial_softmax",
        "03",
        ("partial_softmax(z, y)", "# Eq. 10"),
        "test_losses.py::test_partial_softmax_equals_its_loop_and_is_zero_at_the_negatives",
        "in today's torch, `~` on a uint8 mask is bitwise, which gives a full softmax on the first positive",
    ),
    Entry(
        "11",
        "PAL-N on the partial softmax",
        "losses.pal_n_loss",
        "03",
        ("pal_n_loss(z, y)", "# Eq. 11"),
        "test_losses.py::test_hard_label_losses_equal_their_formulas_written_as_loops",
        "the sum over the batch is divided by the last image's number of labels",
    ),
    Entry(
        "12",
        "training with both branches, L_b + λ L_ps",
        "losses.dual_branch_loss",
        "03",
        ("dual_branch_loss(", "# Eq. 12"),
        "test_losses.py::test_dual_branch_loss_weighs_pal_n_and_halves_at_the_released_scale",
        "(L_b + α L_ps) / 2 with α = 1 and a BCE divided by C",
        '`lam=1, scale="released"`',
    ),
    Entry(
        "13",
        "KD on each sigmoid",
        "losses.bernoulli_kl",
        "07",
        ("bernoulli_kl(", "assert"),
        "test_losses.py::test_divergences_equal_those_of_torch_distributions",
        "T = 3 with a factor T², and an extra ½",
        "`temperature=3`, and ½ in Eq. 18",
        '`over_classes="sum"`: summed over the classes, as Eq. 3 is',
    ),
    Entry(
        "14",
        "KD on the calibration branch's softmax",
        "losses.softmax_kl",
        "07",
        ("softmax_kl(", "assert"),
        "test_losses.py::test_divergences_equal_those_of_torch_distributions",
        "T = 3 with a factor T², and an extra ½",
        "`temperature=3`, and ½ in Eq. 18",
    ),
    Entry(
        "15",
        "channel weights: gradient of the KL between the two branches",
        "attention.uncertainty_attention",
        "06",
        ("autograd.grad", "assert"),
        "test_attention.py::test_the_map_is_that_of_full_autograd_at_every_cell",
        "a softmax over the channels' weights, nearly uniform",
        '`weighting="released"`',
    ),
    Entry(
        "16",
        "uncertainty attention map",
        "attention.uncertainty_attention",
        "06",
        ("uncertainty_attention(", "assert"),
        "test_attention.py::test_the_identity_holds_for_any_map_size_and_for_a_real_network",
        "close to the plain mean of the activations, because the weights are nearly uniform",
        '`weighting="released"`',
    ),
    Entry(
        "17",
        "distance between teacher's and student's maps",
        "losses.attention_loss",
        "07",
        ("attention_loss(", "assert"),
        "test_losses.py::test_attention_loss_equals_its_loop_and_finite_differences",
        "mean of squares, times 0.1",
        '`scale="released"`',
        '`normalize=True` (standardised maps), `normalize="l2"` (maps of unit norm)',
    ),
    Entry(
        "18",
        "uncertainty distillation, L'_b + α L'_ps + β L_att",
        "losses.uncertainty_distillation_loss",
        "07",
        ("uncertainty_distillation_loss(", "assert"),
        "test_losses.py::test_uncertainty_distillation_adds_its_three_terms_at_both_scales",
        "the factors above",
        '`alpha=1, beta=0.1, temperature=3, scale="released"`, with maps of `weighting="released"`; equal to a literal '
        "re-implementation (`test_losses_released.py`)",
    ),
)


def rows(folder: Path | None = None) -> list[list[str]]:
    """Return the ledger as a table, head first.

    Args:
        folder: The folder of the notebooks; with it, each row links its lesson's cell by its number.
    """
    table = [["equation", "computes", "function", "lesson", "test", "released code", "as released", "variants"]]
    for entry in LEDGER:
        lesson = f"lesson {entry.lesson}"
        if folder is not None:
            path, number = find_cell(folder, entry)
            lesson = f"[{lesson}]({path.name}), In [{number}]"
        table.append(
            [
                entry.equation,
                entry.computes,
                f"`{entry.function}`",
                lesson,
                f"`{entry.test.replace('::', '` `')}`",
                entry.released,
                entry.as_released or "–",
                entry.variants or "–",
            ]
        )
    return table


def find_cell(folder: Path, entry: Entry) -> tuple[Path, int]:
    """Return the notebook of an entry and the execution number of its cell.

    Raises LookupError where there is no such cell.
    """
    for path in folder.glob(f"{entry.lesson}_*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and all(words in source for words in entry.words):
                return path, cell["execution_count"]
    raise LookupError(f"Eq. {entry.equation}: lesson {entry.lesson} in '{folder}' has no code cell with {entry.words}")


PAGE = """# The equations of Uncertainty Distillation, and where each one lives

`make readme` writes this page from `udlib/course/ledger.py`, and a test compares every row with the code, the lesson and
the tests. "Released code" says what the authors' repository computes instead. "As released" is the option with which `udlib`
computes the same, without the mistakes of that code. "Variants" are other forms that the course compares. As printed, Eq. 15
mixes a symbol of the teacher with one of the student; the paper's text speaks of the two branches of one network, and so does
this course. `lesson NN: name` is a function that the lesson builds.
"""
