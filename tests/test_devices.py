import torch

from udlib.training.devices import autocast, make_accelerator, resolve_precision


def test_precision_auto_follows_the_processor(monkeypatch):
    cpu = torch.device("cpu")
    for fast, chosen in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert resolve_precision("auto", cpu) == chosen
    assert resolve_precision("bf16", cpu) == "bf16" and resolve_precision("fp32", cpu) == "fp32"


def test_autocast_follows_the_precision():
    cpu = torch.device("cpu")
    for precision, dtype in {"bf16": torch.bfloat16, "fp32": torch.float32}.items():
        with autocast(cpu, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_the_device_is_cuda_where_there_is_one_and_else_the_cpu():
    assert make_accelerator().device.type == ("cuda" if torch.cuda.is_available() else "cpu")
