"""A table as work: what is stored, half done or missing, what it costs, and the comparison from known runs."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from torch import nn

from udlib.course import comparison
from udlib.course import store as experiments
from udlib.course.paper_recipes import row_recipe
from udlib.course.paper_tables import table
from udlib.course.profiles import ASSUMED, COURSE_BASIS
from udlib.course.recipes import baseline
from udlib.course.reproduction import (
    Job,
    compare,
    cost,
    epochs_done,
    images_of,
    jobs_of,
    recipes_of,
    require_same_data,
    stored_runs,
)
from udlib.course.store import Run, checkpoint_folder, result_folder, save, save_model
from udlib.figures import plots

T3, T4 = table("table3a"), table("table4")
ROWS = ["ResNet-18, baseline", "ResNet-18, UD from ResNet-101"]


@pytest.fixture(autouse=True)
def house(tmp_path, monkeypatch):
    """An empty checkout in a temporary folder."""
    monkeypatch.setattr(experiments, "checkout", lambda: tmp_path)
    monkeypatch.setenv("UDLIB_DATA", str(tmp_path / "data"))
    for variable in ("UDLIB_PROFILE", "UDLIB_ROOTS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def fake_run(chosen, data=None, **test):
    made = {"hardware": "a processor", "seconds": 60.0} | ({"data": data} if data else {})
    return Run(chosen, None, None, None, None, {"val": {}, "test": test}, [], made, nn.Linear(2, 2))


def rows(*names, of=T3):
    return [of.row(name) for name in names]


def store(name, values, of=T3, **numbers):
    """One run per seed of a row at the course's size, with these values of mAP in per cent."""
    for seed, value in enumerate(values):
        save(fake_run(row_recipe(of, of.row(name), "scenes", "course", seed), mAP=value / 100, **numbers))


def work(*names, seeds=2, of=T3, size="course", data="scenes"):
    return jobs_of(recipes_of(of, rows(*names, of=of), data, size, seeds))


# plan


def test_teachers_come_first_and_once_and_keep_their_networks():
    jobs = work("ResNet-18, KD from ResNet-101", "ResNet-18, UD from ResNet-101")
    assert [(job.serves, job.recipe.training.seed, job.keeps_network) for job in jobs] == [
        ("teacher of ResNet-18, KD from ResNet-101", 0, True),
        ("teacher of ResNet-18, KD from ResNet-101", 1, True),
        *[(f"ResNet-18, {name} from ResNet-101", seed, False) for name in ("KD", "UD") for seed in (0, 1)],
    ]
    assert {job.state for job in jobs} == {"missing"} and all(job.waits for job in jobs)


def test_a_teacher_whose_network_is_stored_or_whose_students_are_all_stored_is_no_work():
    teachers = [job.recipe for job in work(ROWS[1]) if job.keeps_network]
    save_model(fake_run(teachers[0]))
    assert [job.recipe for job in work(ROWS[1]) if job.keeps_network] == teachers[1:]
    store(ROWS[1], [70, 71])
    assert [job.state for job in work(ROWS[1])] == ["stored", "stored"]


def test_a_stored_teacher_without_its_network_is_trained_for_the_network():
    with_branch = table("table2a").row("ResNet-101, with branch")
    chosen = row_recipe(table("table2a"), with_branch, "scenes", "course")
    save(fake_run(chosen, mAP=0.8))
    teacher = work(ROWS[1], seeds=1)[0]
    assert teacher.recipe == chosen and teacher.state == "missing" and teacher.keeps_network


def test_a_checkpoint_makes_a_training_half_done_and_a_result_makes_it_stored():
    chosen = row_recipe(T3, T3.row(ROWS[0]), "scenes", "course")
    checkpoint_folder(chosen).mkdir(parents=True)
    (checkpoint_folder(chosen) / "state.json").write_text(json.dumps({"rows": [{}] * 15}))
    job, other = work(ROWS[0])
    assert (job.state, job.epochs_done, job.epochs, other.state) == ("half done", 15, 40, "missing")
    assert cost([job], None).seconds == pytest.approx(2000 * 40 / 1000 * 25 / 40)
    store(ROWS[0], [70])
    assert work(ROWS[0])[0].state == "stored"


