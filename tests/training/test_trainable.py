import sys

import pytest
import torch
from tiny_fit import CONFIG, STEPS, Loss, interrupt, same
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
)
from transformers.pytorch_utils import Conv1D

from retrieval_ft.config import TrainingConfig
from retrieval_ft.encoder.encoder import load_encoder
from retrieval_ft.errors import ConfigError, DataError, DependencyError
from retrieval_ft.export.model import export_model
from retrieval_ft.training.plan import Example
from retrieval_ft.training.trainable import load_trained, make_plain, save_trained, set_trainable

LORA = TrainingConfig(method="lora", lora_rank=4, lora_alpha=8)
TEXTS = ["the river rises", "a red kite", "", "the old fox " * 9]
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "mpnet": MPNetConfig(**SHAPE),
    "distilbert": DistilBertConfig(vocab_size=50, dim=32, n_layers=3, n_heads=4, hidden_dim=64),
    "modernbert": ModernBertConfig(**SHAPE, **TOKENS, cls_token_id=1, sep_token_id=2),
    "qwen3": Qwen3Config(**SHAPE, **TOKENS, num_key_value_heads=2, head_dim=8),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4, **TOKENS),
    "t5": T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4),
}
LAYERS = {
    "distilbert": "transformer.layer",
    "modernbert": "layers",
    "qwen3": "layers",
    "gpt2": "h",
    "t5": "encoder.block",
}
AFTER = {  # what stands behind the layers, and so is trained with the last of them
    "bert": ("pooler.",),
    "mpnet": ("pooler.", "encoder.relative_attention_bias."),
    "distilbert": (),
    "modernbert": ("final_norm.",),
    "qwen3": ("norm.",),
    "gpt2": ("ln_f.",),
    "t5": ("encoder.final_layer_norm.",),
}


class Transformer(nn.Module):
    """The one attribute that is read of sentence-transformers' module of this name."""

    def __init__(self, config):
        super().__init__()
        torch.manual_seed(1)
        make = T5EncoderModel if isinstance(config, T5Config) else AutoModel.from_config
        self.auto_model = make(config).eval()


def backbone_of(config):
    model = nn.Sequential(Transformer(config))
    return model, model[0].auto_model


def trained(module):
    return {name for name, weight in module.named_parameters() if weight.requires_grad}


def shake(model):
    """Change every trained weight, as training would."""
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))


def hidden(backbone):
    ids = torch.arange(3, 17).reshape(2, 7)
    with torch.no_grad():
        return backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state


@pytest.mark.parametrize("name", CONFIGS)
def test_frozen_are_the_embeddings_and_the_first_layers(name):
    model, backbone = backbone_of(CONFIGS[name])
    everything = trained(backbone)
    found = set_trainable(model, TrainingConfig(freeze_layers=2), seed=1)
    last = f"{LAYERS.get(name, 'encoder.layer')}.2."
    assert trained(backbone) == {n for n in everything if n.startswith((last, *AFTER[name]))}
    assert any(n.startswith(last) for n in trained(backbone))
    assert not backbone.get_input_embeddings().weight.requires_grad
    assert found == sum(p.numel() for p in model.parameters() if p.requires_grad)
    make_plain(model)
    assert trained(backbone) == everything


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_adapters_change_nothing_at_first_and_merge_into_the_same_model(name):
    model, backbone = backbone_of(CONFIGS[name])
    classes = {n: type(m) for n, m in backbone.named_modules()}
    linear = {n for n, kind in classes.items() if issubclass(kind, nn.Linear | Conv1D)}
    weights = {n: t.clone() for n, t in backbone.state_dict().items()}
    before = hidden(backbone)
    set_trainable(model, LORA, seed=1)
    torch.testing.assert_close(hidden(backbone), before, atol=1e-6, rtol=0)
    assert trained(backbone)
    assert all(".lora_" in n and "pooler" not in n for n in trained(backbone))
    shake(model)
    adapted = hidden(backbone)
    assert (adapted - before).abs().max() > 0.1
    make_plain(model)
    torch.testing.assert_close(hidden(backbone), adapted, atol=1e-4, rtol=1e-4)
    assert {n: type(m) for n, m in backbone.named_modules()} == classes
    assert list(backbone.state_dict()) == list(weights)
    assert not hasattr(backbone, "peft_config")
    changed = {n for n, t in backbone.state_dict().items() if not torch.equal(t, weights[n])}
    assert changed == {f"{n}.weight" for n in linear if "pooler" not in n}


