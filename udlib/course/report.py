"""Tables of what is stored: the results of each group of recipes, and the generated parts of the documentation."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from udlib.course import gpu_results, ledger, photo_tables
from udlib.course.profiles import for_profile
from udlib.course.recipes import shipped_groups
from udlib.course.runs import Run
from udlib.course.sentences import spread
from udlib.course.store import load, results_folder
from udlib.course.verdicts import Claim, Verdict, after_holm, all_claims, judge
from udlib.figures.text import as_markdown
from udlib.files import megabytes
from udlib.methods.base import Recipe

# Metrics of the test split, as `training.evaluation.measure` names them, and the heads of their columns.
COLUMNS = {
    "mAP": "mAP",
    "mAP_difficult": "mAP, difficult images",
    "CF1": "CF1",
    "OF1": "OF1",
    "ECE": "ECE, class-wise",
    "ECE_pooled": "ECE, pooled",
    "true_CE_pooled": "true CE, pooled",
}
NOTE = (
    "Numbers are per cent on the test split, as mean ± standard deviation over seeds. mAP and F1 leave difficult labels out; "
    "the mAP of difficult images and all calibration errors count them as positives."
)


def stored(recipes: Sequence[Recipe]) -> tuple[list[Run], dict[str, str]]:
    """Return the stored runs among these recipes, and what is wrong with damaged ones.

    Args:
        recipes: The recipes; each is taken at the size of the profile.

    Returns:
        The runs, and a sentence per key of a damaged run.
    """
    runs, damaged = [], {}
    for recipe in map(for_profile, recipes):
        try:
            run = load(recipe, logits=False)
        except (ValueError, KeyError, OSError) as error:
            damaged[recipe.key] = str(error)
            continue
        if run is not None:
            runs.append(run)
    return runs, damaged


def results(recipes_by_group: Mapping[str, Sequence[Recipe]] | None = None) -> list[list[str]]:
    """Return the table of results, head first: a row per group with stored runs, with its metrics over seeds.

    Args:
        recipes_by_group: The recipes of each group; all groups of the course by default.
    """
    rows = [["recipes", "seeds", *COLUMNS.values()]]
    for name, recipes in (shipped_groups() if recipes_by_group is None else recipes_by_group).items():
        runs, _ = stored(recipes)
        if runs:
            seeds = f"{len(runs)}" if len(runs) == len(recipes) else f"{len(runs)} of {len(recipes)}"
            tests = [run.metrics["test"] for run in runs]
            cells = (spread([test[metric] for test in tests if metric in test], digits=1) for metric in COLUMNS)
            rows.append([name, seeds, *cells])
    return rows


def lessons(folder: Path) -> list[list[str]]:
    """Return the list of lessons, head first: each notebook's title, number of exercises, and run time.

    Args:
        folder: The folder of the notebooks.

    Raises:
        ValueError: For a notebook without a heading.
    """
    rows = [["lesson", "exercises", "runs in"]]
    for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
        heading = re.search(r"^#\s+(.+)$", text, re.M)
        if heading is None:
            raise ValueError(f"'{path.name}' has no heading: start its first text cell with '# Title'")
        seconds = notebook["metadata"].get("udlib", {}).get("seconds")
        tags = {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])}
        count = sum(tag.startswith("exercise-") for tag in tags)
        rows.append(
            [
                f"[{heading[1].strip()}]({folder.name}/{path.name})",
                str(count),
                "–" if seconds is None else f"{max(1, round(seconds))} s",
            ]
        )
    return rows


def provenance(recipes_by_group: Mapping[str, Sequence[Recipe]] | None = None) -> str:
    """Return one sentence: how many runs are stored, which versions and hardware trained them, and how long that took.

    Args:
        recipes_by_group: The recipes of each group; all groups of the course by default.
    """
    recipes = [
        recipe
        for recipes_of_group in (shipped_groups() if recipes_by_group is None else recipes_by_group).values()
        for recipe in recipes_of_group
    ]
    runs = {run.recipe.key: run for run in stored(recipes)[0]}.values()
    if not runs:
        return "No results are stored yet: `make runs` trains them."

    def every(name: str) -> str:
        return " and ".join(sorted({str(run.provenance[name]) for run in runs}))

    minutes = sum(run.provenance["seconds"] for run in runs) / 60
    return (
        f"These are {len(runs)} trainings. They took {minutes:.0f} minutes in all on {every('hardware')} ({every('device')}, "
        f"threads: {every('threads')}, precision: {every('precision')}), with torch {every('torch')} and "
        f"Python {every('python')}."
    )


def verdicts(claims: Sequence[Claim], corrected: bool = False) -> list[list[str]]:
    """Return the table of verdicts, head first: each claim, the measured difference with its interval, and the verdict.

    A claim whose runs are not stored is in the table as "not trained yet", and one whose metric a run lacks as "not
    measured".

    Args:
        claims: The claims, in the order of the rows.
        corrected: Whether a last column has the p value after Holm's correction for all these claims on the same data.
    """
    rows = [["claim", "from", "data", "difference", "95 % interval", "verdict"]]
    judged: dict[int, Verdict] = {}  # by the number of the claim
    for number, claim in enumerate(claims):
        try:
            judged[number] = judge(claim)
            (mean, low, high, _), verdict, _ = judged[number]
        except FileNotFoundError:
            mean, verdict = math.nan, "not trained yet"
        if math.isnan(mean):
            rows.append([claim.question, claim.source, claim.data, "–", "–", verdict])
            continue
        unit, factor, digits = unit_of(claim.metric[0])
        ends = f"[{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"
        difference = f"{factor * mean:+.{digits}f} {unit}".rstrip()
        rows.append([claim.question, claim.source, claim.data, difference, ends, f"**{verdict}**"])
    return [[*row, p] for row, p in zip(rows, _corrected(claims, judged))] if corrected else rows


def _corrected(claims: Sequence[Claim], judged: Mapping[int, Verdict]) -> list[str]:
    """The column of p values after Holm's correction, head first."""
    column = ["p (Holm)", *("–" for _ in claims)]
    for data in {claim.data for claim in claims}:
        numbers = [number for number in judged if claims[number].data == data]
        for number, p in zip(numbers, after_holm([judged[number] for number in numbers])):
            column[number + 1] = "–" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return column


