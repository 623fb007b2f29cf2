"""The lines of the rubric that a machine judges, each from what the run of a report left."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scipy import stats

from udlib.course.grading.evidence import Study, finding_of
from udlib.course.grading.notebook import SHORTEST_DESCRIPTION, Cell, figures
from udlib.course.grading.sandbox import Execution
from udlib.course.project import CHOICE, PROTOCOL, RESULTS, VERDICTS
from udlib.statistics import PairedDifference, paired_difference

FEWEST_SEEDS = 5
TINY = 1e-9
Points = tuple[
    float, str, str
]  # share of the line's points, the reason, and the remedy ("" where nothing is to be done)


class Case(NamedTuple):
    """All that a check looks at.

    Attributes:
        cells: The report as it was handed in.
        run: Its run here.
        study: What this run wrote.
        tolerance: How much a number may differ from a new run of it, as a share.
        claims: The course's claims in words; empty where they are not known.
    """

    cells: Sequence[Cell]
    run: Execution
    study: Study
    tolerance: float
    claims: frozenset[str]

    def near(self, a: float, b: float, rounding: float = 0.0) -> bool:
        """Whether two numbers are the same, but for rounding and for the tolerance."""
        return abs(a - b) <= rounding * 1.001 + self.tolerance * max(abs(a), abs(b)) + TINY


def runs(case: Case) -> Points:
    """The run came to its end, without an error and within the limits."""
    if case.run.problem:
        return 0, case.run.problem, "restart the kernel, run all cells, and repair the first cell that fails"
    return 1, f"no error, {case.run.seconds:.0f} s", ""


def same(case: Case) -> Points:
    """The outputs that the report stores are those of its own run, in the order of its cells."""
    remedy = "restart the kernel, run all cells, save, and hand in that file; never type into an output"
    code = [cell for cell in case.cells if cell.kind == "code" and cell.source.strip()]
    counts = [cell.count for cell in code]
    if not any(cell.outputs for cell in code):
        return 0, "the report stores no outputs", remedy
    if counts != list(range(1, len(counts) + 1)):
        return 0, f"its cells were run in the order {', '.join(map(str, counts))}", remedy
    if not case.run.cells:
        return 0, "there is no complete run to compare with", remedy
    compared = 0
    for stored, fresh in zip(case.cells, case.run.cells):
        ours, theirs = stored.numbers, fresh.numbers
        if len(ours) != len(theirs):
            return 0, f"cell {stored.number} stores {len(ours)} numbers, and a new run gives {len(theirs)}", remedy
        for a, b in zip(ours, theirs):
            if not case.near(a, b):
                return 0, f"cell {stored.number} stores {a:g} where a new run gives {b:g}", remedy
        compared += len(ours)
    return 1, f"{compared} numbers in the outputs are the same", ""


def protocol(case: Case) -> Points:
    """The protocol has all its fields, and its claim is one of the course's."""
    if case.study.protocol is None:
        return 0, case.study.problems[PROTOCOL], "write it with udlib.course.project.Study, as in the template"
    claim = case.study.protocol.claim
    if case.claims and claim not in case.claims:
        return 0.6, f"'{claim}' is no claim of docs/results.md", "copy the claim from docs/results.md, word for word"
    return 1, f"all {len(case.study.protocol.__dataclass_fields__)} fields are there", ""


def order(case: Case) -> Points:
    """A cell wrote the protocol before any cell wrote results, and no later cell changed it."""
    first = case.run.first
    remedy = "move the protocol above everything that trains or reads results; decide first, then run"
    if PROTOCOL not in first:
        return 0, f"the run wrote no {PROTOCOL}", remedy
    if RESULTS not in first:
        return 0, f"the run wrote no {RESULTS}, so nothing comes after the protocol", "write all results to results.csv"
    if first[PROTOCOL] > first[RESULTS]:
        return 0, f"cell {first[RESULTS]} wrote results, and cell {first[PROTOCOL]} the protocol", remedy
    if first[PROTOCOL] == first[RESULTS]:
        return 0, f"cell {first[PROTOCOL]} wrote both protocol and results", "give the protocol a cell of its own"
    if changed := [number for number, _ in case.run.contents[PROTOCOL] if number >= first[RESULTS]]:
        return 0, f"cell {changed[0]} changed the protocol after there were results", remedy
    return 1, f"protocol in cell {first[PROTOCOL]}, first results in cell {first[RESULTS]}", ""


