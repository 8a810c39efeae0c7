import numpy as np
import pytest
import torch

from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.encoder.precision import choose_device, choose_precision
from retrieval_ft.errors import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"model\.device: 'cuda' .* sees no GPU; use auto") as got:
        choose_device("cuda")
    assert got.value.exit_code == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"'cuda:2' .* sees 2 GPU"):
        choose_device("cuda:2")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_gpu_if_there_is_one(monkeypatch, there, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device("auto") == torch.device(expected)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_what_was_asked_for_is_kept(name):
    for device in (CPU, GPU):
        assert choose_precision(name, device).name == name
        assert choose_precision(name, device).reason == f"{name}: asked for"


@pytest.mark.parametrize(
    ("flags", "name", "reason"),
    [
        ({"avx512_bf16": True}, "bf16", "bf16: this CPU has avx512_bf16"),
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16", "bf16: this CPU has amx_bf16"),
        ({"avx512_bf16": False}, "fp32", "fp32: this CPU has neither avx512_bf16 nor amx_bf16"),
        ({}, "fp32", "fp32: this CPU has neither avx512_bf16 nor amx_bf16"),
    ],
)
def test_auto_takes_bf16_where_the_processor_multiplies_it(monkeypatch, flags, name, reason):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    chosen = choose_precision("auto", CPU)
    assert (chosen.name, chosen.reason) == (name, reason)


def test_auto_asks_the_gpu_for_real_bf16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A Card")
    for real, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, real=real: real
        )
        assert choose_precision("auto", GPU).name == name


def test_bf16_changes_the_products_and_not_the_weights(model_folder, encoder):
    half = load_encoder(model_folder, device="cpu", precision="bf16")
    texts = ["the river rises", "fox over the sea"]
    a, b = encoder.encode(texts, role="query"), half.encode(texts, role="query")
    assert b.dtype == np.float32
    assert (a != b).any()
    assert (a * b).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1, atol=1e-6)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
