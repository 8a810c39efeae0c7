import json
import sys

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.encoder.cross_encoder import load_cross_encoder, probability
from retrieval_ft.errors import ConfigError, DependencyError

QUERIES = ["why stream climbs", "ship", "find the ocean", "", "why loaf cracks", "ship"]
PASSAGES = [
    "the river rises over the red wall",
    "a boat sinks",
    "sea",
    "the fox sings in the cold night " * 4,
    "",
    "a boat sinks",
]


# --- a graph that onnxruntime runs, written byte by byte: there is no `onnx` here ---------------


def field(number, value):
    """One protobuf field: an integer, or a length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def integers(name, *values):
    return field(5, field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7))


def integer(name, value):
    return field(5, field(1, name) + field(3, value) + field(20, 2))


def node(operator, inputs, output, *attributes):
    names = b"".join(field(1, name) for name in inputs) + field(2, output)
    return field(1, names + field(4, operator) + b"".join(attributes))


def value(number, name, kind, dimensions):
    shape = b"".join(field(1, field(2, dimension)) for dimension in dimensions)
    return field(number, field(1, name) + field(2, field(1, field(1, kind) + field(2, shape))))


def graph(*, labels=1, inputs=("input_ids", "attention_mask", "token_type_ids")):
    """Sum of the token ids, those of the passage twice, over the largest id of the whole batch.

    So a score tells which tokens it saw, in which segment, and with which others in the batch.
    """
    ids, mask, segment = inputs
    nodes = [
        node("Mul", [ids, mask], "seen"),
        node("Mul", ["seen", segment], "second"),
        node("Add", ["seen", "second"], "weighed"),
        node("Cast", ["weighed"], "numbers", integer("to", 1)),
        node("Cast", ["seen"], "plain", integer("to", 1)),
        node("ReduceSum", ["numbers"], "sum", integers("axes", 1), integer("keepdims", 1)),
        node("ReduceMax", ["plain"], "largest", integers("axes", 0, 1), integer("keepdims", 1)),
        node("Div", ["sum", "largest"], "one"),
        node("Concat", ["one"] * labels, "logits", integer("axis", 1)),
    ]
    ends = [value(11, name, 7, ["batch", "tokens"]) for name in inputs]
    body = [*nodes, field(2, "tiny"), *ends, value(12, "logits", 1, ["batch", "labels"])]
    return field(1, 7) + field(7, b"".join(body)) + field(8, field(1, "") + field(2, 11))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny.bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def onnx_folder(bert, tmp_path):
    return write_onnx(tmp_path / "onnx", bert)


def write_onnx(folder, bert, **how):
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph(**how))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((bert / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def torch_folder(bert, tmp_path_factory):
    return tiny.tiny_cross_encoder(tmp_path_factory.mktemp("torch"), bert)


def encode(folder, query, passage, *, length=tiny.LENGTH):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    row = tokenizer([query], [passage], truncation=True, max_length=length)
    return {name: values[0] for name, values in row.items()}


def expected(folder, query, passage, *, length=tiny.LENGTH):
    """What the graph gives for a pair that is alone in its batch."""
    row = encode(folder, query, passage, length=length)
    ids = np.array(row["input_ids"])
    return (ids * (1 + np.array(row["token_type_ids"]))).sum() / ids.max()


# --- the ONNX back end --------------------------------------------------------------------------


def test_an_onnx_model_gets_the_tokens_and_segments_of_each_pair_alone(onnx_folder, bert):
    scores = load_cross_encoder(onnx_folder, device="cpu").scores(QUERIES, PASSAGES)
    wanted = [expected(bert, *pair) for pair in zip(QUERIES, PASSAGES, strict=True)]
    assert scores.dtype == np.float32
    assert scores == pytest.approx(wanted, rel=1e-6)


@given(order=st.permutations(range(len(QUERIES))), size=st.integers(0, len(QUERIES)))
@settings(max_examples=15, deadline=None)
def test_a_pair_has_one_score_whatever_is_scored_with_it(bert, tmp_path_factory, order, size):
    folder = write_onnx(tmp_path_factory.mktemp("o") / "onnx", bert)
    model = load_cross_encoder(folder, device="cpu")
    rows = order[:size]
    found = model.scores([QUERIES[i] for i in rows], [PASSAGES[i] for i in rows])
    alone = [model.scores([QUERIES[i]], [PASSAGES[i]])[0] for i in rows]
    assert found.tolist() == alone
    assert found.shape == (size,)


def test_the_longer_text_is_cut_first(onnx_folder, bert):
    query, passage = "why ship", "the boat turns near the old town " * 9
    for length in (8, 12, 500):
        model = load_cross_encoder(onnx_folder, device="cpu", max_length=length)
        tokens = min(length, tiny.LENGTH)
        row = encode(bert, query, passage, length=tokens)
        assert len(row["input_ids"]) == tokens
        wanted = expected(bert, query, passage, length=tokens)
        assert model.scores([query], [passage])[0] == pytest.approx(wanted, rel=1e-6)


def test_as_many_passages_as_queries_are_needed(onnx_folder):
    with pytest.raises(ValueError, match="shorter"):
        load_cross_encoder(onnx_folder, device="cpu").scores(["a", "b"], ["c"])


def test_a_model_with_two_scores_a_pair_is_refused(bert, tmp_path):
    folder = write_onnx(tmp_path / "two", bert, labels=2)
    with pytest.raises(ConfigError, match=r"2 scores for a pair.*num_labels 1") as caught:
        load_cross_encoder(folder, device="cpu")
    assert caught.value.exit_code == 2


def test_a_graph_that_asks_for_something_else_is_refused(bert, tmp_path):
    folder = write_onnx(tmp_path / "odd", bert, inputs=("pixels", "attention_mask", "segments"))
    with pytest.raises(DependencyError, match=r"model\.onnx asks for pixels, segments"):
        load_cross_encoder(folder, device="cpu")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_damaged_file_is_named(onnx_folder, name):
    (onnx_folder / name).write_bytes(b'{"garbage": 1}')
    with pytest.raises(DependencyError, match=f"cannot be loaded as a cross-encoder.*{name}") as e:
        load_cross_encoder(onnx_folder, device="cpu")
    assert e.value.exit_code == 5


def test_a_folder_without_a_tokenizer_says_so(onnx_folder):
    (onnx_folder / "tokenizer.json").unlink()
    with pytest.raises(DependencyError, match=r"tokenizer\.json is missing"):
        load_cross_encoder(onnx_folder, device="cpu")


def test_without_onnxruntime_the_extra_to_install_is_named(onnx_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"pip install 'retrieval-ft\[onnx\]'") as caught:
        load_cross_encoder(onnx_folder, device="cpu")
    assert caught.value.exit_code == 5


# --- the PyTorch back end -----------------------------------------------------------------------


def test_a_sentence_transformers_model_gives_the_raw_scores_of_its_head(torch_folder):
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(str(torch_folder)).eval()
    wanted = []
    for query, passage in zip(QUERIES, PASSAGES, strict=True):
        row = encode(torch_folder, query, passage)
        with torch.inference_mode():
            logits = model(**{name: torch.tensor([ids]) for name, ids in row.items()}).logits
        wanted.append(float(logits))
    scores = load_cross_encoder(torch_folder, device="cpu").scores(QUERIES, PASSAGES)
    assert np.ptp(wanted) > 0.1
    assert scores == pytest.approx(wanted, abs=1e-5)


def test_a_sentence_transformers_model_with_two_labels_is_refused(bert, tmp_path):
    folder = tiny.tiny_cross_encoder(tmp_path / "two", bert, labels=2)
    with pytest.raises(ConfigError, match="2 scores for a pair"):
        load_cross_encoder(folder, device="cpu")


def test_an_embedder_is_not_given_a_random_head(model_folder):
    with pytest.raises(DependencyError, match="BertModel gives vectors, not a score for a pair"):
        load_cross_encoder(model_folder, device="cpu")


def test_pickled_weights_are_not_loaded(torch_folder, tmp_path):
    import shutil

    import torch

    folder = shutil.copytree(torch_folder, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(DependencyError, match="cannot be loaded as a cross-encoder"):
        load_cross_encoder(folder, device="cpu")


def test_code_that_a_model_brings_is_not_run(torch_folder, tmp_path):
    import shutil

    folder = shutil.copytree(torch_folder, tmp_path / "remote")
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
    load_cross_encoder(folder, device="cpu").scores(["a"], ["b"])
    (folder / "config.json").write_text(
        json.dumps({**config, "auto_map": auto, "model_type": "of-its-own"})
    )
    with pytest.raises(DependencyError, match="cannot be loaded"):
        load_cross_encoder(folder, device="cpu")
    assert not mark.exists()


def test_a_folder_that_holds_no_model_says_what_is_needed(tmp_path):
    with pytest.raises(DependencyError, match=r"neither model\.onnx nor config\.json.*is needed"):
        load_cross_encoder(tmp_path, device="cpu")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DependencyError, match=r"config\.json is no JSON object"):
        load_cross_encoder(tmp_path, device="cpu")


# --- fingerprint and cache ----------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_files_and_the_length(onnx_folder, tmp_path):
    import shutil

    def fingerprint(folder, **how):
        return load_cross_encoder(folder, device="cpu", **how).fingerprint

    first = fingerprint(onnx_folder)
    other = shutil.copytree(onnx_folder, tmp_path / "elsewhere")
    (other / "manifest.json").write_text('{"origin": "somewhere else"}')
    assert fingerprint(other) == first
    assert fingerprint(onnx_folder, max_length=tiny.LENGTH + 1) == first
    assert fingerprint(onnx_folder, max_length=12) != first
    (other / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 60}))
    assert fingerprint(other) != first


def shards(root):
    return sorted(path.relative_to(root) for path in root.rglob("*.npy"))


def rows(root):
    return sum(len(np.load(root / shard)) for shard in shards(root))


def test_a_pair_is_scored_once_over_runs(onnx_folder, tmp_path):
    def scores(queries, passages):
        model = load_cross_encoder(onnx_folder, device="cpu", cache_root=tmp_path / "cache")
        return model.scores(queries, passages).tolist()

    first = scores(QUERIES, PASSAGES)
    assert rows(tmp_path / "cache") == len(set(zip(QUERIES, PASSAGES, strict=True)))
    before = shards(tmp_path / "cache")
    assert scores(QUERIES, PASSAGES) == first
    assert shards(tmp_path / "cache") == before
    more = scores([*QUERIES, "new"], [*PASSAGES, "sea"])
    assert more[:-1] == first
    assert rows(tmp_path / "cache") == len(set(zip(QUERIES, PASSAGES, strict=True))) + 1


def test_pairs_that_join_to_one_text_are_two_pairs(onnx_folder, tmp_path):
    split = (["boat", "boat sea", "1 boat"], [" sea", "", " sea"])
    cached = load_cross_encoder(onnx_folder, device="cpu", cache_root=tmp_path / "cache")
    plain = load_cross_encoder(onnx_folder, device="cpu")
    cached.scores(*split)
    assert rows(tmp_path / "cache") == 3
    assert cached.scores(*split).tolist() == plain.scores(*split).tolist()


def test_a_damaged_shard_is_scored_again(onnx_folder, tmp_path, capsys):
    root = tmp_path / "cache"
    first = load_cross_encoder(onnx_folder, device="cpu", cache_root=root).scores(QUERIES, PASSAGES)
    (shard,) = shards(root)
    data = bytearray((root / shard).read_bytes())
    data[-1] ^= 1
    (root / shard).write_bytes(data)
    again = load_cross_encoder(onnx_folder, device="cpu", cache_root=root).scores(QUERIES, PASSAGES)
    assert again.tolist() == first.tolist()
    assert "damaged" in capsys.readouterr().err


# --- probability --------------------------------------------------------------------------------


@given(st.lists(st.floats(-80, 80, width=32), max_size=8))
def test_probability_is_the_logistic_function(logits):
    found = probability(np.array(logits, np.float32))
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([1 / (1 + np.exp(-float(x))) for x in logits], rel=1e-6)


def test_probability_neither_overflows_nor_warns(recwarn):
    assert probability([-1e4, 0, 1e4]).tolist() == [0, 0.5, 1]
    assert not recwarn.list


# --- the real weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ms_marco():
    from retrieval_ft import models

    path = models.resolve("ms-marco-MiniLM-L-12-v2-int8", kind="cross-encoder").path
    return load_cross_encoder(path, device="cpu")


TOLD = [
    ("how to boil an egg", "Put the egg into boiling water and take it out after eight minutes."),
    ("how to boil an egg", "The library opens at nine and closes at five on weekdays."),
    ("capital of Norway", "Oslo is the capital and the largest city of Norway."),
    ("capital of Norway", "A plaintext password that is stored can be read by an attacker."),
    ("what is a buffer overflow", "Data written past the end of a buffer overwrites its memory."),
    ("what is a buffer overflow", "Norway borders Sweden, Finland and Russia in the east."),
]


@pytest.mark.slow
def test_ms_marco_prefers_what_answers(ms_marco):
    scores = ms_marco.scores(*zip(*TOLD, strict=True))
    assert (probability(scores[0::2]) > 0.5).all()
    assert (probability(scores[1::2]) < 0.01).all()


@pytest.mark.slow
def test_ms_marco_gives_a_pair_the_same_score_in_any_company(ms_marco):
    together = ms_marco.scores(*zip(*TOLD, strict=True))
    for (query, passage), score in zip(TOLD, together, strict=True):
        longer = "Rain is expected in the north. " * 20
        assert ms_marco.scores([query, query], [longer, passage])[1] == score
