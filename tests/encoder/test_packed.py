"""Packed BERT beside the padded computation of transformers and sentence-transformers."""

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.encoder.batching import pad
from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.encoder.packed import packable, packed_vectors


@pytest.fixture(scope="module", params=["cls", "mean", "lasttoken"])
def model(request, tmp_path_factory):
    folder = tiny.tiny_model(tmp_path_factory.mktemp("packed"), pooling=request.param)
    return load_encoder(folder, device="cpu", precision="fp32").model


def parts_of(lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [
        pad([generator.integers(5, 30, n).astype(np.int32) for n in part], pad_id=0)
        for part in lengths
    ]


def packed(model, parts):
    return [packed_vectors(model, part) for part in parts]


LENGTHS = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=3)


@given(LENGTHS, st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_vectors_are_those_of_the_padded_computation(model, lengths, seed):
    assert packable(model)
    parts = parts_of(lengths, seed)
    with torch.inference_mode():
        for part in parts:
            vectors = packed_vectors(model, part)
            expected = model[1](model[0](dict(part)))["sentence_embedding"]
            torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)


def gradients(model, vectors):
    model.zero_grad(set_to_none=True)
    torch.sin(3 * torch.cat(vectors)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_are_those_of_the_padded_computation(model):
    model.eval()  # no dropout
    parts = parts_of([[7, 7, 3], [12], [1, 1, 1, 20]])
    expected = gradients(model, [model[1](model[0](dict(p)))["sentence_embedding"] for p in parts])
    found = gradients(model, packed(model, parts))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-5, rtol=1e-4)


def test_dropout_is_at_work_while_training_only(model):
    parts = parts_of([[9, 9], [4]])
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    try:
        first, second = (torch.cat(packed(model, parts)) for _ in range(2))
        assert not torch.equal(first, second)
        model.eval()
        first, second = (torch.cat(packed(model, parts)) for _ in range(2))
        assert torch.equal(first, second)
    finally:
        model.eval()


def test_a_model_with_another_backbone_or_module_is_not_packed(model):
    class Other(torch.nn.Module):
        pass

    assert not packable([model[0], Other()])
    backbone = model[0].auto_model
    backbone.config.is_decoder = True
    try:
        assert not packable(model)
    finally:
        backbone.config.is_decoder = False