def test_both_halves_of_a_self_distillation_count():
    chosen = row_recipe(T4, T4.row("ResNet-18, UD"), "scenes", "course")
    for half, count in (("1", 40), ("2", 5)):
        (checkpoint_folder(chosen) / half).mkdir(parents=True)
        (checkpoint_folder(chosen) / half / "state.json").write_text(json.dumps({"rows": [{}] * count}))
    job = work("ResNet-18, UD", of=T4)[0]
    assert (job.epochs_done, job.epochs) == (45, 80)
    (checkpoint_folder(chosen) / "2" / "state.json").write_text("{half a file")
    assert epochs_done(chosen) == 40, "resuming names the damaged file; the plan goes on"


def test_the_smoke_profile_has_no_checkpoints(monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setenv("UDLIB_SMOKE_STORE", "nowhere")
    assert epochs_done(baseline()) == 0 and checkpoint_folder(baseline()) is None


def test_a_damaged_result_is_neither_stored_nor_trained_again():
    store(ROWS[0], [70])
    folder = result_folder(row_recipe(T3, T3.row(ROWS[0]), "scenes", "course"))
    (folder / "state.json").write_text("{")
    job = work(ROWS[0], seeds=1)[0]
    assert job.state == "damaged" and not job.waits and "damaged" in job.problem


def test_a_cost_adds_up_results_networks_one_checkpoint_and_the_decoded_images():
    jobs = work(ROWS[1], seeds=1, size="full", data="voc2007")
    found = cost(jobs)
    assert [job.recipe.network for job in jobs] == ["resnet101", "resnet18"]
    assert found.seconds == pytest.approx(5011 * 20 * (1 / 210 + 1 / 900 + 1 / 630)) and found.basis == ASSUMED
    assert found.disk == {
        "results": 2 * 2 * (502 + 4952) * 20,
        "teachers' networks": 4 * 42.5e6,
        "checkpoint of one training": 4 * 42.5e6 * 3,
    }
    assert found.memory == (5011 + 4952) * 3 * 512 * 512
    assert images_of(jobs[0].recipe) == (4509, 502, 4952, 20)


def test_a_measured_pace_takes_the_place_of_the_assumed_speed():
    jobs = work(ROWS[0], seeds=1)
    assert cost(jobs).basis == COURSE_BASIS and cost(jobs).seconds == 80
    assert cost(jobs, 1.5).seconds == 120 and "took 1.5 times the forecast" in cost(jobs, 1.5).basis
    assert cost([]).seconds == 0 == cost([]).memory


def test_the_course_in_the_profile_full_is_refused(monkeypatch):
    monkeypatch.setenv("UDLIB_PROFILE", "full")
    with pytest.raises(ValueError, match="size is 'course' but UDLIB_PROFILE is 'full'"):
        recipes_of(T3, rows(ROWS[0]), "scenes", "course", 1)


# where results lie, and of which data


def test_ones_own_results_do_not_lie_among_those_that_ship(house):
    for data in ("scenes", "voc2007", "tree", str(house / "tree")):
        assert result_folder(baseline(data)).parent == house / "data" / "runs"


def test_runs_of_different_data_under_one_name_are_not_compared():
    one, two = (
        fake_run(row_recipe(T3, T3.row(ROWS[0]), "tree", "course", seed), data=data, mAP=0.7)
        for seed, data in ((0, "aaa"), (1, "bbb"))
    )
    require_same_data([one, fake_run(baseline("tree"), mAP=0.7)])
    with pytest.raises(
        ValueError,
        match=f"'tree' was different data for {one.recipe.key} .aaa. than for {two.recipe.key} .bbb.*--data NAME",
    ):
        require_same_data([one, two])
    save(one), save(two)
    with pytest.raises(ValueError, match="give one of them another name"):
        compare(T3, rows(ROWS[0]), "tree", "course", 2)


def test_stored_results_of_other_data_than_the_folder_holds_now_stop_a_training(monkeypatch):
    monkeypatch.setattr("udlib.course.reproduction.fingerprint", lambda chosen: "ccc")
    old = fake_run(baseline("tree"), data="aaa", mAP=0.7)
    require_same_data([], baseline("tree"))
    with pytest.raises(ValueError, match="than for the folder that it names now .ccc.: check the root"):
        require_same_data([old], baseline("tree"))


# the comparison: 70, 72 against 73, 74 is +2.5 on average, with t(1 degree, 97.5 %) = 12.706 times 0.7071/sqrt(2)
# around it


def line(lines, row, column="mAP"):
    return next(found for found in lines if (found.row, found.column) == (row, column))


def test_means_spreads_and_paired_differences_are_those_of_the_stored_seeds():
    store(ROWS[0], [70, 72], CF1_negative=0.5, CF1=0.9)
    store(ROWS[1], [73, 74], CF1_negative=0.6, CF1=0.1)
    lines = compare(T3, rows(*ROWS, "ResNet-18, ML-GCN [51]"), "scenes", "course", 2)
    assert len(lines) == 3 * 7
    base, ud = line(lines, ROWS[0]), line(lines, ROWS[1])
    assert base.ours == pytest.approx((70, 72)) and base.difference is None is base.paper_difference
    assert ud.ours == pytest.approx((73, 74)) and ud.difference.mean == pytest.approx(2.5) and ud.difference.n == 2
    half = 12.7062047 * math.sqrt(0.5) / math.sqrt(2)
    assert (ud.difference.low, ud.difference.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert ud.paper.value == 91.67 and ud.paper_difference.value == pytest.approx(1.19)
    assert "label smoothing" in ud.paper_difference.doubt, "the baseline's cell is doubtful, and so is the difference"
    assert line(lines, ROWS[1], "CF1").ours == pytest.approx((60, 60)), "difficult labels count as absent in F1"
    cited = line(lines, "ResNet-18, ML-GCN [51]")
    assert (cited.ours, cited.asked, cited.difference) == ((), 0, None) and cited.paper.value == 90.64


def test_seeds_pair_up_where_both_are_stored():
    store(ROWS[0], [70, 72, 74])
    save(fake_run(row_recipe(T3, T3.row(ROWS[1]), "scenes", "course", 2), mAP=0.75))
    ud = line(compare(T3, rows(ROWS[1]), "scenes", "course", 3), ROWS[1])
    assert ud.ours == pytest.approx((75,)) and ud.asked == 3
    assert ud.difference.mean == pytest.approx(1) and ud.difference.n == 1 and math.isnan(ud.difference.low)
    text = comparison.as_tables(T3, [ud])
    assert "1 of 3" in text and "+1.00 [one seed]" in text


def test_best_and_worst_are_those_of_the_seeds():
    T1 = table("table1")
    store("ResNet-101, both", [70, 72, 71], of=T1)
    lines = compare(T1, rows("ResNet-101, both", of=T1), "scenes", "course", 3)
    assert line(lines, "ResNet-101, both", "Best").ours == pytest.approx((72,))
    assert line(lines, "ResNet-101, both", "Worst").ours == pytest.approx((70,))
    assert (
        line(lines, "ResNet-101, both", "Best").difference
        is None
        is line(lines, "ResNet-101, both", "Best").paper_difference
    )


def test_damaged_runs_are_left_out():
    store(ROWS[0], [70, 72])
    (result_folder(row_recipe(T3, T3.row(ROWS[0]), "scenes", "course")) / "state.json").write_text("{")
    named = recipes_of(T3, rows(ROWS[0]), "scenes", "course", 2)
    assert list(stored_runs(named)[ROWS[0]]) == [1]


# printed


def printed():
    store(ROWS[0], [70, 72])
    store(ROWS[1], [73, 74])
    chosen = rows(*ROWS, "ResNet-18, ML-GCN [51]", "ResNet-18, KD from ResNet-101")
    return compare(T3, chosen, "scenes", "course", 2)


def test_the_printed_table_stands_word_for_word():
    block, *_, notes = comparison.as_tables(T3, printed()).split("\n\n")
    assert (
        block
        == """\
mAP (%)                          paper          ours  seeds  paper: to baseline  ours: to baseline [95 %]
ResNet-18, baseline            90.48†1  71.00 ± 1.41      2                   –                         –
ResNet-18, UD from ResNet-101    91.67  73.50 ± 0.71      2             +1.19†1      +2.50 [-3.85, +8.85]
ResNet-18, ML-GCN [51]           90.64             –      –                   –                         –
ResNet-18, KD from ResNet-101    91.41   not trained      –             +0.93†1                         –"""
    )
    assert notes.splitlines()[:2] == [
        "Doubtful cells of the paper:",
        "†1 Tables 2a and 5 have 88.91 for this network, and 90.48 is Table 5's label smoothing",
    ]


def test_a_table_without_doubts_has_no_notes():
    lines = compare(T4, rows("ResNet-101, hard labels", "ResNet-101, UD", of=T4), "scenes", "course", 1)
    text = comparison.as_tables(T4, lines)
    assert "†" not in text and "Doubtful" not in text and "94.27 ± 0.13" in text and "+0.49" in text


def test_the_csv_has_a_line_per_cell_and_leaves_the_unknown_empty():
    read = list(csv.DictReader(io.StringIO(comparison.as_csv(T3, "scenes", "course", printed()))))
    assert len(read) == 4 * 7
    first, ud, cited, missing = read[:4]
    assert (first["paper"], first["paper_std"], first["ours"], first["ours_std"], first["seeds"]) == (
        "90.48",
        "",
        "71",
        "1.4142",
        "2",
    )
    assert (ud["difference"], ud["difference_low"], ud["difference_high"], ud["pairs"]) == (
        "2.5",
        "-3.8531",
        "8.8531",
        "2",
    )
    assert ud["paper_difference"] == "1.19" and "label smoothing" in first["doubt"] and ud["doubt"] == ""
    assert cited["ours"] == missing["ours"] == missing["difference"] == "" and missing["seeds"] == "0"


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_figure_has_the_papers_differences_the_doubtful_apart_and_ours():
    figure = comparison.figure(T3, printed(), "title")
    assert type(figure) is Figure and plots.png(figure)[:4] == b"\x89PNG"
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "ResNet-18, UD from ResNet-101",
        "ResNet-18, KD from ResNet-101",
    ]
    assert legend(axes) == ["paper, doubtful", "ours, 95 % interval"], (
        "its baseline is doubtful, and so every difference"
    )
    half = [
        replace(line, paper_difference=replace(line.paper_difference, doubts=()))
        if line.row.startswith("ResNet-18, UD") and line.paper_difference
        else line
        for line in printed()
    ]
    assert legend(comparison.figure(T3, half).axes[0]) == ["paper", "paper, doubtful", "ours, 95 % interval"]
    assert "difference to the baseline (points)" in axes.get_xlabel()


def test_a_figure_needs_a_row_with_a_difference():
    with pytest.raises(ValueError, match="none of the rows of table3a has a difference to draw"):
        comparison.figure(T3, compare(T3, rows(ROWS[0]), "scenes", "course", 1))


def test_a_job_is_work_unless_it_is_stored_or_damaged():
    assert [Job(baseline(), "", state).waits for state in ("stored", "half done", "missing", "damaged")] == [
        False,
        True,
        True,
        False,
    ]
