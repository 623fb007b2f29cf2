"""The code for GPUs, on a machine without one: every system trains there, and no tensor is on the wrong device."""

import pytest
import torch
from commands import udlib_command
from pretended_gpu import AMPLE, GPU, NONE, OnGPU, pretended_gpu
from trainings import train_distilled, train_self_distilled, train_supervised
from trees import voc_tree

from udlib.backbones import backbone
from udlib.course import store as experiments
from udlib.course.recipes import baseline
from udlib.heads import DualBranchNet
from udlib.methods.distillation import answers, distillation_loss
from udlib.training import evaluate, fit, predict
from udlib.training.batches import ArrayData, Batch
from udlib.training.devices import keeps_devices
from udlib.training.optimization import TrainingConfig

QUICK = ("--network", "small_narrow", "--epochs", "3", "--size", "24", "--batch", "16")
CONFIG = TrainingConfig(epochs=3, batch_size=16, precision="fp32")


@pytest.fixture
def gpu():
    with pretended_gpu() as computed:
        yield computed


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    return ArrayData(
        torch.randint(0, 256, (48, 3, 24, 24), dtype=torch.uint8, generator=draw),
        (torch.rand(48, 5, generator=draw) < 0.4).to(torch.uint8),
    )


def there(*values):
    return torch.tensor(values, device=GPU)


# The pretence itself


@pytest.mark.parametrize(
    "call",
    [
        lambda: there(1.0, 2.0) + torch.ones(2),
        lambda: torch.cat([there(1.0), torch.ones(1)]),
        lambda: torch.stack([there(1.0)[0], torch.ones(())]),
        lambda: torch.ones(5)[there(1, 2)],
        lambda: there(1.0, 2.0).index_select(0, torch.tensor([0])),
        lambda: there(1.0, 2.0).masked_fill_(torch.tensor([True, False]), 0.0),
        lambda: torch.nn.functional.linear(there(1.0, 2.0), torch.ones(3, 2)),
        lambda: torch.rand(3, device=GPU, generator=torch.Generator()),
    ],
)
def test_what_a_gpu_refuses_is_refused(call, gpu):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device|device type for generator"):
        call()


def test_numpy_does_not_reach_a_gpu(gpu):
    with pytest.raises(TypeError, match="to numpy"):
        there(1.0).numpy()
    assert there(1.0, 2.0).cpu().numpy().tolist() == [1.0, 2.0]


def test_what_a_gpu_allows_is_allowed_and_computed(gpu):
    value = there(1.0, 2.0, 3.0)
    assert value.device == GPU and isinstance(value, OnGPU) and torch.zeros_like(value).device == GPU
    assert (value * torch.tensor(2.0)).tolist() == [2.0, 4.0, 6.0], "a single number may come from the CPU"
    assert value[torch.tensor([2, 0])].tolist() == [3.0, 1.0], "and an index"
    assert (
        value.sum().item() == 6.0
        and value.cpu().device.type == "cpu"
        and value.to("cpu", torch.int64).dtype == torch.int64
    )


def test_gradients_stay_there_and_come_back_from_the_cpu(gpu):
    value = there(3.0).requires_grad_()
    (value**2).cpu().sum().backward()
    assert value.grad.tolist() == [6.0] and value.grad.device == GPU


# Systems


@pytest.mark.parametrize("free", [AMPLE, NONE])
def test_all_commands_run_on_a_gpu_with_and_without_room_for_the_images(free, tmp_path, monkeypatch):
    for name, value in {"UDLIB_PROGRESS": "0", "UDLIB_DATA": str(tmp_path / "data"), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "my_images"
    voc_tree(root, 80)
    image = next(iter(sorted(root.rglob("*.jpg"))))
    commands = [
        ("train", root, "--out", tmp_path / "m", *QUICK, "--erase", "0.5", "--ema", "0.1"),
        ("train", root, "--out", tmp_path / "cropped", *QUICK, "--crop"),
        (
            "distill",
            root,
            "--teacher",
            tmp_path / "m",
            "--out",
            tmp_path / "s",
            *QUICK,
            "--alpha",
            "0.5",
            "--beta",
            "0.005",
        ),
        ("distill", root, "--teacher", tmp_path / "m", "--out", tmp_path / "kd", *QUICK, "--crop"),
        ("parallel", root, "--k", "2", "--out", tmp_path / "p", *QUICK),
        ("detection", root, "--out", tmp_path / "d", *QUICK),
        ("evaluate", root, "--model", tmp_path / "s"),
        ("predict", image, "--model", tmp_path / "m", "--map", tmp_path / "maps"),
    ]
    for words in commands:
        with pretended_gpu(free) as computed:
            code, said, wrong = udlib_command(*words)
        assert (code, wrong) == (0, ""), words
        assert computed["convolution", "cuda"] > 0 and computed["convolution", "cpu"] == 0, words


@pytest.mark.parametrize("free", [AMPLE, NONE])
@pytest.mark.parametrize("settings", [{}, {"erase": 0.5, "shift": 2}, {"ema": 0.1}])
def test_a_gpu_trains_what_a_cpu_trains(data, settings, free):
    config = TrainingConfig(**vars(CONFIG) | settings)
    weights = []
    for pretended in (False, True):
        with pretended_gpu(free) if pretended else torch.enable_grad():
            teacher, _ = train_supervised(data, config, lam=0.1, network="small_narrow")
            student, _ = train_distilled(data, teacher, config, network="small_narrow")
            again, _ = train_self_distilled(data, data, config, network="small_narrow")
        weights.append([value for net in (teacher, student, again) for value in net.state_dict().values()])
    for cpu, gpu in zip(*weights):
        assert not isinstance(gpu, OnGPU)
        torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-5)


# Networks stay where they were


def test_networks_end_where_they_began_even_after_an_error(data, gpu):
    network, teacher = (DualBranchNet(backbone("small_narrow"), 5) for _ in range(2))

    def devices():
        return {value.device.type for net in (network, teacher) for value in net.state_dict().values()}

    predict(network, data), evaluate(network, data)
    train_distilled(data, teacher, CONFIG, network="small_narrow")
    assert devices() == {"cpu"}
    with pytest.raises(ZeroDivisionError):
        keeps_devices(lambda nets: (nets["a"].to(GPU), 1 / 0))({"a": network})
    assert devices() == {"cpu"}
    network.to(GPU), teacher.to(GPU)
    predict(network, data)
    assert devices() == {"cuda"}, "where one is on the GPU, it stays there"


def test_a_teacher_comes_to_the_images_that_it_is_asked_about(data, gpu):
    network, teacher = (DualBranchNet(backbone("small_narrow"), 5) for _ in range(2))
    fit(network, data, distillation_loss(teacher.eval()), CONFIG)
    images = torch.zeros(1, 3, 24, 24)
    said = answers(teacher)(Batch(images, None, None, torch.arange(1)))
    assert said.logits.device.type == "cpu" and torch.equal(said.logits, teacher(images).logits)


def test_a_network_is_on_the_cpu_whether_it_was_stored_or_just_trained(tmp_path, monkeypatch, gpu):
    monkeypatch.setenv("UDLIB_PROFILE", "smoke")
    monkeypatch.setenv("UDLIB_SMOKE_STORE", str(tmp_path))
    for network in (experiments.load_model(baseline()), experiments.load_model(baseline())):
        assert {value.device.type for value in network.state_dict().values()} == {"cpu"}
        assert network(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 16)
