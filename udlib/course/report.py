"""Tables of what is stored: the results of each group of recipes, and the generated parts of the README."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from udlib.course import ledger
from udlib.course.profiles import for_profile
from udlib.course.recipes import groups
from udlib.course.runs import Run
from udlib.course.sentences import spread
from udlib.course.store import load, results_folder
from udlib.course.verdicts import (
    Claim,
    calibration_claims,
    detection_claims,
    distillation_claims,
    judge,
    parallel_claims,
)
from udlib.methods.base import Recipe

# Metrics of the test split, as `experiments.measure` names them, and the heads of their columns.
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
    "Test split, per cent, mean ± standard deviation over seeds. Difficult labels are left out of mAP and F1; they "
    "count as positives in the mAP of difficult images, and in all calibration errors."
)


def stored(recipes: Sequence[Recipe]) -> tuple[list[Run], dict[str, str]]:
    """The stored runs among these recipes (at the size of the profile), and what is wrong with damaged ones, by key."""
    runs, damaged = [], {}
    for chosen in map(for_profile, recipes):
        try:
            run = load(chosen)
        except (ValueError, KeyError, OSError) as error:
            damaged[chosen.key] = str(error)
            continue
        if run is not None:
            runs.append(run)
    return runs, damaged


def results(chosen: Mapping[str, Sequence[Recipe]] | None = None) -> list[list[str]]:
    """Rows of the results table, head first: each group of which something is stored, with its metrics over seeds."""
    rows = [["recipes", "seeds", *COLUMNS.values()]]
    for name, recipes in (groups() if chosen is None else chosen).items():
        runs, _ = stored(recipes)
        if runs:
            seeds = f"{len(runs)}" if len(runs) == len(recipes) else f"{len(runs)} of {len(recipes)}"
            tests = [run.metrics["test"] for run in runs]
            cells = (spread([test[metric] for test in tests if metric in test], digits=1) for metric in COLUMNS)
            rows.append([name, seeds, *cells])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal, head first: the first column to the left, the others to the right.

    >>> print(as_text([["run", "mAP"], ["a", "75.0"]]))
    run   mAP
    a    75.0
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]) for row in rows
    )


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for Markdown, head first, numbers to the right.

    >>> print(as_markdown([["run", "mAP"], ["a", "75.0"]]))
    | run | mAP |
    |---|--:|
    | a | 75.0 |
    """
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|---|{'--:|' * (len(rows[0]) - 1)}", *body])


def lessons(folder: Path) -> list[list[str]]:
    """Rows of the list of lessons, head first: title from the notebook's first heading, and its measured run time."""
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


def provenance(chosen: Mapping[str, Sequence[Recipe]] | None = None) -> str:
    """One sentence: how many runs, trained by which versions on which hardware, and how long that took."""
    recipes = [recipe for found in (groups() if chosen is None else chosen).values() for recipe in found]
    runs = {run.recipe.key: run for run in stored(recipes)[0]}.values()
    if not runs:
        return "No results are stored yet: `make runs` trains them."

    def every(name: str) -> str:
        return " and ".join(sorted({str(run.provenance[name]) for run in runs}))

    minutes = sum(run.provenance["seconds"] for run in runs) / 60
    return (
        f"{len(runs)} trainings, {minutes:.0f} minutes in all, on {every('hardware')} ({every('device')}, "
        f"threads: {every('threads')}, precision: {every('precision')}), torch {every('torch')}, "
        f"Python {every('python')}."
    )


