"""Models of each pooling, and a decoder, are trained, exported and loaded like any other."""

import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from tiny_fit import CONFIG, Loss, Run
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.export.model import export_model
from retrieval_ft.portable import write_portable
from retrieval_ft.training.plan import plan_batches

KINDS = ["cls", "mean", "lasttoken", "decoder"]
TEXTS = ["the river rises", "a red kite", "", "the old fox " * 9, "zebra", "ship " * 90]


def decoder(folder):
    """A random causal model that is pooled at its last token, with a tokenizer that pads left."""
    tokenizer = Tokenizer.from_file(str(tiny.bert_folder(folder / "bert") / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
        padding_side="left",
        model_max_length=tiny.LENGTH,
    ).save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tiny.VOCABULARY),
        hidden_size=tiny.SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=tiny.LENGTH,
        initializer_range=0.15,
        pad_token_id=0,
        eos_token_id=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        Qwen3Model(config).save_pretrained(folder)
    write_portable(
        folder,
        pooling="lasttoken",
        dimension=tiny.SIZE,
        max_seq_length=tiny.LENGTH,
        prompts={"query": tiny.QUERY_PROMPT},
    )
    return folder


@pytest.fixture(scope="session", params=KINDS)
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "decoder":
        return decoder(place)
    return tiny.tiny_model(place, pooling=request.param)


@pytest.fixture
def job(folder, tmp_path, pairs, collator_of):
    return Run(folder, tmp_path / "run", pairs, collator_of)


def cosines(first, second):
    return (first * second).sum(axis=1)


def alone(model, micro_batches):
    """Vectors of texts that are passed one by one, without padding, in the same order."""
    vectors = []
    for features in micro_batches:
        for ids, mask in zip(features["input_ids"], features["attention_mask"], strict=True):
            row = ids[: mask.sum()][None]
            found = model({"input_ids": row, "attention_mask": torch.ones_like(row)})
            vectors.append(nn.functional.normalize(found["sentence_embedding"][0], dim=-1))
    return torch.stack(vectors)


def gradient(model, loss):
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("graph_tokens", [1, 1_000_000])
def test_the_gradient_is_that_of_texts_passed_one_by_one(job, pairs, collator_of, graph_tokens):
    plan = plan_batches(pairs, epochs=1, batch_size=16, negatives_per_query=2, seed=1)
    batch = collator_of(job.encoder, token_budget=200)(plan.batches[0])
    padded = [(f["attention_mask"] == 0).any().item() for f in batch["micro_batches"]]
    assert len(padded) > 2 and any(padded)
    model = job.model.eval()  # no dropout
    loss = Loss(job.encoder, graph_tokens=graph_tokens)
    texts = alone(model, batch["micro_batches"])[batch["place"]]
    plain = loss.objective(
        texts[batch["query_rows"]],
        texts[-batch["passages"] :],
        target=batch["target"],
        masked=batch["masked"],
    )
    expected = gradient(model, plain)
    ours = loss(batch)
    assert ours.item() == pytest.approx(plain.item(), abs=1e-5)
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(gradient(model, ours), expected, atol=3e-6, rtol=1e-4)


def test_a_trained_model_is_exported_and_loaded_to_the_same_vectors(job, folder, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 5, "dropout": 0.0})
    result = job.fit(config=config)
    losses = [row["loss"] for row in result.log if "loss" in row]
    assert losses[-1] < 0.7 * losses[0]
    base = load_encoder(folder, device="cpu", precision="fp32")
    export_model(job.encoder.serving_model(), tmp_path / "out", card="")
    loaded = load_encoder(tmp_path / "out", device="cpu", precision="fp32")
    served = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for role, name in (("query", "query"), ("passage", "document")):
        vectors = job.encoder.encode(TEXTS, role=role)
        assert cosines(vectors, base.encode(TEXTS, role=role)).min() < 0.99
        assert (loaded.encode(TEXTS, role=role) == vectors).all()
        assert cosines(served.encode(TEXTS, prompt_name=name), vectors).min() > 1 - 1e-6
    assert loaded.fingerprint == job.encoder.fingerprint


def test_padding_on_the_right_changes_no_vector(folder):
    encoder = load_encoder(folder, device="cpu", precision="fp32")
    together = encoder.encode(TEXTS, role="passage")
    lengths = encoder.tokenize(TEXTS, "passage").lengths
    assert len(set(lengths)) > 3
    one_by_one = np.concatenate([encoder.encode([text], role="passage") for text in TEXTS])
    assert cosines(together, one_by_one).min() > 1 - 1e-6
    ids = encoder.tokenize(TEXTS, "passage").ids
    features = [{"input_ids": torch.tensor(row[None].astype(np.int64))} for row in ids]
    with torch.no_grad():
        bare = [{**f, "attention_mask": torch.ones_like(f["input_ids"])} for f in features]
        expected = torch.cat([encoder.model.eval()(f)["sentence_embedding"] for f in bare])
    assert cosines(together, expected.numpy()).min() > 1 - 1e-6
