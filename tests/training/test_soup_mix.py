import pytest
import torch

from retrieval_ft.training.soup import mix, unmix


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(3)

    def some(dtype=torch.float32):
        return {
            "w": torch.randn(5, 4, generator=generator).to(dtype),
            "b": torch.randn(4, generator=generator).to(dtype),
            "position_ids": torch.randint(9, (3,), generator=generator),
        }

    return some


def test_alpha_one_gives_the_tuned_bits(weights):
    base, tuned = weights(), weights()
    mixed = mix(base, tuned, alpha=1.0)
    assert mixed.keys() == tuned.keys()
    assert all(torch.equal(mixed[name], tuned[name]) for name in tuned)
    mixed["w"].zero_()
    assert not torch.equal(mixed["w"], tuned["w"])  # a copy


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.8])
def test_it_is_the_weighted_mean(weights, alpha):
    base, tuned = weights(), weights()
    kept = {name: tensor.clone() for name, tensor in base.items()}
    mixed = mix(base, tuned, alpha=alpha)
    for name in ("w", "b"):
        expected = (1 - alpha) * base[name].double() + alpha * tuned[name].double()
        torch.testing.assert_close(mixed[name].double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(mixed["position_ids"], tuned["position_ids"])
    assert all(torch.equal(base[name], kept[name]) for name in kept)


def test_half_is_the_mean_and_zero_the_base(weights):
    base, tuned = weights(), weights()
    torch.testing.assert_close(mix(base, tuned, alpha=0.5)["w"], (base["w"] + tuned["w"]) / 2)
    assert torch.equal(mix(base, tuned, alpha=0.0)["w"], base["w"])


def test_equal_models_stay_as_they_are(weights):
    base = weights()
    assert all(torch.equal(mix(base, base, alpha=0.3)[name], base[name]) for name in base)


def test_the_sum_is_made_in_float32_and_kept_in_the_dtype_of_the_model(weights):
    base, tuned = weights(torch.bfloat16), weights(torch.bfloat16)
    mixed = mix(base, tuned, alpha=0.4)["w"]
    assert mixed.dtype == torch.bfloat16
    expected = torch.lerp(base["w"].float(), tuned["w"].float(), 0.4).to(torch.bfloat16)
    assert torch.equal(mixed, expected)


def test_models_of_other_keys_are_refused(weights):
    base, tuned = weights(), weights()
    del base["b"]
    with pytest.raises(ValueError, match=r"differ in keys: \['b'\]"):
        mix(base, tuned, alpha=0.5)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8, 1.0])
def test_a_soup_can_be_taken_apart(weights, alpha):
    base, tuned = weights(), weights()
    found = unmix(base, mix(base, tuned, alpha=alpha), alpha=alpha)
    for name in ("w", "b"):
        torch.testing.assert_close(found[name], tuned[name], atol=1e-5, rtol=0)
    assert torch.equal(found["position_ids"], tuned["position_ids"])


def test_no_tuned_weights_can_be_had_from_the_base_alone(weights):
    with pytest.raises(ValueError, match="alpha must lie"):
        unmix(weights(), weights(), alpha=0.0)
    with pytest.raises(ValueError, match="differ in keys"):
        unmix({"a": weights()["w"]}, {"b": weights()["w"]}, alpha=0.5)