def verdicts(claims: Sequence[Claim]) -> list[list[str]]:
    """Rows of the table of verdicts, head first: each claim, what was measured, and what becomes of the claim.

    A claim whose runs are not stored stands there too, as "not trained yet", and one that they cannot answer, as "not measured".
    """
    rows = [["claim", "from", "data", "difference", "95 % interval", "verdict"]]
    for claim in claims:
        try:
            (mean, low, high, n), verdict = judge(claim)
        except FileNotFoundError:
            mean, verdict = math.nan, "not trained yet"
        if math.isnan(mean):
            rows.append([claim.question, claim.source, claim.data, "–", "–", verdict])
            continue
        unit, factor, digits = ("nats", 1, 4) if claim.metric[0] == "NLL" else ("points", 100, 2)
        ends = f"[{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"
        rows.append(
            [claim.question, claim.source, claim.data, f"{factor * mean:+.{digits}f} {unit}", ends, f"**{verdict}**"]
        )
    return rows


SOURCES = {
    "UD": "Uncertainty Distillation (UD)",
    "PSD": "Parallel Self-Distillation (PSD)",
    "WSD": "distillation from weakly-supervised detection (WSD)",
    "ours": "the course's own questions",
}


def tally(judged: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows of a table, head first, from the rows of `verdicts`: for each paper, and for the course's own questions, how many
    claims got which verdict."""
    found = Counter((row[1].split(",")[0], row[5].strip("*")) for row in judged[1:])
    rows = [["claims of", "hold", "reversed", "not detected"]]
    for source in dict.fromkeys(source for source, _ in found):
        rows.append(
            [SOURCES[source], *(str(found[source, verdict]) for verdict in ("holds", "reversed", "not detected"))]
        )
    return rows


VERDICT_NOTE = (
    "Paired differences over five seeds on the test split (three where PSD stands against one partition alone, parts at "
    "random or plain self-distillation, and where WSD's features alone or other proposals are judged), with t intervals. "
    'A 95 % interval misses zero by chance once in twenty times, and these are {count}. "Not detected" says that so few seeds '
    "cannot tell. Networks trained by a softmax alone are ranked by it; ranked so, the baseline loses mAP too (lesson 05)."
)


def generated(folder: Path) -> dict[str, str]:
    """The generated parts of the README of the checkout in `folder`, by name."""
    # "quick" answers no question: it is what the tests train again; and a teacher of some classes has no number of them all
    apart = ("quick", *(name for name in groups() if name.startswith("parallel/teachers")))
    table = results({name: found for name, found in groups().items() if name not in apart})
    try:
        claims = [*calibration_claims(), *distillation_claims(), *parallel_claims(), *detection_claims()]
        judged = verdicts(claims)
        count = sum(row[3] != "–" for row in judged[1:])
        headlines = [judged[0], *(row for claim, row in zip(claims, judged[1:]) if claim.headline)]
        parts = {
            "tally": as_markdown(tally(judged)),
            "headlines": as_markdown(headlines),
            "verdicts": f"{as_markdown(judged)}\n\n{VERDICT_NOTE.format(count=count)}",
        }
    except FileNotFoundError as error:
        parts = dict.fromkeys(("tally", "headlines", "verdicts"), f"Not judged yet: {error}.")
    return parts | {
        "lessons": as_markdown(lessons(folder / "notebooks")),
        "results": "\n\n".join([as_markdown(table), NOTE, provenance()]) if len(table) > 1 else provenance(),
    }


def equations(folder: Path) -> str:
    """The page of the equation ledger, for the checkout in `folder`."""
    try:
        table = as_markdown(ledger.rows(folder / "notebooks")).replace("--:", "---")
    except LookupError as error:
        table = f"Not complete yet: {error.args[0]}."
    return f"{ledger.PAGE}\n{table}\n"


def fill(text: str, parts: Mapping[str, str]) -> str:
    """`text` with each part between `<!-- generated:NAME -->` and `<!-- /generated -->` replaced by `parts[NAME]`.

    Raises ValueError for an unknown part and for a mark without its end.

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
    return blocks.sub(lambda found: f"<!-- generated:{found[1]} -->\n{parts[found[1]]}\n<!-- /generated -->", text)


def size_in_megabytes(folder: Path | None = None) -> float:
    """What the stored results weigh, the kept networks included (MB, 10^6 bytes)."""
    folder = folder or results_folder()
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
