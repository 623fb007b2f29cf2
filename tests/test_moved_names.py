"""Names of udlib 0.1 can still be imported, from where they stood, with a warning that names the new place."""

import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

import udlib

ROOT = Path(__file__).resolve().parents[1]

# What the lessons of 0.1 imported, or used of a module that they imported.
LESSONS = {
    "udlib": "load",
    "udlib.attention": "class_attention energy_inside pointing_game uncertainty_attention uncertainty_attention_of",
    "udlib.backbones": "backbone",
    "udlib.batches": "ArrayData Batch ImagesOnly load",
    "udlib.calibration": (
        "brier_score calibration_interval calibration_noise expected_brier_floor expected_calibration_error "
        "expected_nll_floor maximum_calibration_error negative_log_likelihood reliability_curve "
        "true_calibration_error"
    ),
    "udlib.checkpoints": "load_checkpoint",
    "udlib.cli": "main",
    "udlib.datasets": "Box apply_policy open_dataset read_truth",
    "udlib.datasets.annotator": "CENTRE DIFFICULT_BELOW HIGHEST LOWEST WIDTH annotate marking_probability",
    "udlib.datasets.base": "Box checkout data_root load_rgb to_memory",
    "udlib.datasets.drawing": "CLASSES KINDS",
    "udlib.datasets.scenes": "CONTEXTS record scenes visibility",
    "udlib.datasets.transforms": "BatchAugment normalise train_transform",
    "udlib.detection_measures": "Detections correct_localisation detect matched object_areas objects_of",
    "udlib.detectors": "Detector",
    "udlib.devices": "autocast make_accelerator require_one_world resolve_precision",
    "udlib.exercises": "assert_measured check check_choice check_guess",
    "udlib.experiments": "arrays dataset for_profile labels load load_model load_or_run needed profile recipe store",
    "udlib.graphs": "PartitionExplorer affinity_blocks embedding monotone part_of partition_graph",
    "udlib.heads": "DualBranchHead DualBranchNet",
    "udlib.ledger": "rows",
    "udlib.localisation": "box_mask",
    "udlib.losses": (
        "asymmetric_loss attention_loss bernoulli_kl dual_branch_loss label_smoothing_loss one_over_k_softmax_loss "
        "ova_loss pal_n_loss partial_softmax pick_all_labels_marginals softmax_kl uncertainty_distillation_loss"
    ),
    "udlib.losses_detection": "detection_logits region_feature_loss",
    "udlib.measures": "measure",
    "udlib.methods.detection": "Settings train_detector train_taught",
    "udlib.methods.distillation": "answers build distillation_loss",
    "udlib.methods.parallel": (
        "GROUPS Settings cooccurrence_partition disoccurrence_partition label_affinity parallel_loss partitions "
        "scattered train_parallel"
    ),
    "udlib.methods.self_distillation": "train_self_distilled",
    "udlib.methods.supervised": "make_network on_validation supervised_loss",
    "udlib.metrics": "AP_VARIANTS average_precision difficult_subset mean_average_precision precision_recall_f1",
    "udlib.overlays": "answers attention_grid",
    "udlib.paper": "table",
    "udlib.plots": (
        "bars dots estimates heat_map interval_bars lines panels picture_grid precision_recall prediction reliability "
        "scatter seed_intervals show trajectories"
    ),
    "udlib.posthoc": "CALIBRATORS fit_label_temperature fit_temperature",
    "udlib.proposals": "DIVISIONS WHOLE grid grid_proposals proposals",
    "udlib.recipes": (
        "METHODS NETWORKS PARTITIONS REGIMES SEEDS STUDENTS SWEEP_SEEDS TEACHERS TEMPERATURES averaged baseline "
        "by_size detection distilled hard_labels pairs parallel partitioned regimes regimes_distilled "
        "restart_controls restarted scales sweep temperatures tricks two_branch weights"
    ),
    "udlib.regions": "ProposalExplorer evidence findings say top_predictions",
    "udlib.report": "as_markdown verdicts",
    "udlib.reproduce": "cost jobs_of recipes_of",
    "udlib.sizes": "ASSUMED COUNTS FULL_SIZE decoded_bytes seconds",
    "udlib.statistics": "bootstrap_interval paired_difference summary",
    "udlib.tables": "settings",
    "udlib.telling": "Differences difference in_units percent runs say spread stored trained",
    "udlib.training": "fit learning_rate mixed_seed predict",
    "udlib.verdicts": "best_beta calibration_claims distillation_claims judge",
    "udlib.widgets": "AttentionExplorer Explorer Frame LambdaExplorer TeacherExplorer",
}

