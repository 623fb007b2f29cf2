import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from udlib.training.batches import ArrayData
from udlib.training.checkpoints import (
    describe,
    fingerprint,
    load_checkpoint,
    load_weights,
    part,
    require_same,
    restore_training,
    save_checkpoint,
    training_tensors,
)
from udlib.training.optimization import TrainingConfig

OLD = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}
NEW = {"weight": torch.arange(6.0).reshape(2, 3) + 1, "steps": torch.tensor(8)}


def content(folder):
    tensors, state = load_checkpoint(folder)
    return tensors["steps"].item(), tensors["weight"].tolist(), state["epoch"]


def test_what_is_saved_comes_back(tmp_path):
    tensors = {
        "bf16": torch.randn(3).bfloat16(),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    save_checkpoint(tmp_path / "new" / "folder", tensors, {"rows": [{"loss": 0.1 + 0.2}]})
    found, state = load_checkpoint(tmp_path / "new" / "folder")
    assert found.keys() == tensors.keys() and state["rows"] == [{"loss": 0.1 + 0.2}]
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_a_new_pair_replaces_the_old_and_leaves_nothing_else(tmp_path):
    save_checkpoint(tmp_path, OLD, {"epoch": 1})
    (tmp_path / ".state.json.0123abcd.tmp").write_bytes(b"left by a kill")
    save_checkpoint(tmp_path, NEW, {"epoch": 2})
    assert content(tmp_path) == (8, NEW["weight"].tolist(), 2)
    assert len(list(tmp_path.iterdir())) == 2
    save_checkpoint(tmp_path, NEW, {"epoch": 3})
    assert content(tmp_path) == (8, NEW["weight"].tolist(), 3)


class Killed(BaseException):
    pass


def test_a_kill_at_any_system_call_leaves_the_old_pair_or_the_new_one(tmp_path, monkeypatch):
    calls = {(os, "fsync"), (os, "replace"), (os, "open"), (Path, "unlink")}
    outcomes = []
    for fatal in range(100):
        folder = tmp_path / str(fatal)
        save_checkpoint(folder, OLD, {"epoch": 1})
        count = 0

        def dying(original, fatal=fatal):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count > fatal:
                    raise Killed  # as after a real kill, no later call does anything
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for owner, name in calls:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            try:
                save_checkpoint(folder, NEW, {"epoch": 2})
                survived = True
            except Killed:
                survived = False
        steps, weight, epoch = content(folder)
        assert (steps, weight, epoch) in [(7, OLD["weight"].tolist(), 1), (8, NEW["weight"].tolist(), 2)]
        outcomes.append(epoch)
        save_checkpoint(folder, NEW, {"epoch": 3})  # the next save works, and clears what the kill left
        assert content(folder)[2] == 3 and len(list(folder.iterdir())) == 2
        if survived:
            break
    assert survived and outcomes == sorted(outcomes) and set(outcomes) == {1, 2} and len(outcomes) > 6


@pytest.mark.parametrize("writes_that_succeed", [0, 1])
def test_a_full_disk_names_the_file_and_leaves_the_old_pair(tmp_path, monkeypatch, writes_that_succeed):
    save_checkpoint(tmp_path, OLD, {"epoch": 1})
    synced = os.fsync
    writes = []

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) > 2 * writes_that_succeed:  # a write syncs its file and its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write '.*(tensors-|state).*so it is unchanged: No space") as error:
        save_checkpoint(tmp_path, NEW, {"epoch": 2})
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert content(tmp_path) == (7, OLD["weight"].tolist(), 1)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.fixture
def saved(tmp_path):
    save_checkpoint(tmp_path, OLD, {"epoch": 1})
    return tmp_path


def tensors_file(folder):
    return next(folder.glob("tensors-*.safetensors"))


def test_a_truncated_tensors_file_is_named(saved):
    file = tensors_file(saved)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"checkpoint file '.*{file.name}' is damaged.*delete the folder '.*'"):
        load_checkpoint(saved)


def test_one_flipped_bit_is_noticed(saved):
    file = tensors_file(saved)
    flipped = bytearray(file.read_bytes())
    flipped[-1] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(saved)