def unit_of(metric: str) -> tuple[str, float, int]:
    """Return the unit in which a difference of a metric is shown, its factor, and the number of digits.

    >>> unit_of("blur-2 NLL"), unit_of("mAP"), unit_of("map_distance")
    (('nats', 1, 4), ('points', 100, 2), ('', 1, 3))
    """
    name = metric.rpartition(" ")[2]
    if name == "NLL":
        return "nats", 1, 4
    return ("", 1, 3) if name.startswith("map_") else ("points", 100, 2)


SOURCES = {
    "UD": "Uncertainty Distillation (UD)",
    "PSD": "Parallel Self-Distillation (PSD)",
    "WSD": "distillation from weakly-supervised detection (WSD)",
    "ours": "the course's own questions",
}


def tally(rows_of_claims: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the number of claims with each verdict, head first, for each paper and for the course's own questions.

    Args:
        rows_of_claims: The table of `verdicts`.
    """
    counts = Counter((row[1].split(",")[0], row[5].strip("*")) for row in rows_of_claims[1:])
    rows = [["claims of", "hold", "reversed", "not detected"]]
    for source in dict.fromkeys(source for source, _ in counts):
        rows.append(
            [SOURCES[source], *(str(counts[source, verdict]) for verdict in ("holds", "reversed", "not detected"))]
        )
    return rows


VERDICT_NOTE = (
    "Each row has the difference on the test split, paired by seed, and its t interval. There are five seeds, but only three "
    "where PSD is compared with one partition alone, random parts or plain self-distillation, and where WSD is trained with "
    "its features alone or with other proposals. A 95 % interval excludes zero by chance once in twenty times, and the table "
    "has {count} intervals; so Holm's method corrects the p values in the last column for all claims on the same data set. "
    '"Not detected" means that the interval includes zero, so these seeds cannot decide. Networks that were trained with a '
    "softmax alone are ranked by that softmax; the baseline loses mAP too when it is ranked in this way (lesson 05)."
)


def claims_about_what_ships() -> list[Claim]:
    """Return all claims but those about a group that is planned and not trained yet."""
    ready = {recipe for recipes in shipped_groups().values() for recipe in recipes}
    return [claim for claim in all_claims() if ready.issuperset([*claim.recipes, *claim.against])]


def generated(folder: Path) -> dict[str, str]:
    """Return the generated parts of README.md and docs/results.md, by name, for the checkout in `folder`."""
    # The group "quick" answers no question: the tests train it again. A teacher of some classes has no number for all
    # of them.
    left_out = ("quick", *(name for name in shipped_groups() if name.startswith("parallel/teachers")))
    table = results({name: recipes for name, recipes in shipped_groups().items() if name not in left_out})
    try:
        claims = claims_about_what_ships()
        rows_of_claims = verdicts(claims, corrected=True)
        count = sum(row[3] != "–" for row in rows_of_claims[1:])
        headlines = [rows_of_claims[0], *(row for claim, row in zip(claims, rows_of_claims[1:]) if claim.headline)]
        parts = {
            "tally": as_markdown(tally(rows_of_claims)),
            "headlines": as_markdown(headlines),
            "verdicts": f"{as_markdown(rows_of_claims)}\n\n{VERDICT_NOTE.format(count=count)}",
        }
    except FileNotFoundError as error:
        parts = dict.fromkeys(("tally", "headlines", "verdicts"), f"Not judged yet: {error}.")
    return parts | {
        "gpu": gpu_results.generated_part(results_folder()),
        "photo_tables": photo_tables.generated_part(),
        "lessons": as_markdown(lessons(folder / "notebooks")),
        "results": "\n\n".join([as_markdown(table), NOTE, provenance()]) if len(table) > 1 else provenance(),
    }


def equations(folder: Path) -> str:
    """Return the page of the equation ledger, for the checkout in `folder`."""
    try:
        table = as_markdown(ledger.rows(folder / "notebooks")).replace("--:", "---")
    except LookupError as error:
        table = f"Not complete yet: {error.args[0]}."
    return f"{ledger.PAGE}\n{table}\n"


def fill(text: str, parts: Mapping[str, str]) -> str:
    """Return `text` with `parts[NAME]` between each `<!-- generated:NAME -->` and `<!-- /generated -->`.

    Raises ValueError for an unknown part, and for a mark without its end.

    >>> fill("<!-- generated:x -->old<!-- /generated -->", {"x": "new"})
    '<!-- generated:x -->\\nnew\\n<!-- /generated -->'
    """
    marks = re.findall(r"<!-- generated:(\w+) -->", text)
    blocks = re.compile(r"<!-- generated:(\w+) -->((?:(?!<!-- generated:).)*?)<!-- /generated -->", re.S)
    if unknown := [name for name in marks if name not in parts]:
        raise ValueError(f"no generated part is called '{unknown[0]}': choose among {', '.join(parts)}")
    if len(blocks.findall(text)) != len(marks) or text.count("<!-- /generated -->") != len(marks):
        raise ValueError(
            f"{len(marks)} generated parts begin and {text.count('<!-- /generated -->')} end: "
            "close each with <!-- /generated -->"
        )
    return blocks.sub(lambda match: f"<!-- generated:{match[1]} -->\n{parts[match[1]]}\n<!-- /generated -->", text)


def size_in_megabytes(folder: Path | None = None) -> float:
    """Return the size of the stored results with the networks that ship, in MB (10^6 bytes)."""
    return megabytes(folder or results_folder())
