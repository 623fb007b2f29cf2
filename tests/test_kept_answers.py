"""A teacher's answers on disk: computed once for all students of a seed, and the students are the same bit for bit."""

import dataclasses
import threading
from dataclasses import asdict

import pytest
import torch
from striped_images import QUICK, same_weights, striped_images

from udlib.methods import recipe
from udlib.methods import teachers as teachers_module
from udlib.methods.base import make_network
from udlib.training import Watch
from udlib.workshop import train

CONFIG = dataclasses.replace(QUICK, epochs=2, batch_size=16, shift=0, crop=12)
SMALL = {"network": "small_narrow", "embedding": 8, "teacher_size": 16, **asdict(CONFIG)}
KD, UD = {"alpha": 0.0, "beta": 0.0}, {"alpha": 0.5, "beta": 0.5}


@pytest.fixture(scope="module")
def data():
    return striped_images(40, size=20)  # two batches of 16, and 8 images that an epoch leaves out


def network(seed):
    torch.manual_seed(seed)
    return make_network(3, 0.1, "small_narrow", embedding=8)


@pytest.fixture
def asked(monkeypatch):
    """The number of batches about which a teacher was asked so far."""
    count, usual = [], teachers_module.require_finite
    monkeypatch.setattr(teachers_module, "require_finite", lambda *parts: count.append(1) or usual(*parts))
    return count


def student(data, folder=None, teacher=1, **changes):
    options = {"teachers": {"teacher": network(teacher)}, "answers": folder}
    return train(recipe("distillation", **SMALL | changes), data, **options).network


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_second_student_asks_nothing_and_is_the_one_that_asks_for_itself(data, asked, tmp_path, precision):
    first = student(data, tmp_path, **UD, precision=precision)
    assert len(asked) == 4
    others = {"UD": UD, "KD": KD, "released": UD | {"weighting": "released"}}
    kept = {name: student(data, tmp_path, **terms, precision=precision) for name, terms in others.items()}
    assert len(asked) == 4, "KD, UD and the released weights read the same answers"
    for name, terms in others.items():
        assert same_weights(kept[name], student(data, **terms, precision=precision)), name
    assert same_weights(first, kept["UD"]) and not same_weights(first, kept["KD"])


@pytest.mark.parametrize(
    "changes", [{"teacher": 2}, {"seed": 1}, {"teacher_size": 20}, {"batch_size": 8}, {"erase": 0.5}, {"flip": False}]
)
def test_other_views_and_other_teachers_are_asked_again(data, asked, tmp_path, changes):
    student(data, tmp_path)
    before = len(asked)
    student(data, tmp_path, **changes)
    assert len(asked) == before + 2 * (40 // changes.get("batch_size", 16))


def test_other_images_with_the_same_labels_are_asked_about_again(data, asked, tmp_path):
    student(data, tmp_path)
    student(dataclasses.replace(data, images=255 - data.images), tmp_path)
    assert len(asked) == 8


def test_where_a_student_begins_makes_no_difference_to_its_teacher(data, asked, tmp_path):
    student(data, tmp_path)
    teachers = {"teacher": network(1), "start": network(5)}
    train(recipe("distillation", **SMALL), data, teachers=teachers, answers=tmp_path)
    assert len(asked) == 4


def epochs(folder):
    return sorted(folder.glob("*/epoch-*.safetensors"))


def flipped(raw):
    return raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:]


@pytest.mark.parametrize("damage", [lambda raw: raw[:-10], lambda raw: b"", lambda raw: b"no tensors" + raw, flipped])
def test_a_damaged_epoch_is_computed_again_and_replaced(data, asked, tmp_path, damage):
    right = student(data, tmp_path)
    whole = epochs(tmp_path)[1].read_bytes()
    epochs(tmp_path)[1].write_bytes(damage(whole))
    assert same_weights(right, student(data, tmp_path)) and len(asked) == 6
    assert epochs(tmp_path)[1].read_bytes() == whole


def test_a_training_that_was_killed_is_completed(data, asked, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        options = {"teachers": {"teacher": network(1)}, "answers": tmp_path, "watch": Watch(on_epoch=stop)}
        train(recipe("distillation", **SMALL), data, **options)
    assert [file.name for file in epochs(tmp_path)] == ["epoch-000.safetensors"] and len(asked) == 2
    assert same_weights(student(data, tmp_path), student(data)) and len(asked) == 2 + 2 + 4
    assert len(epochs(tmp_path)) == 2


def test_a_batch_as_large_as_the_data_is_kept_too(data, asked, tmp_path):
    for _ in range(2):
        student(data, tmp_path, batch_size=64)
    assert len(asked) == 2 and len(epochs(tmp_path)) == 2


def test_whole_images_and_no_folder_keep_nothing(data, tmp_path):
    student(data, tmp_path, crop=0, teacher_size=0)
    assert list(tmp_path.iterdir()) == []


def test_two_at_a_time_write_the_same_file_without_harm(data, tmp_path):
    from udlib.methods.teachers import TeacherAnswers
    from udlib.training.batches import Batch
    from udlib.workshop.answers import _KeptAnswers

    start, results = threading.Barrier(2), []

    def ask(batch):
        start.wait()
        return TeacherAnswers(batch.index[:, None] * torch.ones(3), None, None)

    def write():
        keep = _KeptAnswers(ask, tmp_path / "here", 8, 8, "{}")
        for rows in torch.arange(8).split(4):
            results.append(keep(Batch(torch.zeros(4, 3, 2, 2), torch.zeros(4, 3), None, rows)).logits)

    threads = [threading.Thread(target=write) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert len(results) == 4 and {path.name for path in (tmp_path / "here").iterdir()} == {
        "of.json",
        "epoch-000.safetensors",
    }
    keep = _KeptAnswers(lambda _: pytest.fail("asked again"), tmp_path / "here", 8, 8, "{}")
    answers = keep(Batch(torch.zeros(4, 3, 2, 2), torch.zeros(4, 3), None, torch.tensor([7, 0, 3, 3])))
    assert answers.logits[:, 0].tolist() == [7, 0, 3, 3] and answers.attention is None
