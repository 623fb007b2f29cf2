"""Where networks are and end, what a launcher's worlds say, and which batch fits into a memory that is too small."""

import platform
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from udlib.training import devices
from udlib.training.devices import (
    WORLDS,
    beside,
    compiled_or_not,
    device_of,
    keeps_devices,
    machine,
    make_accelerator,
    processor,
    provenance,
    require_one_world,
    within_memory,
)

META = torch.device("meta")


@pytest.fixture(autouse=True)
def no_worlds(monkeypatch):
    for name in WORLDS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_one_process_of_several_that_were_launched_does_not_go_on_alone(monkeypatch, name):
    for alone in ("", "1"):
        monkeypatch.setenv(name, alone)
        require_one_world(1)
    monkeypatch.setenv(name, "4")
    require_one_world(4)
    with pytest.raises(RuntimeError, match=f"{name} says that 4 processes were launched.*--nproc_per_node 4 -m udlib"):
        require_one_world(1)
    monkeypatch.setattr(devices, "Accelerator", lambda **_: types.SimpleNamespace(num_processes=1))
    with pytest.raises(RuntimeError, match="4 processes were launched"):
        make_accelerator()


def test_a_network_is_where_its_parameters_are_and_without_any_on_the_cpu():
    assert device_of(nn.Linear(1, 1, device="meta")) == META and device_of(nn.ReLU()) == torch.device("cpu")


def test_a_network_moves_beside_a_tensor_only_where_it_is_elsewhere():
    network = nn.Linear(1, 1)
    assert beside(network, torch.zeros(1)) is network and device_of(network) == torch.device("cpu")
    assert device_of(beside(network, torch.zeros(1, device=META))) == META


class Moved(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        self.places = []

    def to(self, device):
        self.places.append(device)
        return self


def test_networks_end_where_they_began_wherever_among_the_arguments_they_are():
    first, second, third, fourth = (Moved() for _ in range(4))

    @keeps_devices
    def look(one, table, *, other, more):
        """What it does."""
        return "done", 3

    assert look(first, {"a": second, "n": 3}, other=third, more={"b": fourth}) == ("done", 3)
    assert [network.places for network in (first, second, third, fourth)] == [[torch.device("cpu")]] * 4
    assert look.__name__ == "look" and look.__doc__ == "What it does."


def test_an_error_brings_a_network_back_too():
    network = Moved()

    @keeps_devices
    def fail(model):
        raise KeyError("no")

    with pytest.raises(KeyError):
        fail(network)
    assert network.places == [torch.device("cpu")]


def test_what_is_not_wanted_is_not_compiled():
    layer = nn.Linear(1, 1)
    with compiled_or_not(layer, False) as nothing:
        assert nothing is None and layer._compiled_call_impl is None


@pytest.mark.parametrize("room, batch, fits", [(40, 64, 32), (8, 64, 8), (1, 64, 1), (31, 33, 16)])
def test_the_batch_that_fits_is_tried_by_halves(room, batch, fits):
    tried = []

    def step(count):
        tried.append(count)
        if count > room:
            raise torch.OutOfMemoryError("too much")
        return count

    with pytest.raises(
        RuntimeError, match=f"for batches of {batch} images, and .* batches of {fits} fit: pass --batch {fits}"
    ):
        within_memory(step, batch, step)
    assert tried == [batch // 2**k for k in range(len(tried))] and tried[-1] == fits
    assert within_memory(step, room, step) == room


def test_where_not_even_the_least_batch_fits_that_is_said():
    tried = []

    def step(count):
        tried.append(count)
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(RuntimeError, match="for batches of 16 images, and even for batches of 4: use smaller images"):
        within_memory(step, 16, step, least=4)
    assert tried == [16, 8, 4]
    tried.clear()
    with pytest.raises(RuntimeError, match="and even for batches of 1"):
        within_memory(step, 4, step)
    assert tried == [4, 2, 1]


def test_other_errors_are_no_lack_of_memory():
    def broken(count):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        within_memory(broken, 4, broken)


def test_the_provenance_of_a_training_is_its_machine_and_what_it_took():
    rows = [{"seconds": 2.0, "images_per_second": 100.0}, {"seconds": 6.14, "images_per_second": 50.0}]
    found = provenance("fp32", rows)
    assert found == machine("fp32") | {"seconds": 8.1, "images_per_second": round((200 + 307) / 8.14, 1)}
    assert found["precision"] == "fp32" and found["threads"] == torch.get_num_threads()
    assert set(machine("bf16")) == {"udlib", "python", "torch", "hardware", "device", "threads", "precision"}


def test_the_processor_has_a_name():
    assert processor() and ":" not in processor()[:1] and processor() == processor().strip()


def test_the_processors_name_may_hold_a_colon(monkeypatch):
    monkeypatch.setattr(
        Path, "read_text", lambda self: "processor : 0\nmodel name\t: Intel: Core i7 \nmodel name : other\n"
    )
    assert processor() == "Intel: Core i7"
    monkeypatch.setattr(Path, "read_text", lambda self: "nothing")
    assert processor() == (platform.processor() or platform.machine())


def test_a_compiled_module_is_compiled_only_inside(monkeypatch):
    called = []

    def compiled(function, **_):
        return lambda *values: called.append(1) or function(*values)

    monkeypatch.setattr(torch, "compile", compiled)
    layer = nn.Linear(1, 1)
    context = compiled_or_not(layer, True)
    called.clear()
    layer(torch.zeros(1, 1))
    assert not called
    with context:
        layer(torch.zeros(1, 1))
    assert called == [1]
    layer(torch.zeros(1, 1))
    assert called == [1] and set(layer.state_dict()) == {"weight", "bias"}
