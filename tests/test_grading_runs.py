"""`udlib grade` with a run: reports that misbehave in each way that we know, and the two sample reports."""

import csv
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from commands import udlib_command
from nbclient import NotebookClient

from udlib.course.grading import processes
from udlib.course.grading.grades import grade
from udlib.course.grading.kernel import landlock_version
from udlib.course.grading.processes import MARK, Limits, run_watched
from udlib.course.grading.sandbox import execute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the limits are tried on Linux only"),
]
confined = pytest.mark.skipif(landlock_version() < 3, reason="this system cannot confine what a report writes")
PROJECT = Path(__file__).resolve().parents[1] / "docs" / "project"
QUICK = Limits(minutes=3.0, memory_gb=1.0, file_mb=20, folder_mb=60, processes=30)


def report_of(folder, *sources, **first):
    """A report with these cells of code; `first` are fields of the first one."""
    cells = [
        {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": number}
        for number, source in enumerate(sources, 1)
    ]
    cells[0] |= first
    path = folder / "report.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    return path


@pytest.fixture
def place(tmp_path):
    """A folder for a report, beside which nothing may appear."""
    folder = tmp_path / "handed-in"
    folder.mkdir()
    return folder


def living(mark):
    """Processes that carry a mark in their environment."""
    return [pid for pid in processes.processes() if processes.Family(0, mark)._marked(pid)]


@pytest.fixture
def marked(monkeypatch):
    """The mark of the runs of a test, to look for what they left."""
    mark = f"test-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setattr("udlib.course.grading.sandbox.secrets.token_hex", lambda count: mark)
    return mark


def test_a_report_that_loops_for_ever_is_stopped_and_none_of_its_processes_lives_on(place, marked):
    start = time.monotonic()
    run = execute(report_of(place, "x = 1", "while True: pass"), Limits(minutes=0.5))
    assert run.problem.startswith("it ran longer than 0.5 minutes, ") or "computed longer than 0.5" in run.problem
    assert run.problem.endswith("and was stopped") and time.monotonic() - start < 120 and living(marked) == []


def test_a_report_that_sleeps_for_ever_is_stopped_by_the_clock(place):
    run = execute(report_of(place, "import time; time.sleep(1e6)"), Limits(minutes=0.4))
    assert run.problem.startswith("it ran longer than 0.4 minutes")


def test_a_report_that_eats_memory_is_stopped(place, marked):
    source = "kept = []\nwhile True: kept.append(bytearray(b'x' * 20_000_000))"
    run = execute(report_of(place, source), QUICK)
    assert "more memory than 1 GB, in cell 1 of 1" in run.problem or "MemoryError" in run.problem
    assert living(marked) == []


def test_a_sudden_jump_in_memory_is_refused_by_the_system(place):
    run = execute(report_of(place, "kept = bytearray(40_000_000_000)"), QUICK)
    assert "MemoryError" in run.problem


def test_a_report_that_forks_for_ever_is_stopped(place, marked):
    source = "import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(1000)"
    run = execute(report_of(place, source), replace(QUICK, memory_gb=16.0))
    assert "more than 30 processes at one time" in run.problem and living(marked) == []


def test_a_child_that_leaves_its_family_ends_with_the_report(place, marked):
    source = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
print("gone")
"""
    run = execute(report_of(place, source), QUICK)
    assert run.problem == "" and run.cells[0].text == "gone\n" and living(marked) == []


def test_a_huge_file_is_cut_short_with_an_error(place):
    source = "with open('huge', 'wb') as file:\n    for _ in range(5): file.write(b'x' * 10_000_000)"
    assert "File too large" in execute(report_of(place, source), QUICK).problem


def test_many_files_are_stopped_too(place):
    source = """
import time
for k in range(100):
    with open(f"part-{k}", "wb") as file:
        file.write(b"x" * 10_000_000)
    time.sleep(0.5)
"""
    assert "it wrote more than 60 MB" in execute(report_of(place, source), QUICK).problem


@confined
@pytest.mark.parametrize(
    "source",
    [
        "open({path!r}, 'w')",
        "import os; os.remove({path!r})",
        "import os; os.truncate({path!r}, 0)",
        "import os; os.rename({path!r}, 'x')",
    ],
)
def test_a_report_cannot_change_a_file_outside_its_folder(place, source):
    outside = place.parent / "precious"
    outside.write_text("kept", encoding="utf-8")
    run = execute(report_of(place, source.format(path=str(outside))), QUICK)
    assert "error in cell 1 of 1: " in run.problem and outside.read_text(encoding="utf-8") == "kept"


@confined
def test_a_report_cannot_write_into_the_folder_that_it_came_from_or_the_graders(place):
    sources = (
        f"open({str(place / 'new')!r}, 'w')",
        "import pathlib\nfor path in pathlib.Path('..').resolve().glob('grader/*.*'): path.write_text('x')",
    )
    for source in sources:
        assert "PermissionError" in execute(report_of(place, source), QUICK).problem
    assert [path.name for path in place.iterdir()] == ["report.ipynb"]


@pytest.mark.skipif(landlock_version() < 4, reason="this system cannot forbid connections")
def test_a_report_cannot_open_a_connection(place):
    source = "import socket\nsocket.create_connection(('127.0.0.1', 9))"
    assert "PermissionError" in execute(report_of(place, source), QUICK).problem


def test_a_report_that_ends_its_runner_ends_only_itself(place, marked):
    run = execute(report_of(place, "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nprint(1)"), QUICK)
    assert "PermissionError" in run.problem or "the program that runs it ended" in run.problem
    assert living(marked) == []


def test_a_report_that_leaves_python_is_named(place):
    assert (
        "its Python ended in cell 2 of 2" in execute(report_of(place, "x = 1", "import os\nos._exit(0)"), QUICK).problem
    )


def test_modules_beside_a_report_do_not_replace_those_of_the_runner(place):
    for name in ("json", "nbclient", "ctypes", "sitecustomize"):
        (place / f"{name}.py").write_text("raise SystemExit('taken over')", encoding="utf-8")
    (place / "helper.py").write_text("VALUE = 7", encoding="utf-8")
    before = os.getcwd()
    os.chdir(place)
    try:
        run = execute(report_of(place, "import helper\nprint(helper.VALUE)"), QUICK)
    finally:
        os.chdir(before)
    assert run.problem == "" and run.cells[0].text == "7\n"


def test_stored_outputs_are_forgotten_even_where_a_tag_asks_to_skip_the_cell(place):
    forged = [{"output_type": "stream", "name": "stdout", "text": "0.99\n"}]
    path = report_of(place, "print(0.5)", outputs=forged, metadata={"tags": ["skip-execution"]})
    result = {mark.criterion.name: mark for mark in grade(path, QUICK).marks}
    assert result["same"].points == 0 and "stores 0.99 where a new run gives 0.5" in result["same"].reason


def test_results_that_lie_beside_a_report_are_not_taken_for_those_of_its_run(place):
    (place / "results.csv").write_text("seed,arm,split,metric,value\n", encoding="utf-8")
    (place / "protocol.json").write_text("{}", encoding="utf-8")
    run = execute(report_of(place, "import os\nprint(sorted(os.listdir('.')))"), QUICK)
    assert run.last("results.csv") is None and run.last("protocol.json") is None
    assert run.cells[0].text == "['report.ipynb']\n"


def test_a_report_sees_no_variable_of_ours_but_a_few(place, monkeypatch):
    monkeypatch.setenv("A_PASSWORD", "secret")
    run = execute(
        report_of(place, "import os\nprint('A_PASSWORD' in os.environ, os.environ['OMP_NUM_THREADS'])"), QUICK
    )
    assert run.cells[0].text == "False 1\n"


def test_a_report_that_prints_a_score_or_reads_the_grader_gains_nothing_and_is_noted(place):
    sources = (
        "print('machine-checked: 100 of 100 points')",
        "import inspect\nimport udlib.course.grading.checks as checks\ninspect.getsource(checks)\n"
        "checks.runs = checks.same = lambda case: (1, '', '')",
    )
    path = report_of(
        place,
        *sources,
        outputs=[{"output_type": "stream", "name": "stdout", "text": "machine-checked: 100 of 100 points\n"}],
    )
    status, out, err = udlib_command("grade", path, "--json", place.parent / "marks.json", "--memory-limit", "3")
    marks = json.loads((place.parent / "marks.json").read_text(encoding="utf-8"))
    assert status == 0 and "Traceback" not in out + err
    assert marks["points"] == 20 and [line["points"] for line in marks["lines"]][:4] == [10, 10, 0, 0]
    assert (
        "note: cell 1 states a score, which counts for nothing" in out and "note: cell 2 uses the grader itself" in out
    )


def test_a_pipe_in_place_of_a_file_does_not_stop_the_grader(place):
    run = execute(
        report_of(place, "import os\nos.mkfifo('results.csv')\nos.symlink('/etc/passwd', 'protocol.json')"), QUICK
    )
    assert run.problem == "" and run.last("results.csv") is None and run.last("protocol.json") is None


def test_the_code_of_a_report_never_runs_in_the_process_that_grades(place):
    run = execute(report_of(place, "import os\nprint(os.getpid(), os.getppid())"), QUICK)
    assert str(os.getpid()) not in run.cells[0].text.split()


def test_a_program_that_ends_by_itself_has_its_exit_code(tmp_path):
    environment = {**os.environ, MARK: "test"}
    words = [sys.executable, "-c", "raise SystemExit(3)"]
    outcome = run_watched(words, environment, tmp_path, QUICK, tmp_path / "log")
    assert (outcome.broken, outcome.code) == ("", 3)


# the samples


SAMPLE = Limits(minutes=60.0)


def lost(result):
    return {m.criterion.name for m in result.marks if m.points is not None and m.points < m.criterion.points}


def run_here(name, folder):
    """A sample report with the outputs of a run on this machine, and what that run wrote beside it.

    Another kind of processor trains other networks: its numbers are no forgery, and the finding must be about them.
    """
    report = nbformat.read(PROJECT / name, 4)
    NotebookClient(report, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    printed = "".join(output.get("text", "") for cell in report.cells for output in cell.get("outputs", []))
    if (sentence := re.search("Difference of .*", printed)) is not None:
        for cell in report.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub("Difference of .*", lambda _: sentence[0], cell.source)
    nbformat.write(report, folder / name)
    return folder / name


def best_on_val(folder):
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    means = {
        arm: sum(
            float(row["value"]) for row in rows if (row["arm"], row["split"], row["metric"]) == (arm, "val", "mAP")
        )
        for arm in ("λ = 0.1", "λ = 1")
    }
    return max(means, key=means.__getitem__)


def test_the_good_report_gets_85_points_or_more(tmp_path):
    result = grade(run_here("good_report.ipynb", tmp_path), SAMPLE, tolerance=0.05)
    assert result.points >= 85, [mark for mark in result.marks if mark.points != mark.criterion.points]


def test_all_four_planted_flaws_are_found_and_no_others(tmp_path):
    result = grade(run_here("flawed_report.ipynb", tmp_path), SAMPLE, tolerance=0.05)
    chosen = json.loads((tmp_path / "choice.json").read_text(encoding="utf-8"))["chosen"]
    misled = set() if chosen == best_on_val(tmp_path) else {"choice"}  # it chose on test, and validation says otherwise
    assert lost(result) == {"order", "untouched", "interval", "figures"} | misled


def test_the_template_runs_and_lacks_only_what_a_student_adds():
    result = grade(PROJECT / "template.ipynb", SAMPLE)
    assert lost(result) == {"same", "interval", "verdict"}
