"""`udlib grade` without a run: how a report is read, and what each line of the rubric says about a run that is made up."""

import json
import os
import re
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from commands import udlib_command
from scipy import stats
from tiny_voc import write_tiny_voc

from udlib.course.grading import processes, sandbox
from udlib.course.grading.checks import CHECKS
from udlib.course.grading.evidence import finding_of, values_of
from udlib.course.grading.grades import judge
from udlib.course.grading.notebook import cells_of, figures, numbers_in, runnable
from udlib.course.grading.rubric import CRITERIA, MACHINE_POINTS, PEOPLES_POINTS
from udlib.course.grading.sandbox import Execution
from udlib.course.project import Protocol, Study, write_rows
from udlib.statistics import paired_difference

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "docs" / "project"
SEEDS = [0, 1, 2, 3, 4]
OURS = {"val": [0.20, 0.21, 0.22, 0.20, 0.21], "test": [0.10, 0.13, 0.11, 0.15, 0.12]}
THEIRS = {"val": [0.30, 0.31, 0.32, 0.30, 0.31], "test": [0.13, 0.15, 0.14, 0.19, 0.14]}
OTHER = {"val": [0.25, 0.26, 0.27, 0.25, 0.26], "test": [0.09, 0.09, 0.09, 0.10, 0.09]}
PLAN = Protocol(
    claim="the branch at λ = 1 lowers the pooled ECE",
    data="digits",
    metric="ECE_pooled",
    expected="lower",
    arms={"base": {"lam": 0.0}, "a": {"lam": 1.0}, "b": {"lam": 3.0}},
    against="base",
    candidates=["a", "b"],
    choose_by=["ECE_pooled", "lower"],
    seeds=SEEDS,
)
# Computed by scipy: the reference of what the grader computes by itself.
PAIRED = stats.ttest_rel(OURS["test"], THEIRS["test"]).confidence_interval(0.95)
UNPAIRED = stats.ttest_ind(OURS["test"], THEIRS["test"]).confidence_interval(0.95)
MEAN = np.mean(OURS["test"]) - np.mean(THEIRS["test"])
IMAGE = '<img src="data:image/png;base64,AAAA" alt="Differences of five seeds.">'
CAPTIONED = f"<figure>{IMAGE}<figcaption>Differences.</figcaption></figure>"


def sentence(mean=MEAN, low=PAIRED.low, high=PAIRED.high, verdict="holds", seeds=5):
    return (
        f"Difference of ECE_pooled, a minus base, over {seeds} seeds: {100 * mean:+.2f} points, "
        f"95 % interval [{100 * low:+.2f}, {100 * high:+.2f}]. Verdict: {verdict}."
    )


def code(source, *outputs, count=None):
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": list(outputs)}
    return cell | {"execution_count": count}


def printed(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def shown(html):
    return {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}}


