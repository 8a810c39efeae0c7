import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.encoder import encoder as module
from retrieval_ft.encoder.cache import EmbeddingCache, text_key
from retrieval_ft.encoder.encoder import load_encoder

TEXTS = ["the river rises", "", "漢字 the sea", "the river rises", "fox"]


def cached(model_folder, root, precision="fp32"):
    return load_encoder(model_folder, device="cpu", precision=precision, cache_root=root)


@pytest.fixture
def forwards(monkeypatch):
    """The number of texts that each forward pass took."""
    sizes, embed = [], module.embed

    def counted(model, parts, precision):
        sizes.extend(len(features["input_ids"]) for features in parts)
        return embed(model, parts, precision)

    monkeypatch.setattr(module, "embed", counted)
    return sizes


def test_a_text_is_encoded_once(model_folder, tmp_path, encoder, forwards):
    plain = encoder.encode(TEXTS, role="query")
    first = cached(model_folder, tmp_path).encode(TEXTS, role="query")
    np.testing.assert_allclose(first, plain, atol=1e-6)
    forwards.clear()
    second = cached(model_folder, tmp_path)
    again = second.encode(TEXTS[::-1], role="query")
    assert (again == first[::-1]).all()
    assert forwards == []
    mixed = second.encode(["new", *TEXTS, "newer"], role="query")
    assert sum(forwards) == 2
    assert (mixed[1:-1] == first).all()


def test_no_forward_pass_is_needed_at_all(model_folder, tmp_path, monkeypatch):
    first = cached(model_folder, tmp_path).encode(TEXTS, role="passage")
    second = cached(model_folder, tmp_path)

    def fail(*_, **__):
        raise AssertionError("a forward pass")

    monkeypatch.setattr(second.model, "forward", fail)
    assert (second.encode(TEXTS, role="passage") == first).all()


def test_roles_precisions_and_prompts_have_their_own(model_folder, tmp_path, forwards):
    cached(model_folder, tmp_path).encode(TEXTS, role="query")
    for other in (
        lambda: cached(model_folder, tmp_path).encode(TEXTS, role="passage"),
        lambda: cached(model_folder, tmp_path, "bf16").encode(TEXTS, role="query"),
        lambda: load_encoder(
            model_folder, device="cpu", precision="fp32", query_prompt="x", cache_root=tmp_path
        ).encode(TEXTS, role="query"),
    ):
        forwards.clear()
        other()
        assert sum(forwards) == len(TEXTS)


def test_no_text_writes_nothing(model_folder, tmp_path):
    encoder = cached(model_folder, tmp_path)
    assert encoder.encode([], role="query").shape == (0, encoder.dimension)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("damage", ["one byte", "cut", "empty"])
def test_a_damaged_shard_is_left_out_and_encoded_again(
    model_folder, tmp_path, forwards, capsys, damage
):
    first = cached(model_folder, tmp_path)
    before = first.encode(TEXTS, role="query")
    whole = first.encode(["a fox"], role="query")
    shard = max(tmp_path.rglob("*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    kept = {"one byte": len(content), "cut": len(content) // 2, "empty": 0}[damage]
    shard.write_bytes(content[:kept])
    capsys.readouterr()
    forwards.clear()
    second = cached(model_folder, tmp_path)
    np.testing.assert_allclose(second.encode(TEXTS, role="query"), before, atol=1e-6)
    assert (second.encode(["a fox"], role="query") == whole).all()
    assert sum(forwards) == len(TEXTS)
    said = capsys.readouterr().err.replace("\n", "")
    assert f"{shard}: damaged cache shard, its texts are encoded again" in said
    third = cached(model_folder, tmp_path)
    forwards.clear()
    third.encode(TEXTS, role="query")
    assert forwards == []


KEYS = [text_key(str(i)) for i in range(6)]


def rows(generator, count):
    return generator.standard_normal((count, 4)).astype(np.float32)


def test_two_caches_in_one_folder_see_each_other_when_opened_anew(tmp_path):
    generator = np.random.default_rng(1)
    one, two = EmbeddingCache(tmp_path, dimension=4), EmbeddingCache(tmp_path, dimension=4)
    out = np.zeros((6, 4), np.float32)
    assert one.lookup(KEYS, out).tolist() == two.lookup(KEYS, out).tolist() == list(range(6))
    a, b = rows(generator, 3), rows(generator, 3)
    one.add(KEYS[:3], a)
    two.add(KEYS[3:], b)
    assert one.lookup(KEYS, out).tolist() == [3, 4, 5]
    third = EmbeddingCache(tmp_path, dimension=4)
    assert third.lookup(KEYS[::-1], out).size == 0
    assert (out[::-1] == np.vstack([a, b])).all()


def test_a_shard_of_another_width_is_not_read(tmp_path):
    EmbeddingCache(tmp_path, dimension=4).add(KEYS[:1], np.ones((1, 4), np.float32))
    out = np.zeros((1, 8), np.float32)
    assert EmbeddingCache(tmp_path, dimension=8).lookup(KEYS[:1], out).tolist() == [0]


def test_equal_texts_in_one_call_have_equal_vectors(model_folder, tmp_path):
    found = cached(model_folder, tmp_path).encode(["fox", "the sea", "fox", "fox"], role="passage")
    assert (found[[0, 2, 3]] == found[0]).all()
    again = cached(model_folder, tmp_path).encode(["fox", "the sea"], role="passage")
    assert (again == found[:2]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8), max_size=5))
def test_what_was_added_last_is_what_is_found(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("cache")
    cache, known = EmbeddingCache(folder, dimension=3), {}
    for number, shard in enumerate(shards):
        vectors = np.full((len(shard), 3), number, np.float32)
        vectors[:, 0] = shard
        cache.add([text_key(str(i)) for i in shard], vectors)
        known.update(dict.fromkeys(shard, number))
    out = np.full((21, 3), -1, np.float32)
    missing = cache.lookup([text_key(str(i)) for i in range(21)], out)
    assert set(missing.tolist()) == set(range(21)) - known.keys()
    for i, number in known.items():
        assert out[i].tolist() == [i, number, number]


def test_the_key_is_of_the_text():
    assert text_key("a") != text_key("a ")
    assert len(text_key("🚀 \ud800")) == 16
