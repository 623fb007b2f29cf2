"""`--from` and `--new-head` in every command that trains, and what a finished training says that is asked for more epochs."""

import pytest
import torch
from commands import udlib_command
from tiny_voc import write_tiny_voc

import udlib
from udlib.training.checkpoints import fingerprint
from udlib.workshop import NewHead, settings, train_model

pytestmark = pytest.mark.usefixtures("terminal")

SIZES = {"train": 16, "val": 16, "test": 16}
QUICK = ("--epochs", "1", "--batch", "8")
FIRST = ("--network", "small_narrow", "--size", "24")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A data set with the classes bike, cat and dog."""
    return write_tiny_voc(tmp_path_factory.mktemp("data") / "few", SIZES)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A data set with the classes cat, fox and bike, in this order."""
    return write_tiny_voc(tmp_path_factory.mktemp("data") / "others", SIZES, ("cat", "fox", "bike"))


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "first"
    code, _, err = udlib_command("train", few, "--out", folder, *QUICK, *FIRST)
    assert code == 0 and err == ""
    return folder


def refused(*words):
    """The one line of a command that is refused."""
    code, _, err = udlib_command(*words)
    assert code == 2 and err.startswith("udlib: ") and err.count("\n") == 1, err
    return err


def test_from_takes_network_and_size_from_the_model_and_is_the_same_option_as_start(few, trained, tmp_path):
    code, _, err = udlib_command("train", few, "--out", tmp_path / "more", *QUICK, "--from", trained)
    assert code == 0 and err == ""
    model = udlib.load(tmp_path / "more")
    assert (model.backbone, model.size) == ("small_narrow", 24)
    assert model.training["start"] == fingerprint(udlib.load(trained).network.state_dict())
    before = (tmp_path / "more" / "state.json").read_bytes()
    assert udlib_command("train", few, "--out", tmp_path / "more", *QUICK, "--start", trained)[0] == 0
    assert (tmp_path / "more" / "state.json").read_bytes() == before, "it is finished already"


def test_other_classes_are_refused_and_a_new_head_is_described_by_name(few, others, trained, tmp_path):
    words = ("train", others, "--out", tmp_path / "mine", *QUICK, "--from", trained)
    line = refused(*words)
    assert "the start does not know 'fox'" in line and "--new-head" in line and not (tmp_path / "mine").exists()
    code, out, err = udlib_command(*words, "--new-head")
    assert code == 0 and err == ""
    assert "the head keeps the weights of: cat, bike\nnew in the head: fox\nno longer in the head: dog\n" in out
    assert udlib.load(tmp_path / "mine").classes == ("cat", "fox", "bike")


def test_in_python_too_and_with_the_kept_rows(others, trained, tmp_path):
    start = udlib.load(trained)
    still = {"lr": 1e-30, "optimizer": "sgd", "schedule": "constant", "epochs": 1, "batch_size": 8, "keep": "last"}
    recipe = settings(start=start, lam=0.1, **still)
    model = train_model(others, tmp_path / "mine", recipe, start=NewHead(start))
    kept = model.network.head.classification.weight[[0, 2]]
    torch.testing.assert_close(kept, start.network.head.classification.weight[[1, 0]], atol=1e-25, rtol=0)
    with pytest.raises(ValueError, match="does not know 'fox'.*in Python start=NewHead"):
        train_model(others, tmp_path / "not", recipe, start=start)


@pytest.mark.parametrize(
    "command, options",
    [
        ("distill", ()),
        ("parallel", ("--k", "2", "--strategy", "CGP")),
        ("detection", ("--epochs", "2", "--pool", "1", "--hidden", "8")),
    ],
)
def test_every_command_that_trains_takes_a_model_and_a_new_head(others, trained, tmp_path, command, options):
    if command == "distill":
        teacher = tmp_path / "teacher"
        assert udlib_command("train", others, "--out", teacher, *QUICK, *FIRST)[0] == 0
        options = ("--teacher", teacher)
    words = (command, others, "--out", tmp_path / "model", *QUICK, *options, "--from", trained)
    assert "does not know 'fox'" in refused(*words)
    code, out, err = udlib_command(*words, "--new-head")
    assert code == 0 and err == "" and "new in the head: fox" in out
    assert udlib.load(tmp_path / "model").backbone == "small_narrow"
    text = " ".join(udlib_command(command, "--help")[1].replace("│", " ").split())
    assert "--from" in text and "--new-head" in text


def test_a_finished_training_gets_no_more_epochs_and_says_what_to_type(few, trained, tmp_path):
    line = refused("train", few, "--out", trained, *QUICK, *FIRST, "--epochs", "3")
    assert f"the training in '{trained}' is finished: its learning rate has fallen to its end over 1 epochs" in line
    assert f"--from {trained} --epochs 2; in Python start=udlib.load('{trained}')" in line
    code, _, err = udlib_command(
        "train", few, "--from", trained, "--epochs", "2", "--batch", "8", "--out", tmp_path / "more"
    )
    assert code == 0 and err == "" and udlib.load(tmp_path / "more").training["epochs"] == 2
    fewer = refused("train", few, "--out", tmp_path / "more", "--from", trained, *QUICK)
    assert "(epochs: saved 2, now 1)" in fewer
    both = refused("train", few, "--out", trained, *QUICK, *FIRST, "--epochs", "3", "--lr", "0.1")
    assert "epochs: saved 1, now 3; lr: saved 0.003, now 0.1" in both


@pytest.mark.parametrize(
    "options, complaint",
    [
        (("--new-head",), "--new-head needs a model whose head it replaces: name its folder with --from"),
        (("--from", "{first}", "--weights", "IMAGENET1K"), "leave one of the two out (--weights or --from"),
        (
            ("--from", "{first}", "--network", "small"),
            "the start's network is 'small_narrow', and 'small' is to be trained",
        ),
        (("--from", "nobody"), "model folder 'nobody' does not exist"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(few, trained, tmp_path, options, complaint):
    words = [word.format(first=trained) for word in options]
    assert complaint in refused("train", few, "--out", tmp_path / "model", *QUICK, *words)
    assert not (tmp_path / "model").exists()


def test_a_model_cannot_be_written_over_the_one_that_it_begins_with(few, trained):
    line = refused("train", few, "--out", trained, *QUICK, "--from", trained)
    assert "--from and --out are both" in line and "name another folder for the new model with --out" in line