def seeds(case: Case) -> Points:
    """Both arms have the same five seeds or more, and these are the seeds of the protocol."""
    remedy = f"train both arms with the same {FEWEST_SEEDS} seeds or more, and name these seeds in the protocol"
    common, ours, theirs = case.study.pairs()
    if not common:
        return 0, _no_pairs(case.study), remedy
    if len(common) >= 2 and (len(set(ours)) == 1 or len(set(theirs)) == 1):
        return 0, "one arm has the same value for all seeds, as if the seed were not used", remedy
    planned = set(case.study.protocol.seeds) if case.study.protocol else set()
    if planned != set(common):
        return (
            0.5 if len(common) >= FEWEST_SEEDS else 0,
            (f"the protocol plans seeds {_listed(planned)}, and both arms have {_listed(common)} on test"),
            remedy,
        )
    if len(common) < FEWEST_SEEDS:
        return 0.2 * (len(common) - 1), f"both arms have {len(common)} common seeds", remedy
    return 1, f"seeds {_listed(common)} in both arms", ""


def untouched(case: Case) -> Points:
    """No number of the test split was written before the choice, and the choice did not change afterwards."""
    remedy = "choose with validation alone, write the choice down, and only then measure on test, once"
    plan, first = case.study.protocol, case.run.first
    tested = [number for number, text in case.run.contents.get(RESULTS, ()) if text and _has_test(text)]
    if not tested:
        return 0, "the run wrote no results on test", "measure the chosen arm and the other one on test, at the end"
    if CHOICE not in first:
        if plan is not None and len(plan.candidates) == 1:
            return 1, "there is one candidate, so nothing is chosen", ""
        return 0, f"the run wrote no {CHOICE}", remedy
    if first[CHOICE] >= tested[0]:
        return 0, f"cell {tested[0]} wrote results on test, and cell {first[CHOICE]} the choice", remedy
    if changed := [number for number, _ in case.run.contents[CHOICE] if number >= tested[0]]:
        return 0, f"cell {changed[0]} changed the choice after the test", remedy
    return 1, f"choice in cell {first[CHOICE]}, first test in cell {tested[0]}", ""


def choice(case: Case) -> Points:
    """The chosen arm is the candidate with the best mean on validation."""
    plan, chosen = case.study.protocol, case.study.chosen
    remedy = "take the candidate with the best mean on validation, by the metric that the protocol names"
    if plan is None or chosen is None:
        return 0, case.study.problems.get(PROTOCOL) or case.study.problems.get(CHOICE, ""), remedy
    if chosen not in plan.candidates:
        return 0, f"'{chosen}' is no candidate of the protocol", remedy
    if len(plan.candidates) == 1:
        return 1, f"'{chosen}' is the only candidate", ""
    metric, best = plan.choose_by
    means = {arm: _mean(case.study.of(arm, "val", metric)) for arm in plan.candidates}
    if missing := [arm for arm, mean in means.items() if math.isnan(mean)]:
        return 0, f"results.csv has no {metric} of '{missing[0]}' on val", remedy
    optimum = (max if best == "higher" else min)(means, key=means.__getitem__)
    if means[optimum] != means[chosen]:
        on_test = {arm: _mean(case.study.of(arm, "test", metric)) for arm in plan.candidates}
        sign = 1 if best == "higher" else -1
        same_as_test = chosen == max(on_test, key=lambda arm: sign * on_test[arm])
        hint = "; it is the best on test" if not any(map(math.isnan, on_test.values())) and same_as_test else ""
        return 0, f"'{chosen}' was chosen, and '{optimum}' has the best {metric} on val{hint}", remedy
    return 1, f"'{chosen}' has the best {metric} on val", ""


