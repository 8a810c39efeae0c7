"""A model of 20,000 weights and a dataset of 40 passages: the whole job in seconds, no download.

The queries of `tiny_dataset` name things by other words than the passages do (a ship for a boat) and
two in five share one word, so BM25 finds some, the untrained model finds little, and a few epochs
teach it the pairs of words (learning_rate 1e-3 or more: the model is small and random).
"""

from pathlib import Path

from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries, beir
from retrieval_ft.portable import write_bert_tokenizer, write_portable

THINGS = {
    "river": "stream",
    "boat": "ship",
    "kite": "glider",
    "hill": "mount",
    "rain": "storm",
    "sea": "ocean",
    "fox": "wolf",
    "bread": "loaf",
}
DOINGS = {
    "rises": "climbs",
    "sinks": "drops",
    "turns": "spins",
    "breaks": "cracks",
    "sings": "hums",
}
PLACES = ["over the red wall", "after a long day", "near the old town", "in the cold night"]
WORDS = [
    *THINGS,
    *THINGS.values(),
    *DOINGS,
    *DOINGS.values(),
    *dict.fromkeys(" ".join(PLACES).split()),
    *("why", "find", "go", "to", ":"),
]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
VOCABULARY = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS]))
QUERY_PROMPT = "find: "
SIZE, LENGTH = 32, 64


def bert_folder(folder: Path, *, seed: int = 7) -> Path:
    """Weights and tokenizer of a random BERT, without the sentence-transformers files."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer(
        WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        initializer_range=0.15,  # the usual 0.02 gives every text nearly the same vector
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_bert_tokenizer(folder, model_max_length=LENGTH)
    return folder


def tiny_model(folder: Path, *, seed: int = 7, pooling: str = "cls") -> Path:
    """A saved embedding model in the portable layout: pooling, Normalize, a query prompt."""
    bert_folder(folder, seed=seed)
    write_portable(
        folder,
        pooling=pooling,
        dimension=SIZE,
        max_seq_length=LENGTH,
        prompts={"query": QUERY_PROMPT},
    )
    return folder


def tiny_cross_encoder(folder: Path, bert: Path, *, labels: int = 1) -> Path:
    """A random sentence-transformers CrossEncoder on the weights of `bert_folder`."""
    import torch
    from sentence_transformers import CrossEncoder

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = CrossEncoder(str(bert), num_labels=labels, device="cpu", local_files_only=True)
        torch.nn.init.normal_(model[0].auto_model.classifier.weight, std=1.0)
    model.save_pretrained(str(folder))
    return folder


def tiny_dataset(folder: Path) -> Path:
    """A dataset folder in BEIR layout: 40 passages; 40 train, 8 dev and 26 test queries."""
    beir.write(dataset(), folder)
    return folder


def dataset() -> Dataset:
    """What `tiny_dataset` writes. Every ninth query has a second, less relevant passage."""
    facts = [(thing, doing) for thing in THINGS for doing in DOINGS]
    ids = tuple(f"p{i:02}" for i in range(len(facts)))
    texts = tuple(f"the {t} {d} {PLACES[i % len(PLACES)]}" for i, (t, d) in enumerate(facts))
    corpus = Corpus(ids=ids, texts=texts, titles=tuple(t for t, _ in facts))
    texts_of: dict[str, str] = {}
    grades: dict[str, dict[str, dict[str, int]]] = {"train": {}, "dev": {}, "test": {}}
    splits = ["train", "test", "train", "dev", "train", "train", "test", "train"]
    for i, (thing, doing) in enumerate(facts):
        asked = [f"why {THINGS[thing]} {DOINGS[doing]}"]
        if i % 5 < 3:
            asked.append(f"the {DOINGS[doing]} {thing}")
        for text in asked:
            query_id = f"q{len(texts_of):02}"
            split = splits[len(texts_of) % len(splits)]
            texts_of[query_id] = text
            grades[split][query_id] = {ids[i]: 2}
            if len(texts_of) % 9 == 0:
                grades[split][query_id][ids[(i + 1) % len(ids)]] = 1
    # Enough that the sign-flip test can tell what training taught from luck.
    for i in range(1, len(facts), 4):
        thing, doing = facts[i]
        query_id = f"t{i:02}"
        texts_of[query_id] = f"go to {THINGS[thing]} {DOINGS[doing]}"
        grades["test"][query_id] = {ids[i]: 2}
    return Dataset(
        name="tiny",
        corpus=corpus,
        queries=Queries(tuple(texts_of), tuple(texts_of.values())),
        qrels={split: Qrels(rows) for split, rows in grades.items()},  # type: ignore[misc]
    )