def test_the_merged_weight_is_that_of_the_formula():
    model, backbone = backbone_of(CONFIGS["bert"])
    set_trainable(model, LORA, seed=1)
    shake(model)
    layer = backbone.encoder.layer[1].output.dense
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (a.shape, b.shape) == ((4, 64), (32, 4))
    expected = layer.base_layer.weight + LORA.lora_alpha / LORA.lora_rank * b @ a
    make_plain(model)
    torch.testing.assert_close(backbone.encoder.layer[1].output.dense.weight, expected)


def test_the_count_is_rank_times_width_in_and_out():
    model, _ = backbone_of(CONFIGS["bert"])
    attention, dense = 4 * (32 + 32), 2 * (32 + 64)
    assert set_trainable(model, LORA, seed=1) == 3 * LORA.lora_rank * (attention + dense)


def test_adapters_beside_frozen_layers_stand_in_the_later_ones_alone():
    model, backbone = backbone_of(CONFIGS["bert"])
    set_trainable(model, LORA.model_copy(update={"freeze_layers": 2}), seed=1)
    assert all(n.startswith("encoder.layer.2.") for n in trained(backbone))
    assert not [n for n in backbone.state_dict() if ".0." in n and "lora" in n]


def test_a_seed_gives_the_same_adapters_and_leaves_the_generator():
    models = []
    for seed in (5, 5, 6):
        model, _ = backbone_of(CONFIGS["bert"])
        torch.manual_seed(seed + len(models))
        before = torch.get_rng_state()
        set_trainable(model, LORA, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        models.append(model.state_dict())
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_everything_is_trained_by_default(encoder):
    before = {n: t.clone() for n, t in encoder.model.state_dict().items()}
    count = sum(p.numel() for p in encoder.model.parameters())
    assert set_trainable(encoder.model, TrainingConfig(), seed=1) == count
    make_plain(encoder.model)
    assert same(encoder.model.state_dict(), before)


@pytest.mark.parametrize("number", [2, 3, 12])
def test_to_freeze_every_layer_is_refused_with_both_numbers(encoder, number):
    with pytest.raises(ConfigError, match=rf"{number} of the model's 2 layers .* at most 1") as got:
        set_trainable(encoder.model, TrainingConfig(freeze_layers=number), seed=1)
    assert got.value.exit_code == 2
    assert "training.freeze_layers" in str(got.value)


def test_layers_that_cannot_be_told_apart_are_refused_and_can_have_adapters():
    model, backbone = backbone_of(AlbertConfig(**SHAPE, embedding_size=16))
    with pytest.raises(ConfigError, match=r"AlbertModel has no list of 3 layers .* set it to 0"):
        set_trainable(model, TrainingConfig(freeze_layers=1), seed=1)
    assert set_trainable(model, LORA, seed=1) > 0
    before = hidden(backbone)
    make_plain(model)
    torch.testing.assert_close(hidden(backbone), before)


def test_a_model_without_linear_layers_is_refused():
    model, backbone = backbone_of(CONFIGS["bert"])
    backbone.encoder.layer = nn.ModuleList()
    with pytest.raises(ConfigError, match="BertModel has no linear layers for LoRA"):
        set_trainable(model, LORA, seed=1)


def test_without_peft_the_extra_is_named(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DependencyError, match=r"pip install 'retrieval-ft\[lora\]'") as got:
        set_trainable(encoder.model, LORA, seed=1)
    assert got.value.exit_code == 5


def test_adapters_that_are_not_merged_cannot_be_exported(encoder, tmp_path):
    set_trainable(encoder.model, LORA, seed=1)
    with pytest.raises(ConfigError, match="carries adapters; merge them"):
        export_model(encoder.model, tmp_path / "out", card="")
    assert not (tmp_path / "out").exists()


@pytest.fixture(params=["lora", "frozen", "both"])
def config(request):
    changed = {"lora": LORA, "frozen": TrainingConfig(freeze_layers=1)}
    changed["both"] = LORA.model_copy(update={"freeze_layers": 1})
    fields = ("method", "lora_rank", "lora_alpha", "freeze_layers")
    values = {name: getattr(changed[request.param], name) for name in fields}
    return CONFIG.model_copy(update={**values, "learning_rate": 1e-2})


@pytest.mark.parametrize("graph_tokens", [1, 1_000_000])
def test_the_gradient_reaches_what_is_trained_and_nothing_else(run, pairs, config, graph_tokens):
    job = run()
    set_trainable(job.model, config, seed=5)
    shake(job.model)  # a fresh adapter's second half is 0, and so is the gradient of its first
    batch = job.collator([Example(p.query_id, p.positive_id, ()) for p in pairs.items[:6]])
    Loss(job.encoder, graph_tokens=graph_tokens)(batch).backward()
    for name, weight in job.model.named_parameters():
        has = weight.grad is not None and bool((weight.grad != 0).any())
        # A shift of every key alike changes no attention.
        idle = "pooler" in name or name.endswith("key.bias")
        assert has is (weight.requires_grad and not idle) or idle, name


def test_training_changes_what_is_trained_and_the_model_is_plain_again(
    run, config, model_folder, tmp_path
):
    job, base = run(), load_encoder(model_folder, device="cpu", precision="fp32")
    before = job.weights()
    set_trainable(job.model, config, seed=5)
    result = job.fit(config=config.model_copy(update={"epochs": 6, "dropout": 0.0}))
    losses = [row["loss"] for row in result.log if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    vectors = job.encoder.encode(TEXTS, role="query")
    make_plain(job.model)
    after = job.weights()
    assert list(after) == list(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    if config.freeze_layers:
        assert all(".layer.1." in name for name in changed)
    if config.method == "lora":
        assert all(name.endswith("dense.weight") or ".self." in name for name in changed)
        assert not [name for name in changed if name.endswith("bias")]
    export_model(job.encoder.serving_model(), tmp_path / "out", card="")
    loaded = load_encoder(tmp_path / "out", device="cpu", precision="fp32")
    assert same(loaded.model.state_dict(), after)
    assert abs(loaded.encode(TEXTS, role="query") - vectors).max() < 1e-6
    assert abs(base.encode(TEXTS, role="query") - vectors).max() > 1e-2


@pytest.mark.parametrize("at", [1, 6, 7, STEPS])
def test_an_interrupted_run_resumes_to_the_same_bits_whatever_is_trained(run, config, at):
    whole, first, second = run("whole"), run(), run()
    for seed, job in ((5, whole), (5, first), (6, second)):  # the checkpoint has the adapters
        set_trainable(job.model, config, seed=seed)
    expected = whole.fit(config=config)
    with pytest.raises(KeyboardInterrupt):
        first.fit(config=config, at=at, then=interrupt)
    found = second.fit(config=config, resume=True)
    assert second.loss.steps == STEPS - at
    assert (found.best_step, found.best_score) == (expected.best_step, expected.best_score)
    assert same(second.weights(), whole.weights())
    assert same(second.weights(), whole.seen[found.best_step // 3 - 1])
    for job in (whole, second):
        make_plain(job.model)
    assert same(second.weights(), whole.weights())


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(run, config):
    job = run()
    count = set_trainable(job.model, config, seed=5)
    save_trained(job.model, job.folder)
    assert [path.name for path in job.folder.iterdir()] == ["model.safetensors"]
    assert 0 < (job.folder / "model.safetensors").stat().st_size - 4 * count < 20_000
    expected = job.weights()
    shake(job.model)
    assert not same(job.weights(), expected)
    load_trained(job.model, job.folder)
    assert same(job.weights(), expected)


def test_a_checkpoint_that_cannot_be_used_says_why(encoder, tmp_path):
    with pytest.raises(DataError, match=r"model.safetensors: cannot be read .*remove this") as got:
        load_trained(encoder.model, tmp_path)
    assert got.value.exit_code == 3
    save_trained(encoder.model, tmp_path)
    set_trainable(encoder.model, LORA, seed=1)
    with pytest.raises(DataError, match=r"other weights than this run trains .* without --resume"):
        load_trained(encoder.model, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        load_trained(encoder.model, tmp_path)
