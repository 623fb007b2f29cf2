"""Parallel Self-Distillation: planted graphs are found again, losses are their sums written out, kills change nothing."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest
import torch
from striped_images import QUICK, same_weights, striped_images
from trainings import train_parallel

from udlib.course import recipes
from udlib.course import store as experiments
from udlib.course.store import for_profile, recipe
from udlib.methods.parallel import (
    Settings,
    cooccurrence_partition,
    disoccurrence_partition,
    label_affinity,
    parallel_loss,
    partitions,
    random_partition,
    scattered,
    stored_partition,
)
from udlib.methods.supervised import make_network
from udlib.training import Saving, Watch, evaluate
from udlib.training.batches import Batch
from udlib.training.checkpoints import load_checkpoint
from udlib.workshop import trainings as workshop

BOTH = [cooccurrence_partition, disoccurrence_partition]
CONFIG = dataclasses.replace(QUICK, epochs=2, batch_size=16, ema=0.2, shift=0)
SMALL = {"network": "small_narrow"}


@pytest.fixture(autouse=True)
def silent(monkeypatch):
    monkeypatch.setenv("UDLIB_PROGRESS", "0")


@pytest.fixture(autouse=True)
def no_warning_leaks():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="sklearn")
        yield


@pytest.fixture(scope="module")
def splits():
    return striped_images(48, classes=4), striped_images(32, classes=4, seed=1)


def planted(blocks, inside=0.8, outside=0.0, seed=0, images=600):
    """Labels of images that each show most classes of one block, and with chance `outside` each class of the others."""
    draw = np.random.default_rng(seed)
    chance = np.full((images, sum(map(len, blocks))), outside)
    for image in range(images):
        chance[image, blocks[image % len(blocks)]] = inside
    return (draw.random(chance.shape) < chance).astype(int)


def as_sets(parts):
    return {frozenset(part) for part in parts}


BLOCKS = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]]


@pytest.mark.parametrize("outside", [0.0, 0.1])
@pytest.mark.parametrize("shuffle", [None, 0, 1])
def test_planted_blocks_are_found_connected_or_not_and_under_any_order_of_the_classes(outside, shuffle):
    targets = planted(BLOCKS, outside=outside)
    order = np.arange(12) if shuffle is None else np.random.default_rng(shuffle).permutation(12)
    found = cooccurrence_partition(targets[:, order], k=3)
    assert as_sets([order[part].tolist() for part in found]) == as_sets(BLOCKS)
    assert found == sorted(sorted(part) for part in found), "sorted inside, by the first class among themselves"


def test_planted_groups_of_classes_that_never_meet_are_the_dis_occurrence_partition():
    # Each image shows one class of each group, so that classes of one group exclude each other.
    draw = np.random.default_rng(0)
    targets = np.zeros((900, 9), int)
    for group in range(3):
        targets[np.arange(900), 3 * group + draw.integers(0, 3, 900)] = 1
    assert disoccurrence_partition(targets, k=3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert cooccurrence_partition(targets, k=3) != [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_the_affinity_is_its_definition_written_out():
    targets = planted(BLOCKS, outside=0.2, images=50)
    M, N = targets.T @ targets, targets.sum(0)
    found = label_affinity(M, N)
    for i in range(12):
        for j in range(12):
            both = sum(int(row[i] and row[j]) for row in targets) if i != j else 0
            expected = (math.sqrt(both / N[j]) + math.sqrt(both / N[i])) / 2
            assert found[i, j] == pytest.approx(expected)
    assert 0 <= found.min() and found.max() <= 1


@pytest.mark.parametrize("partition", BOTH)
def test_labels_of_any_kind_and_ready_counts_lead_to_the_same_parts_every_time(partition):
    targets = planted(BLOCKS, outside=0.15)
    M, N = targets.T @ targets, targets.sum(0)
    expected = partition(targets, k=4, seed=5)
    for given in (targets.astype(bool), torch.tensor(targets), torch.tensor(targets).float(), targets.tolist()):
        assert partition(given, k=4, seed=5) == expected
    assert partition(cooccurrence=M, counts=N, k=4, seed=5) == expected
    assert partition(cooccurrence=M, k=4, seed=5) == expected, "the diagonal counts"
    assert partition(cooccurrence=torch.tensor(M - np.diag(N)), counts=torch.tensor(N), k=4, seed=5) == expected
    assert len(expected) == 4 and sorted(sum(expected, [])) == list(range(12))


@pytest.mark.parametrize("partition", BOTH)
def test_one_part_and_one_class_each_need_no_clustering(partition, monkeypatch):
    monkeypatch.setattr("udlib.methods.parallel.clustering.SpectralClustering", None)
    for targets in (planted(BLOCKS), np.eye(12, dtype=int), np.zeros((3, 12), int)):
        assert partition(targets, k=1) == [list(range(12))] and partition(targets, k=12) == [[c] for c in range(12)]


@pytest.mark.parametrize("partition", BOTH)
@pytest.mark.parametrize("k", range(2, 12))
def test_every_k_gives_k_parts_that_hold_each_class_once(partition, k):
    found = partition(planted(BLOCKS, outside=0.1), k=k)
    assert len(found) == k and all(found) and sorted(sum(found, [])) == list(range(12))


def test_classes_without_positives_join_the_smallest_parts():
    targets = planted([[0, 1, 2, 3], [4, 5, 6]], outside=0.05)
    targets = np.insert(targets, [0, 7], 0, axis=1)  # classes 0 and 8 are absent
    assert cooccurrence_partition(targets, k=2) == [[0, 5, 6, 7], [1, 2, 3, 4, 8]]
    assert cooccurrence_partition(targets, k=7) != cooccurrence_partition(targets, k=9) == [[c] for c in range(9)]
    with pytest.raises(ValueError, match="k is 8 but only 7 of 9 classes have a positive label"):
        cooccurrence_partition(targets, k=8)


def test_a_class_that_is_always_alone_has_its_place():
    targets = np.concatenate([np.pad(planted(BLOCKS), ((0, 0), (0, 1))), np.eye(13, dtype=int)[[12] * 20]])
    found = cooccurrence_partition(targets, k=3)
    assert as_sets([[c for c in part if c != 12] for part in found]) == as_sets(BLOCKS)


@pytest.mark.parametrize("partition", BOTH)
@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"k": 0}, "k is 0: expected 1 to 3 parts, as there are 3 classes"),
        ({"k": 4}, "k is 4: expected 1 to 3"),
        ({"seed": -1}, "seed is -1"),
        ({}, None),
        ({"targets": np.eye(3)}, "no two classes ever share an image"),
        ({"targets": np.zeros((4, 3))}, "k is 2 but only 0 of 3 classes"),
        ({"targets": np.full((4, 3), 2)}, r"targets hold 2 at \[0, 0\]"),
        ({"targets": np.ones(3)}, r"targets have shape \(3,\)"),
        ({"targets": np.ones((0, 3))}, r"targets have shape \(0, 3\)"),
        ({"targets": None}, "pass either targets"),
        ({"cooccurrence": np.eye(3)}, "pass either targets"),
        ({"counts": np.ones(3)}, "counts belong to cooccurrence"),
    ],
)
def test_bad_labels_are_refused_by_what_is_wrong_with_them(partition, wrong, message):
    given = {"targets": [[1, 1, 0], [0, 1, 1], [1, 0, 0]], "k": 2} | wrong
    if message is None:
        assert len(partition(**given)) == 2
        return
    with pytest.raises(ValueError, match=message):
        partition(**given)


@pytest.mark.parametrize("partition", BOTH)
@pytest.mark.parametrize(
    "M, N, message",
    [
        ([[0, 1, 2]], [1, 1, 1], r"cooccurrence has shape \(1, 3\): expected \(C, C\)"),
        (np.zeros((0, 0)), [], r"cooccurrence has shape \(0, 0\)"),
        ([[0, 1], [1, 0]], [1, 1, 1], r"counts have shape \(3,\) but cooccurrence has 2 classes"),
        ([[0, 1], [1, 0]], [[1, 1]], r"counts have shape \(1, 2\)"),
        ([[0, -1], [-1, 0]], [1, 1], r"cooccurrence hold -1.0 at \[0, 1\]"),
        ([[0, 1], [1, 0]], [1, -2], r"counts hold -2.0 at \[1\]"),
        ([[0, 1], [1, 0]], [1, math.nan], r"counts hold nan at \[1\]"),
        ([[0, 1], [2, 0]], [3, 3], r"not symmetric, 1 at \[0, 1\] and 2 at \[1, 0\]"),
        ([[0, 3], [3, 0]], [3, 2], "3 images hold classes 0 and 1 but only 2 hold class 1"),
        ([[0, 1], [1, 0]], None, "counts is None and the diagonal of cooccurrence is 0"),
    ],
)
def test_bad_counts_are_refused_by_what_is_wrong_with_them(partition, M, N, message):
    with pytest.raises(ValueError, match=message):
        partition(cooccurrence=np.array(M), counts=N, k=1)


def test_the_random_control_has_the_same_sizes_and_other_classes():
    found = random_partition(BLOCKS, seed=0)
    assert sorted(map(len, found)) == [3, 4, 5] and sorted(sum(found, [])) == list(range(12))
    assert found == random_partition(BLOCKS, seed=0) != random_partition(BLOCKS, seed=1)
    assert as_sets(found) != as_sets(BLOCKS)


def test_a_partition_is_saved_with_what_made_it_and_reused(tmp_path, monkeypatch):
    targets, path = planted(BLOCKS, outside=0.1), tmp_path / "parts" / "CGP.json"
    made = stored_partition(path, "CGP", targets, k=3, seed=1)
    record = json.loads(path.read_bytes())
    assert made == record["parts"] == BLOCKS and (record["strategy"], record["k"], record["seed"]) == ("CGP", 3, 1)
    monkeypatch.setattr("udlib.methods.parallel.clustering.cooccurrence_partition", None)
    assert stored_partition(path, "CGP", torch.tensor(targets), k=3, seed=1) == made
    other = targets.copy()
    other[0, 0] = 1 - other[0, 0]
    for changed, name in (
        ({"k": 4}, "k: saved 3, now 4"),
        ({"seed": 2}, "seed: saved 1, now 2"),
        ({"strategy": "DGP"}, "strategy: saved 'CGP', now 'DGP'"),
        ({"targets": other}, "labels: saved"),
        ({"targets": targets[:, :11]}, "classes: saved 12, now 11"),
    ):
        with pytest.raises(ValueError, match=f"of other labels or settings .*{name}"):
            stored_partition(path, **{"strategy": "CGP", "targets": targets, "k": 3, "seed": 1} | changed)
    for damage in ("{", "[]", json.dumps(record | {"parts": [[0, 1], [1]]}), json.dumps({"format": 1})):
        path.write_text(damage)
        with pytest.raises(ValueError, match="is damaged .* delete it"):
            stored_partition(path, "CGP", targets, k=3, seed=1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_the_sum_written_out(alpha, masked):
    draw = torch.Generator().manual_seed(0)
    z, co, dis = (3 * torch.randn(5, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    y = (torch.rand(5, 4, generator=draw) < 0.4).double()
    ignore = torch.rand(5, 4, generator=draw) < 0.3 if masked else None
    expected = {"asymmetric": 0.0, "co": 0.0, "dis": 0.0}
    for n in range(5):
        for c in range(4):
            if masked and ignore[n, c]:
                continue
            p = 1 / (1 + math.exp(-z[n, c]))
            away = max(p - 0.05, 0)
            expected["asymmetric"] += (-math.log(p) if y[n, c] else -(away**4) * math.log(1 - away)) / 5
            expected["co"] += (z[n, c] - co[n, c]).item() ** 2 / 5
            expected["dis"] += (z[n, c] - dis[n, c]).item() ** 2 / 5
    found = parallel_loss(z, y, co, dis, alpha, ignore)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value), name
    total = expected["asymmetric"] / 2 + alpha / 2 * expected["co"] + (1 - alpha) / 2 * expected["dis"]
    assert found["total"].item() == pytest.approx(total)


def test_without_teachers_the_loss_is_the_asymmetric_one_and_no_gradient_reaches_a_teacher():
    z, co, y = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True), torch.ones(3, 2)
    alone = parallel_loss(z, y)
    assert alone.keys() == {"total", "asymmetric"} and alone["total"] == alone["asymmetric"]
    taught = parallel_loss(z, y, co, alpha=1.0)
    assert taught.keys() == {"total", "asymmetric", "co"}
    taught["total"].backward()
    assert co.grad is None and z.grad.any()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"dis_logits": None}, "alpha is 0.5 but dis_logits is None: pass it, or alpha=1"),
        ({"co_logits": None}, "alpha is 0.5 but co_logits is None: pass it, or alpha=0"),
        ({"co_logits": torch.zeros(3, 3)}, r"co_logits have shape \(3, 3\) and logits \(3, 2\)"),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        parallel_loss(
            torch.zeros(3, 2),
            torch.zeros(3, 2),
            **{"co_logits": torch.zeros(3, 2), "dis_logits": torch.zeros(3, 2)} | given,
        )


def teacher(classes, seed=0):
    torch.manual_seed(seed)
    return make_network(classes, 0.0, "small_narrow")


def test_teachers_speak_in_the_columns_of_their_classes_in_eval_mode():
    parts = [[1, 4], [0, 2, 5], [3]]
    teachers = [teacher(len(part), seed).train() for seed, part in enumerate(parts)]
    given = Batch(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), None, None, torch.arange(4))
    said = scattered(teachers, parts)(given).logits
    assert said.shape == (4, 6) and not said.requires_grad and not any(one.training for one in teachers)
    for one, part in zip(teachers, parts):
        torch.testing.assert_close(said[:, part], one(given.images, calibration=False).logits)
    with pytest.raises(ValueError, match=r"the teachers know \[3, 2, 1\] classes and the parts have \[2, 3, 1\]"):
        scattered([teachers[1], teachers[0], teachers[2]], parts)
    with pytest.raises(ValueError, match="not a partition of 6 classes"):
        scattered(teachers, [[1, 4], [0, 2, 5], [4]])


@pytest.mark.parametrize(
    "strategy, k, groups, share",
    [
        ("both", 2, ["co", "dis"], 0.3),
        ("CGP", 2, ["co"], 1.0),
        ("DGP", 2, ["dis"], 0.0),
        ("random", 2, ["co", "dis"], 0.3),
        ("both", 1, ["co"], 1.0),
        ("random", 1, ["co"], 1.0),
        ("both", 4, ["co", "dis"], 0.3),
    ],
)
def test_each_control_has_its_groups_of_teachers_and_their_weight(splits, strategy, k, groups, share):
    found = partitions(splits[0].targets, k, strategy)
    chosen = Settings(**found, alpha=0.3)
    assert list(found) == list(chosen.groups()) == groups and chosen.share == share
    assert list(chosen.teachers()) == [f"{group} {number}" for group in groups for number in range(1, k + 1)]
    assert all(
        list(chosen.teachers()[f"{group} {number}"]) == found[group][number - 1]
        for group in groups
        for number in range(1, k + 1)
    )
    assert hash(chosen) == hash(Settings(**json.loads(json.dumps(dataclasses.asdict(chosen))))), (
        "a recipe is a key of a dict"
    )


def test_the_random_control_shuffles_both_partitions_each_in_its_own_way():
    data = torch.tensor(planted(BLOCKS, outside=0.2))
    found, shuffled = partitions(data, 3), partitions(data, 3, "random")
    for group in ("co", "dis"):
        assert sorted(map(len, found[group])) == sorted(map(len, shuffled[group])) and found[group] != shuffled[group]
    assert shuffled["co"] != shuffled["dis"] and shuffled == partitions(data, 3, "random")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"co": [[0, 1], [1]]}, "not a partition of 3 classes"),
        ({"dis": [[0, 1], []]}, "not a partition"),
        ({"co": [[0, 1]], "dis": [[0], [1], [2]]}, "have different numbers of classes"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        recipe("parallel", **wrong)


def test_what_no_teacher_could_learn_is_refused_before_training(splits, monkeypatch):
    monkeypatch.setattr(workshop, "fit", None)
    data = splits[0]
    with pytest.raises(ValueError, match="k is 5: expected 1 to 4 parts"):
        partitions(data.targets, 5)
    with pytest.raises(ValueError, match="strategy is 'rand': choose one of both, CGP, DGP, random"):
        partitions(data.targets, 2, "rand")
    with pytest.raises(ValueError, match="not a partition of 4 classes"):
        train_parallel(data, CONFIG, Settings(co=[[0, 1], [2]]), **SMALL)
    absent = data.targets.clone()
    absent[:, 2] = 0
    with pytest.raises(ValueError, match=r"the CGP part of classes \[2\] has no positive label"):
        partitions(absent, 4)


def test_ignored_labels_do_not_count_in_the_graph(splits):
    data = splits[0]
    ignore = torch.zeros_like(data.targets, dtype=torch.bool)
    ignore[:, 3] = True
    with pytest.raises(ValueError, match=r"the CGP part of classes \[3\] has no positive label"):
        partitions(data.targets, 4, ignore=ignore)


def test_partitions_are_kept_in_a_folder_and_read_again(splits, tmp_path, monkeypatch):
    found = partitions(splits[0].targets, 2, folder=tmp_path)
    assert found == partitions(splits[0].targets, 2) and {file.name for file in tmp_path.iterdir()} == {
        "CGP.json",
        "DGP.json",
    }
    monkeypatch.setattr("udlib.methods.parallel.clustering.SpectralClustering", None)
    assert partitions(splits[0].targets, 2, folder=tmp_path) == found


TWO = {"co": [[0, 2], [1, 3]], "dis": [[0, 1], [2, 3]]}


def test_the_student_learns_from_teachers_that_each_saw_all_images_and_their_own_classes(splits, monkeypatch):
    seen, plain = [], workshop.fit
    monkeypatch.setattr(
        workshop,
        "fit",
        lambda model, data, loss_fn, config, **options: (
            seen.append((data, config, options)) or plain(model, data, loss_fn, config, **options)
        ),
    )
    data, held_out = striped_images(128, classes=4), splits[1]
    config = dataclasses.replace(CONFIG, epochs=6)
    told = []
    student, history = train_parallel(
        data,
        config,
        Settings(**TWO),
        validation=held_out,
        keep="best",
        on_teacher=lambda name, teacher: told.append((name, teacher.classes)),
        **SMALL,
    )
    assert told == [("co 1", (0, 2)), ("co 2", (1, 3)), ("dis 1", (0, 1)), ("dis 2", (2, 3))]
    for (shown, _, options), part in zip(seen, TWO["co"] + TWO["dis"]):
        assert torch.equal(shown.targets, data.targets[:, part]) and shown.images is data.images
        identity, watch = options["saving"].identity, options["watch"]
        assert list(identity["only classes"]) == part and watch.validate is None and watch.keep == "last"
    assert len(seen) == 5 and len({own.seed for _, own, _ in seen}) == 5 and seen[-1][1] == config
    assert all(own.ema == config.ema for _, own, _ in seen)
    for term in ("total", "co", "dis"):
        assert history.column(term)[-1] < history.column(term)[0], term
    assert history.rows[0]["teachers_seconds"] > 0 and evaluate(student, held_out, precision="fp32")["mAP"] > 0.6


def test_one_partition_alone_has_the_teachers_that_it_has_beside_the_other(splits, tmp_path):
    train_parallel(splits[0], CONFIG, Settings(**TWO), checkpoint=tmp_path / "both", **SMALL)
    train_parallel(splits[0], CONFIG, Settings(dis=TWO["dis"]), checkpoint=tmp_path / "DGP", **SMALL)
    for number in (1, 2):
        one, other = (
            json.loads((tmp_path / run / f"dis {number}" / "state.json").read_bytes()) for run in ("both", "DGP")
        )
        assert one["sha256"] == other["sha256"]


class Killed(Exception):
    """Stands in for a kill: nothing handles it."""


@pytest.fixture(scope="module")
def whole(splits):
    return train_parallel(splits[0], CONFIG, Settings(**TWO), **SMALL)


@pytest.mark.parametrize("at", [1, 2, 3, 6, 8, 9, 10])  # of 4 teachers and a student with 2 epochs each
def test_a_kill_anywhere_is_resumed_to_the_same_student(splits, whole, tmp_path, at, monkeypatch):
    epochs, plain = [], workshop.fit

    def count(epoch, model, row):
        epochs.append(epoch)
        if len(epochs) == at:
            raise Killed

    watch = Watch(on_epoch=count)
    monkeypatch.setattr(workshop, "fit", lambda *given, **options: plain(*given, **options | {"watch": watch}))
    with pytest.raises(Killed):
        train_parallel(splits[0], CONFIG, Settings(**TWO), checkpoint=tmp_path, **SMALL)
    resumed, history = train_parallel(splits[0], CONFIG, Settings(**TWO), checkpoint=tmp_path, **SMALL)
    assert len(epochs) == 10, "nothing was trained twice"
    assert same_weights(whole[0], resumed) and history.column("total") == whole[1].column("total")


def test_a_student_of_other_teachers_is_refused(splits, tmp_path):
    alone = Settings(co=TWO["co"])
    train_parallel(splits[0], CONFIG, alone, checkpoint=tmp_path, **SMALL)
    for file in (tmp_path / "co 2").iterdir():
        file.unlink()
    changed = dataclasses.replace(splits[0], images=255 - splits[0].images)  # the same labels, other pixels
    with pytest.raises(ValueError, match="teacher co 2: saved '.*', now"):
        train_parallel(changed, CONFIG, alone, checkpoint=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="the teachers are co 1: expected co 1, co 2"):
        train_parallel(splits[0], CONFIG, alone, teachers={"co 1": teacher(2)}, **SMALL)


@pytest.mark.parametrize("settings", [{"co": [[*range(8)], [*range(8, 16)]]}, {}])
def test_parallel_self_distillation_is_a_recipe(monkeypatch, tmp_path, settings):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    run = experiments.load_or_run(recipe("parallel", network="small_narrow", ema=0.1, **settings))
    assert len(run.history) == 2 and run.metrics["test"]["mAP"] > 0
    assert experiments.load(run.recipe).history == run.history and run.val_calibration_logits is None


def test_teachers_are_recipes_that_train_what_the_student_would_train_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setattr(experiments, "store", lambda: tmp_path)
    chosen = for_profile(
        recipe("parallel", network="small_narrow", seed=3, co=[[*range(0, 16, 2)], [*range(1, 16, 2)]])
    )
    found = experiments.needed(chosen)
    assert list(found) == ["co 1", "co 2"] and not any(experiments.needed(one) for one in found.values())
    assert [one.classes for one in found.values()] == list(chosen.settings.co)
    assert len({chosen.training.seed, *(one.training.seed for one in found.values())}) == 3
    other = experiments.needed(chosen.but(dis=[[*range(16)]]))["co 2"]
    assert other == found["co 2"], "the students of all strategies share a teacher"
    given = experiments.train(chosen)
    teachers = {name: experiments.load_model(one) for name, one in found.items()}
    data = experiments.arrays(chosen, "train")
    own, _ = workshop.train(chosen, data, saving=Saving(tmp_path / "own"))
    assert same_weights(own, given.model)
    assert same_weights(own, workshop.train(chosen, data, teachers=teachers).network)
    trained = load_checkpoint(tmp_path / "own" / "co 2")[0]
    assert all(torch.equal(value, trained[f"model/{name}"]) for name, value in teachers["co 2"].state_dict().items())
    run = experiments.load_or_run(found["co 2"])
    assert run.test_logits.shape[1] == 8 and run.labels().classes == experiments.labels(chosen, "test").classes[1::2]


def test_the_partitions_of_the_course_are_those_of_its_labels():
    targets = experiments.labels(recipes.baseline(), "train").targets
    for (k, strategy), parts in recipes.PARTITIONS.items():
        assert partitions(targets, k, "both" if strategy == "whole" else strategy) == parts, (k, strategy)


def test_every_teacher_of_the_course_is_trained_once_and_has_its_group():
    taught = {
        teacher
        for found in recipes.partitioned().values()
        for one in found
        for teacher in experiments.needed(one).values()
    }
    listed = [one for found in recipes.specialists().values() for one in found]
    assert set(listed) == taught
    kinds = {(k, kind): {one.classes for one in found} for (k, kind), found in recipes.specialists().items()}
    assert kinds[3, "CGP"] == {tuple(part) for part in recipes.PARTITIONS[3, "both"]["co"]}
    assert kinds[3, "DGP"] == {tuple(part) for part in recipes.PARTITIONS[3, "both"]["dis"]}
    assert kinds[1, "whole"] == {tuple(range(16))} and len(kinds[3, "random"]) == 6