def interval(case: Case) -> Points:
    """The sentence gives the mean of the paired differences and its 95 % t interval, as computed again from the results."""
    remedy = "compute it with udlib.statistics.paired_difference, and copy what study.sentence() prints"
    finding = finding_of(case.cells)
    if finding is None:
        return (
            0,
            "no cell of text states the finding as in the template",
            ("write: Difference of …, over 5 seeds: +0.12 points, 95 % interval [-0.10, +0.34]. Verdict: …"),
        )
    difference = _difference(case.study)
    if difference is None:
        return 0, _no_pairs(case.study), remedy
    stated = f"cell {finding.cell} states {_said(finding.numbers)}"
    right = [case.near(a, b, place) for a, b, place in zip(finding.numbers, difference[:3], finding.places)]
    if all(right) and finding.seeds == difference.n:
        return 1, f"{stated}, as computed again", ""
    computed = f"{stated}, and the paired interval of {difference.n} seeds is {_said(difference[:3])}"
    if not right[0] or finding.seeds != difference.n:
        return 0, computed, remedy
    hint = "; the stated ends are those of an unpaired interval" if _is_unpaired(case, finding) else ""
    return 1 / 3, computed + hint, remedy


def verdict(case: Case) -> Points:
    """The stated verdict is the one that the computed interval gives."""
    remedy = "an interval that contains 0 means 'not detected'; otherwise its sign says 'holds' or 'reversed'"
    finding, difference = finding_of(case.cells), _difference(case.study)
    if finding is None or not finding.verdict:
        return 0, "no cell of text ends with 'Verdict: holds', 'reversed' or 'not detected'", remedy
    if difference is None or case.study.protocol is None:
        return 0, _no_pairs(case.study), remedy
    expected = VERDICTS[case.study.protocol.expected].get(difference.verdict, difference.verdict)
    if finding.verdict != expected:
        ends = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
        return 0, f"cell {finding.cell} says '{finding.verdict}', and the interval {ends} says '{expected}'", remedy
    return 1, f"'{expected}'", ""


def captions(case: Case) -> Points:
    """Every figure has a description of a sentence for readers who cannot see it, and a caption."""
    remedy = (
        "show figures with udlib.figures.style.show(figure, alt=…); an image in text needs ![a full sentence](file)"
    )
    shown = figures(list(case.run.cells or case.cells))
    if not shown:
        return 0, "the report has no figure", "draw at least the differences with their interval"
    bare = [f for f in shown if len(f.description.strip()) < SHORTEST_DESCRIPTION or not f.caption]
    if bare:
        places = _listed(sorted({figure.cell for figure in bare}))
        share = (len(shown) - len(bare)) / len(shown)
        return share / 2, f"{len(bare)} of {len(shown)} figures lack a caption or a description (cell {places})", remedy
    return 1, f"{len(shown)} of {len(shown)} figures have both", ""


CHECKS: dict[str, Callable[[Case], Points]] = {
    "runs": runs,
    "same": same,
    "protocol": protocol,
    "order": order,
    "seeds": seeds,
    "untouched": untouched,
    "choice": choice,
    "interval": interval,
    "verdict": verdict,
    "figures": captions,
}


def _difference(study: Study) -> PairedDifference | None:
    _, ours, theirs = study.pairs()
    return paired_difference(ours, theirs) if len(ours) >= 2 else None


def _is_unpaired(case: Case, finding) -> bool:
    """Whether the stated ends are those of an interval that forgets the pairs (Student's or Welch's)."""
    _, ours, theirs = case.study.pairs()
    for alike in (True, False):
        ends = stats.ttest_ind(ours, theirs, equal_var=alike).confidence_interval(0.95)
        if all(case.near(a, b, place) for a, b, place in zip(finding.numbers[1:], ends, finding.places[1:])):
            return True
    return False


def _no_pairs(study: Study) -> str:
    if study.problems:
        return next(iter(study.problems.values()))
    common = study.pairs()[0]
    return f"the two arms have {len(common)} common {'seed' if len(common) == 1 else 'seeds'} on test"


def _has_test(text: str) -> bool:
    return any("test" in row for row in csv.reader(io.StringIO(text)))


def _mean(values: dict[int, float]) -> float:
    return sum(values.values()) / len(values) if values else math.nan


def _listed(numbers) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"


def _said(numbers: Sequence[float]) -> str:
    mean, low, high = (f"{number:+.4f}" for number in numbers)
    return f"{mean} [{low}, {high}]"