def test_a_missing_tensors_file_is_named(saved):
    file = tensors_file(saved)
    file.unlink()
    with pytest.raises(ValueError, match=f"names '{file.name}', which is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 1}', '{"format": 1, "tensors": 3}'])
def test_a_damaged_state_is_named(saved, text):
    (saved / "state.json").write_text(text)
    with pytest.raises(ValueError, match="checkpoint '.*state.json' is damaged"):
        load_checkpoint(saved)


def test_another_format_is_refused(saved):
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(ValueError, match="has format 99: expected 1"):
        load_checkpoint(saved)


def test_the_files_are_plain_json_and_safetensors(saved):
    state = json.loads((saved / "state.json").read_text())
    file = saved / state["tensors"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == state["sha256"]
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert json.loads(file.read_bytes()[8 : 8 + header])["weight"]["shape"] == [2, 3]


def test_another_training_is_refused_by_the_names_that_differ():
    require_same({"lr": 0.1, "sizes": [1, 2]}, {"lr": 0.1, "sizes": (1, 2)}, "runs/a")
    with pytest.raises(ValueError) as error:
        require_same({"lr": 0.1, "lam": 1, "seed": 0}, {"lr": 0.2, "seed": 0, "pooling": "max"}, "runs/a")
    message = str(error.value)
    assert "checkpoint 'runs/a' belongs to another training" in message
    assert "lam: saved 1, now None; lr: saved 0.1, now 0.2; pooling: saved None, now 'max'" in message


def test_what_another_process_has_removed_meanwhile_is_no_error(saved, monkeypatch):
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, what: [*listed(self, what), self / "tensors-gone.safetensors"])
    save_checkpoint(saved, NEW, {"epoch": 2})
    assert content(saved)[2] == 2


def test_a_fingerprint_is_twelve_digits_of_the_safetensors_file():
    found = fingerprint(OLD)
    expected = hashlib.sha256(safetensors.torch.save(OLD)).hexdigest()[:12]
    assert found == expected != fingerprint(NEW)
    strided = {"weight": OLD["weight"].T.contiguous().T, "steps": OLD["steps"]}
    assert fingerprint(strided) == found, "memory layout is no content"
    assert fingerprint({"weight": torch.nn.Parameter(OLD["weight"]), "steps": OLD["steps"]}) == found


def test_a_part_has_its_names_without_the_prefix():
    tensors = {"model/a": OLD["weight"], "model/b/c": OLD["steps"], "models/a": OLD["steps"], "model": OLD["steps"]}
    assert part(tensors, "model") == {"a": tensors["model/a"], "b/c": tensors["model/b/c"]}


def test_the_training_set_is_described_by_its_labels_and_what_is_ignored():
    data = ArrayData(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([[1, 0], [0, 1]]))
    ignore = torch.tensor([[False, True], [False, False]])
    marked = ArrayData(data.images, data.targets, ignore)
    described = describe(TrainingConfig(lr=0.5), data, {"lam": 0.1})
    assert described["config.lr"] == 0.5 and described["lam"] == 0.1
    digest = hashlib.sha256(bytes([1, 0, 0, 1])).hexdigest()[:12]
    assert described["training set"] == f"(2, 2) labels, {digest}"
    digest = hashlib.sha256(bytes([1, 0, 0, 1, 0, 1, 0, 0])).hexdigest()[:12]
    assert describe(TrainingConfig(), marked, {})["training set"] == f"(2, 2) labels, {digest}"


def test_weights_of_another_architecture_are_refused_by_the_first_name_that_differs():
    model = torch.nn.Linear(2, 3)
    weights = {name: value.clone() + 1 for name, value in model.state_dict().items()}
    load_weights(model, weights, "runs/a")
    assert torch.equal(model.bias, weights["bias"]) and model.bias is not weights["bias"]
    for wrong, says in (
        ({"weight": weights["weight"]}, r"bias: saved None, now \(3,\)"),
        (weights | {"more": weights["bias"]}, r"more: saved \(3,\), now None"),
        (weights | {"weight": torch.zeros(3, 3)}, r"weight: saved \(3, 3\), now \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=says):
            load_weights(model, wrong, "runs/a")
    with torch.device("meta"):
        empty = torch.nn.Linear(2, 3)
    load_weights(empty, weights, "runs/a", assign=True)
    assert torch.equal(empty.weight, weights["weight"])


def test_what_a_training_remembers_is_named_and_comes_back_bit_by_bit():
    def stepped(seed):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(
            memory_format=torch.channels_last
        )
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        average = torch.optim.swa_utils.AveragedModel(model)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(4, 2, 5, 5)).square().sum().backward()
            optimizer.step()
            average.update_parameters(model)
        return model, optimizer, average

    one, other = stepped(0), stepped(1)
    tensors = training_tensors(*one)
    assert {name.split("/")[0] for name in tensors} == {"model", "average", "optimizer"}
    assert {"model/0.weight", "average/module.0.weight", "optimizer/exp_avg/0.weight"} <= tensors.keys()
    assert not any(name.startswith("average") for name in training_tensors(*one[:2]))
    restore_training(tensors, other[0], other[1], "runs/a", other[2])
    for name, value in training_tensors(*other).items():
        assert torch.equal(value, tensors[name]), name
    for parameter in other[0].parameters():
        memory = other[1].state[parameter]["exp_avg"]
        assert memory.stride() == parameter.stride() and not memory.requires_grad