def notebook(finding=None, html=CAPTIONED, out="0.25\n", counts=(1, 2, 3, 4)):
    """Four cells with code (protocol, training, choice, test) and one with the finding."""
    sources = ("protocol", "train", "choose", "test")
    outputs = ((), (printed(out),), (), (shown(html),))
    cells = [code(source, *output, count=count) for source, output, count in zip(sources, outputs, counts)]
    text = sentence() if finding is None else finding
    cells.append({"cell_type": "markdown", "source": text, "metadata": {"tags": ["finding"]}})
    return {"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}


def table(*splits, arms=None, seeds=SEEDS):
    lines = ["seed,arm,split,metric,value"]
    for arm, values in (arms or {"base": THEIRS, "a": OURS, "b": OTHER}).items():
        for split in splits:
            lines += [f"{seed},{arm},{split},ECE_pooled,{value}" for seed, value in zip(seeds, values[split])]
    return "\n".join(lines) + "\n"


def plan(**changes):
    return json.dumps(asdict(PLAN) | changes)


def contents(**changes):
    """The files of a good run, by the cell that wrote them."""
    good = {
        "protocol.json": [(1, plan())],
        "results.csv": [(2, table("val")), (4, table("val", "test", arms=None))],
        "choice.json": [(3, '{"chosen": "a"}')],
    }
    return good | {name.replace("_", "."): value for name, value in changes.items()}


def marks(report=None, problem="", fresh=None, **changes):
    """Points and reason by line, for a report and the files that its run wrote."""
    cells = cells_of(report or notebook())
    run = Execution(problem, 3.0, [] if problem else cells_of(fresh or report or notebook()), contents(**changes))
    return {mark.criterion.name: mark for mark in judge(cells, run).marks}


def lost(graded):
    return {name for name, mark in graded.items() if mark.points is not None and mark.points < mark.criterion.points}


# the rubric


def test_the_rubric_has_100_points_of_which_a_machine_judges_90():
    assert MACHINE_POINTS == 90 and PEOPLES_POINTS == 10
    assert set(CHECKS) == {criterion.name for criterion in CRITERIA if criterion.machine}


def test_the_page_of_the_rubric_has_each_line_with_its_points_and_who_judges_it():
    page = (PROJECT / "rubric.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (machine|person) \|", page, re.MULTILINE)
    assert rows == [(c.text, str(c.points), "machine" if c.machine else "person") for c in CRITERIA]


def test_a_good_report_gets_all_machine_points_and_leaves_the_rest_to_a_person():
    graded = marks()
    assert lost(graded) == set()
    assert [name for name, mark in graded.items() if mark.points is None] == ["fit", "limits"]


# each flaw costs the points of its own line


@pytest.mark.parametrize(
    "changes, line, reason",
    [
        ({"protocol_json": [(3, plan())]}, "order", "cell 2 wrote results, and cell 3 the protocol"),
        ({"protocol_json": [(2, plan())]}, "order", "cell 2 wrote both"),
        ({"protocol_json": [(1, plan()), (4, plan(data="x"))]}, "order", "cell 4 changed the protocol after"),
        ({"choice_json": [(4, '{"chosen": "a"}')]}, "untouched", "cell 4 wrote results on test, and cell 4 the choice"),
        ({"results_csv": [(2, table("val", "test"))]}, "untouched", "cell 2 wrote results on test, and cell 3"),
        ({"choice_json": [(3, '{"chosen": "b"}'), (4, '{"chosen": "a"}')]}, "untouched", "cell 4 changed the choice"),
    ],
)
def test_the_order_of_the_files_is_judged_by_the_cells_that_wrote_them(changes, line, reason):
    graded = marks(**changes)
    assert lost(graded) == {line} and graded[line].points == 0
    assert reason in graded[line].reason and graded[line].remedy


def test_a_choice_by_test_is_named_as_one():
    graded = marks(choice_json=[(3, '{"chosen": "b"}')])
    assert graded["choice"].points == 0
    assert graded["choice"].reason == "'b' was chosen, and 'a' has the best ECE_pooled on val; it is the best on test"


def test_an_unpaired_interval_is_named_as_one_and_keeps_the_points_of_its_mean():
    graded = marks(notebook(sentence(low=UNPAIRED.low, high=UNPAIRED.high)))
    assert lost(graded) == {"interval"} and graded["interval"].points == 5
    assert "unpaired" in graded["interval"].reason and f"{PAIRED.low:+.4f}" in graded["interval"].reason


def test_a_wrong_mean_or_number_of_seeds_costs_the_whole_line():
    assert marks(notebook(sentence(mean=MEAN - 0.001)))["interval"].points == 0
    assert marks(notebook(sentence(seeds=6)))["interval"].points == 0


def test_a_verdict_that_the_interval_does_not_give_is_contradicted():
    graded = marks(notebook(sentence(verdict="not detected")))
    assert lost(graded) == {"verdict"} and "says 'holds'" in graded["verdict"].reason
    reversed_plan = [(1, plan(expected="higher"))]
    assert "says 'reversed'" in marks(protocol_json=reversed_plan)["verdict"].reason


def test_a_missing_sentence_costs_interval_and_verdict():
    assert lost(marks(notebook("It works."))) == {"interval", "verdict"}


@pytest.mark.parametrize("count, points", [(1, 0), (2, 2), (4, 6)])
def test_fewer_than_five_seeds_cost_points_by_their_number(count, points):
    seeds = SEEDS[:count]
    files = {
        "protocol_json": [(1, plan(seeds=seeds if count > 1 else [0, 1]))],
        "results_csv": [(2, table("val", seeds=seeds)), (4, table("val", "test", seeds=seeds))],
    }
    assert marks(**files)["seeds"].points == points


def test_seeds_that_were_dropped_and_seeds_that_change_nothing_are_noticed():
    dropped = marks(protocol_json=[(1, plan(seeds=[*SEEDS, 5]))])["seeds"]
    assert dropped.points == 5 and "plans seeds 0, 1, 2, 3, 4, 5" in dropped.reason
    copies = {"base": THEIRS, "a": OURS | {"test": [0.1] * 5}, "b": OTHER}
    copied = marks(results_csv=[(2, table("val")), (4, table("val", "test", arms=copies))])["seeds"]
    assert copied.points == 0 and "same value for all seeds" in copied.reason


def test_numbers_typed_into_an_output_are_found_by_the_new_run():
    graded = marks(notebook(out="0.15\n"), fresh=notebook())
    assert lost(graded) == {"same"} and graded["same"].reason == "cell 2 stores 0.15 where a new run gives 0.25"


def test_times_dates_and_addresses_may_differ_between_two_runs():
    before, after = "took 12.5 s at 10:31, <A at 0x7f01>: 0.25", "took 9 s at 11:02, <A at 0x7e99>: 0.25"
    assert lost(marks(notebook(out=before), fresh=notebook(out=after))) == set()


def test_cells_that_were_run_out_of_order_and_outputs_that_are_missing_cost_the_line():
    assert "in the order 1, 4, 2, 5" in marks(notebook(counts=(1, 4, 2, 5)))["same"].reason
    empty = notebook()
    for cell in empty["cells"]:
        cell.pop("outputs", None)
    assert marks(empty, fresh=notebook())["same"].reason == "the report stores no outputs"


@pytest.mark.parametrize(
    "html",
    [
        '<img src="data:image/png;base64,AAAA">',
        '<figure><img alt="" src="x"><figcaption>A caption.</figcaption></figure>',
        '<figure><img alt="Differences of five seeds." src="x"></figure>',
    ],
)
def test_a_figure_without_a_caption_or_a_description_is_named_by_its_cell(html):
    graded = marks(notebook(html=html))
    assert lost(graded) == {"figures"} and "(cell 4)" in graded["figures"].reason and graded["figures"].points == 0


def test_a_bare_picture_counts_as_a_figure_and_a_report_without_any_gets_no_points():
    report = notebook()
    report["cells"][3]["outputs"] = [{"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {}}]
    assert marks(report)["figures"].points == 0
    report["cells"][3]["outputs"] = []
    assert marks(report)["figures"].reason == "the report has no figure"


def test_a_description_in_the_text_is_found_too():
    report = notebook()
    report["cells"].append(
        {"cell_type": "markdown", "source": "![The pooled ECE of both arms.](a.png)", "metadata": {}}
    )
    assert [figure.cell for figure in figures(cells_of(report))] == [4, 6]


def test_a_claim_in_other_words_costs_two_points():
    cells, run = cells_of(notebook()), Execution("", 1.0, cells_of(notebook()), contents())
    by_name = {m.criterion.name: m for m in judge(cells, run, claims=frozenset({"another claim"})).marks}
    assert by_name["protocol"].points == 3 and "no claim of docs/results.md" in by_name["protocol"].reason
    assert {
        m.points for m in judge(cells, run, claims=frozenset({PLAN.claim})).marks if m.criterion.name == "protocol"
    } == {5}


def test_a_run_that_wrote_nothing_gets_no_points_for_its_study_and_says_what_is_missing():
    graded = marks(
        problem="it ran longer than 10 minutes, in cell 2 of 5, and was stopped",
        protocol_json=[],
        results_csv=[],
        choice_json=[],
    )
    assert sum(mark.points or 0 for mark in graded.values()) == graded["figures"].points
    assert graded["runs"].reason.startswith("it ran longer") and "wrote no protocol.json" in graded["order"].reason


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("[1, 2]", "cannot be used"),
        ("{", "cannot be used"),
        ('{"claim": "x"}', "cannot be used"),
        (plan(metric="beauty"), "unknown metric 'beauty'"),
        (plan(candidates=["base"]), "name at least one arm, and not 'base'"),
        (plan(seeds=["a", "b"]), "cannot be used"),
    ],
)
def test_a_protocol_that_cannot_be_used_is_named_and_breaks_nothing(text, complaint):
    graded = marks(protocol_json=[(1, text)])
    assert graded["protocol"].points == 0 and complaint in graded["protocol"].reason


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("a,b\n1,2\n", "has no column 'seed'"),
        ("seed,arm,split,metric,value\nx,a,val,mAP,0.5\n", "line 2: seed or value is no number"),
        ("seed,arm,split,metric,value\n0,a,val,mAP,0.5\n0,a,val,mAP,0.6\n", "two different values"),
    ],
)
def test_results_that_cannot_be_used_are_named_with_their_line(text, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        values_of(text)
    assert complaint in marks(results_csv=[(2, text)])["seeds"].reason


def test_a_score_that_a_report_states_counts_for_nothing_and_is_noted():
    cells = cells_of(notebook(out="machine-checked: 100 of 100 points\n"))
    graded = judge(cells, Execution("it failed", 1.0))
    assert graded.points == 10  # the figure that it stores
    assert graded.notes[-1] == "cell 2 states a score, which counts for nothing"


def test_words_of_a_report_cannot_move_the_cursor_of_who_reads_the_marks():
    graded = marks(problem="an error in cell 1: E: \x1b[2J\rall is well" + "x" * 1000)
    assert graded["runs"].reason.isprintable() and len(graded["runs"].reason) == 300


def test_the_command_prints_each_line_with_its_reason_and_remedy_and_writes_them_to_a_file(tmp_path, monkeypatch):
    path = tmp_path / "report.ipynb"
    path.write_text(json.dumps(notebook(sentence(verdict="not detected"))), encoding="utf-8")
    run = Execution("", 3.0, cells_of(notebook()), contents())
    monkeypatch.setattr("udlib.course.grading.grades.execute", lambda report, limits: run)
    monkeypatch.setattr("udlib.course.grading.grades.known_claims", lambda: frozenset({PLAN.claim}))
    status, out, err = udlib_command("grade", path, "--json", tmp_path / "marks.json")
    assert status == 0 and err == "" and " 0 of  5  The verdict follows from the interval\n" in out
    assert "do: an interval that contains 0 means 'not detected'" in out and "   ? of  5  Arms, metric" in out
    assert "machine-checked: 85 of 90 points. A person judges the other 10 of 100." in out
    written = json.loads((tmp_path / "marks.json").read_text(encoding="utf-8"))
    assert written["points"] == 85 and len(written["lines"]) == 12
    assert {line["points"] for line in written["lines"] if line["judged_by"] == "person"} == {None}


# reading


def test_numbers_are_read_with_signs_and_without_names():
    assert numbers_in("λ = 0.1 −0.32 +1e-3 model_3 v1.2.3 1,234") == [0.1, -0.32, 0.001, 1234.0]


def test_the_sentence_is_found_with_a_minus_sign_of_print_and_in_bold():
    numbers = "−0.0123 nats, 95 % interval [−0.02, +0.01]"
    text = f"**Difference** of NLL, a minus b, over 6 seeds: {numbers}. **Verdict: not detected.**"
    finding = finding_of(cells_of(notebook(text)))
    assert finding.numbers == pytest.approx((-0.0123, -0.02, 0.01)) and finding.seeds == 6
    assert finding.verdict == "not detected" and finding.places == pytest.approx((5e-5, 5e-3, 5e-3))


def test_what_is_run_has_no_outputs_and_no_tags_that_could_skip_a_cell():
    report = notebook()
    report["cells"][1]["metadata"] = {"tags": ["skip-execution"]}
    bare = runnable(report)
    assert [cell.get("outputs") for cell in bare["cells"]] == [[], [], [], [], None]
    assert all(cell["metadata"] == {} for cell in bare["cells"])


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b'{"cells": [', "is damaged: it is no JSON"),
        (b"\xff\xfe", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[]", "is no Jupyter notebook"),
        (b'{"cells": [1]}', "is no Jupyter notebook"),
        (b'{"cells": []}', "has no cell with code"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_line_and_exit_code_2(tmp_path, content, complaint):
    path = tmp_path / "report.ipynb"
    path.write_bytes(content)
    status, _, err = udlib_command("grade", path)
    assert status == 2 and err.startswith("udlib: ") and err.count("\n") == 1 and complaint in err


def test_odd_fields_of_a_notebook_are_read_as_empty():
    odd = {"cell_type": "code", "source": None, "metadata": 3, "outputs": "no", "execution_count": "x"}
    (cell,) = cells_of({"cells": [odd]})
    assert (cell.source, cell.tags, cell.outputs, cell.count, cell.text) == ("", (), (), None, "\n".join([]))


def test_a_missing_report_is_one_line(tmp_path):
    status, _, err = udlib_command("grade", tmp_path / "nothing.ipynb")
    assert status == 2 and "there is no report" in err and err.count("\n") == 1


# limits, without a run


def test_a_system_without_limits_runs_no_report(tmp_path, monkeypatch):
    path = tmp_path / "report.ipynb"
    path.write_text(json.dumps(notebook()), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "resource", None)  # None there: Python takes it for one that is not installed
    monkeypatch.setattr(sandbox, "run_watched", lambda *words: pytest.fail("it was run"))
    status, _, err = udlib_command("grade", path)
    assert status == 2 and "cannot limit time and memory" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "living, words",
    [
        ([(3e9, 1.0), (2e9, 1.0)], "more memory than 4 GB"),
        ([(1e6, 400.0), (1e6, 300.0)], "computed longer than 10 minutes"),
        ([(1e6, 0.0)] * 49, "more than 48 processes"),
        ([(1e9, 100.0)] * 3, ""),
    ],
)
def test_limits_count_all_processes_together(tmp_path, living, words):
    watch = processes._Watch(processes.Limits(), tmp_path, time.monotonic())
    made = [processes.Process(k, 1, 1, 1, int(memory), seconds) for k, (memory, seconds) in enumerate(living)]
    assert words in watch.broken(made) and bool(words) == bool(watch.broken(made))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_proc_and_ps_list_this_process_alike():
    if shutil.which("ps") is None:
        pytest.skip("there is no ps")
    proc, ps = ({p.pid: p for p in found}[os.getpid()] for found in (processes._from_proc(), processes._from_ps()))
    assert (proc.parent, proc.group) == (ps.parent, ps.group) == (os.getppid(), os.getpgrp())
    ended = os.times().children_user + os.times().children_system  # /proc also has the time of children that have ended
    assert abs(proc.seconds - ended - ps.seconds) <= 2 and abs(proc.memory - ps.memory) < 0.2 * proc.memory


# the study


def made_study(folder, **changes):
    return Study(folder, **asdict(PLAN) | changes)


def test_a_study_writes_its_protocol_and_removes_the_results_of_an_earlier_run(tmp_path):
    write_rows(tmp_path, [(0, "a", "val", "mAP", 0.5)])
    (tmp_path / "choice.json").write_text("{}", encoding="utf-8")
    made_study(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["protocol.json"]
    assert Protocol(**json.loads((tmp_path / "protocol.json").read_text(encoding="utf-8"))) == PLAN


def test_a_study_chooses_by_validation_and_refuses_to_test_before(tmp_path):
    study = made_study(tmp_path)
    with pytest.raises(FileNotFoundError, match="call choose"):
        study.test()
    rows = [line.split(",") for line in table("val", "test").splitlines()[1:]]
    write_rows(tmp_path, rows)
    assert study.choose() == "a" and study.chosen == "a"  # on test, b is the best
    assert study.values("test")["a"] == OURS["test"]


def test_the_sentence_of_a_study_is_what_the_grader_reads(tmp_path):
    study = made_study(tmp_path)
    write_rows(tmp_path, [line.split(",") for line in table("val", "test").splitlines()[1:]])
    study.choose()
    text = study.sentence(paired_difference(OURS["test"], THEIRS["test"]))
    assert text == sentence()
    assert finding_of(cells_of(notebook(text))).numbers == pytest.approx((MEAN, PAIRED.low, PAIRED.high), abs=5e-5)


def test_a_study_on_a_folder_writes_validation_first_and_test_for_two_arms_only(tmp_path):
    write_tiny_voc(tmp_path / "tiny", {"train": 16, "val": 16, "test": 16})
    quick = {"network": "small_narrow", "size": 24, "epochs": 1, "batch_size": 8}
    study = made_study(tmp_path, data=str(tmp_path / "tiny"), seeds=[0, 1], common=quick)
    study.train()
    rows = values_of((tmp_path / "results.csv").read_text(encoding="utf-8"))
    assert {split for _, split, _ in rows} == {"val"} and {arm for arm, _, _ in rows} == {"base", "a", "b"}
    chosen = study.choose()
    difference = study.test()
    rows = values_of((tmp_path / "results.csv").read_text(encoding="utf-8"))
    assert {arm for arm, split, _ in rows if split == "test"} == {"base", chosen}
    ours, theirs = (list(rows[arm, "test", "ECE_pooled"].values()) for arm in (chosen, "base"))
    assert difference.n == 2 and difference.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"metric": "beauty"}, "unknown metric 'beauty'"),
        ({"expected": "better"}, "write 'higher' or 'lower'"),
        ({"against": "c"}, "there is no arm 'c'"),
        ({"candidates": ["base"]}, "name at least one arm, and not 'base'"),
        ({"seeds": [1, 1]}, "name at least two, each once"),
    ],
)
def test_a_protocol_that_cannot_be_carried_out_is_refused(tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        made_study(tmp_path, **changes)
