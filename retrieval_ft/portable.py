"""The small JSON files that make a folder of weights a sentence-transformers model anywhere.

The layout is the older one (`sentence_transformers.models.*` types, boolean pooling keys): it loads
bit-identically in sentence-transformers 5.3 and 6.2 and is what text-embeddings-inference parses,
while folders saved by 5.4 and later are read by neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from retrieval_ft import artifacts

Pooling = Literal["cls", "mean", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
LAYOUT_VERSION = 1

_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
_BERT_SPECIAL_TOKENS = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def has_place_for(modules: Sequence[str]) -> bool:
    """Whether the layout has a place for a model of modules of these kinds."""
    kinds = [kind for _, kind in _MODULES]
    return list(modules) in (kinds, kinds[:2])


def write_portable(
    folder: Path,
    *,
    pooling: Pooling,
    dimension: int,
    max_seq_length: int,
    prompts: Mapping[str, str],
    normalize: bool = True,
) -> None:
    """Write the module files beside config.json, weights and tokenizer that are already there.

    Args:
        folder: The model folder.
        pooling: How token vectors become one vector.
        dimension: Width of the token vectors.
        max_seq_length: Tokens that are read of a text, special tokens included.
        prompts: Text put before an input, by role; "query" and "document" default to nothing.
        normalize: Whether vectors are scaled to length 1.
    """
    modules = _MODULES if normalize else _MODULES[:2]
    artifacts.write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    artifacts.write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_seq_length, "do_lower_case": False},
    )
    artifacts.write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": dimension,
            **{key: mode == pooling for mode, key in _POOLING_KEYS.items()},
            "include_prompt": True,
        },
    )
    for path, _ in modules[1:]:  # git and some loaders need the folder of a module to exist
        (folder / path).mkdir(exist_ok=True)
    artifacts.write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {"query": "", "document": "", **prompts},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def write_bert_tokenizer(folder: Path, *, model_max_length: int) -> None:
    """Write the files of a `BertTokenizer` that agree with the `tokenizer.json` in the folder.

    `vocab.txt` is its vocabulary in the order of ids: loaders that know no `tokenizer.json` read
    that one. Lower-casing and accents are as its normaliser has them.

    Raises:
        DataError: `tokenizer.json` is missing or no JSON.
    """
    tokenizer = artifacts.read_json(folder / "tokenizer.json")
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    normalizer = tokenizer["normalizer"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    artifacts.write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in ordered))
    artifacts.write_json(folder / "special_tokens_map.json", _BERT_SPECIAL_TOKENS)
    artifacts.write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            "model_max_length": model_max_length,
            **_BERT_SPECIAL_TOKENS,
        },
    )