# The modules of 0.1 that stand elsewhere now.
MODULES = (
    "batches checkpoints comparison detection_measures detectors devices doctor exercises experiments graphs ledger "
    "localisation logs losses_detection making measures methods._partitions optimization overlays paper plots proposals "
    "recipe recipes regions report reproduce sizes tables telling verdicts widgets"
).split() + [f"exercises.{name}" for name in ("answers", *(f"lesson_{number:02d}" for number in range(12)))]


def table():
    """Old module → entries, of the file that the package reads."""
    lines = (ROOT / "udlib" / "moved_names.txt").read_text(encoding="utf-8").splitlines()
    return {old: entries for old, *entries in (line.split() for line in lines if not line.startswith("#"))}


def run(source):
    """The names that a lesson's line leaves behind, and the warnings it gave."""
    names = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(source, "lesson.py", "exec"), names)
    return names, [warning for warning in caught if warning.category is DeprecationWarning]


def test_the_table_holds_exactly_the_modules_that_moved():
    assert sorted(table()) == sorted(MODULES)


@pytest.mark.parametrize("old", MODULES)
def test_a_moved_module_can_be_imported_under_its_old_name(old):
    module = import_module(f"udlib.{old}")
    assert module.__name__ == f"udlib.{old}" and module.__all__ == dir(module) != []


@pytest.mark.parametrize("module", LESSONS)
def test_what_the_lessons_of_0_1_imported_can_still_be_imported(module):
    for name in LESSONS[module].split():
        names, caught = run(f"from {module} import {name} as value")
        moved = [warning for warning in caught if str(warning.message).startswith(f"{module}.{name} is now ")]
        assert {(warning.filename, warning.lineno) for warning in moved} <= {("lesson.py", 1)}
        if moved:
            place, _, new = str(moved[0].message).split(" is now ")[1].split(";")[0].rpartition(".")
            assert names["value"] is getattr(sys.modules[place], new)
        if (old := module.removeprefix("udlib.")) in MODULES:
            assert moved and place.removeprefix("udlib.") in table()[old]


def test_a_moved_module_can_be_imported_from_the_package_and_used_by_its_attributes():
    names, caught = run("from udlib import plots\nfigure = plots.bars(['a'], {'': [1.0]}, 'x')")
    assert type(names["figure"]).__name__ == "Figure"
    assert [(warning.lineno, str(warning.message).split(";")[0]) for warning in caught] == [
        (2, "udlib.plots.bars is now udlib.figures.plots.bars")
    ]


def test_a_star_import_takes_the_public_names():
    names, caught = run("from udlib.optimization import *")
    assert names["TrainingConfig"] is udlib.training.optimization.TrainingConfig
    assert "udlib.optimization.TrainingConfig is now" in " ".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    "source, kind",
    [
        ("import udlib.devices as d; d.nothing", AttributeError),
        ("from udlib.devices import nothing", ImportError),
        ("from udlib.exercises import nothing", ImportError),
    ],
)
def test_a_name_that_is_gone_is_an_error_with_the_new_place(source, kind):
    with pytest.raises(kind, match=r"'nothing' is not in udlib\.\S+, where udlib\.\w+ went: CHANGELOG\.md"):
        run(source)


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="No module named 'udlib.nonsense'"):
        import_module("udlib.nonsense")
    assert not hasattr(import_module("udlib.devices"), "nothing")


def test_importing_the_package_alone_takes_no_library_along():
    source = "import sys, udlib; print([name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_change_log_shows_the_table():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for old, entries in table().items():
        if not old.startswith("exercises."):
            places = ", ".join(f"`{entry}`" for entry in entries if "=" not in entry)
            assert f"| `{old}` | {places} |" in changes, old
