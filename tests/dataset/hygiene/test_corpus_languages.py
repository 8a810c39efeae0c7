import pytest

from retrieval_ft.dataset import Corpus
from retrieval_ft.dataset.hygiene.language import SAMPLE, is_english_only, language_mix
from retrieval_ft.errors import DataError

BASE = "BAAI/bge-small-en-v1.5"
SENTENCES = {
    "en": [
        "The valve opens when the pump stops, and the water runs back into the tank below.",
        "Our neighbours keep three goats, which eat every flower that grows near the fence.",
        "She wrote the letter in the evening and carried it to the post office the next day.",
    ],
    "de": [
        "Das Ventil öffnet sich, sobald die Pumpe steht, und das Wasser läuft in den Kessel zurück.",
        "Unsere Nachbarn halten drei Ziegen, die jede Blume am Zaun fressen.",
        "Sie schrieb den Brief am Abend und brachte ihn am nächsten Tag zur Post.",
    ],
    "fr": [
        "La vanne s'ouvre quand la pompe s'arrête, et l'eau retourne dans le réservoir.",
        "Nos voisins ont trois chèvres qui mangent toutes les fleurs près de la clôture.",
        "Elle a écrit la lettre le soir et l'a portée à la poste le lendemain.",
    ],
    "ja": [
        "ポンプが止まると弁が開き、水は下のタンクに戻ります。",
        "隣の家では三匹の山羊を飼っていて、柵のそばの花をみんな食べてしまいます。",
        "彼女は夕方に手紙を書き、次の日に郵便局へ持って行きました。",
    ],
}
CODE = [
    "def area(width, height):\n    return width * height",
    "for (int i = 0; i < n; ++i) { total += row[i]; }",
    "SELECT name, size FROM boats WHERE size > 12 ORDER BY name",
    "if not found:\n    found = index.get(key, None)\n    cache[key] = found",
    "x1 = a[0] << 2 | b[1] & 0xFF",
]
NAMES = ["Ada Byron", "Jan de Vries", "Li Wei", "Maria Silva", "Anna Rossi", "0041-77", "GmbH & Co"]


def corpus_of(texts):
    return Corpus(tuple(f"p{i}" for i in range(len(texts))), tuple(texts), ("",) * len(texts))


def mix_of(texts, base=BASE, **options):
    return language_mix(corpus_of(texts), seed=1, base=base, name="mine", **options)


@pytest.mark.parametrize("code", sorted(SENTENCES))
def test_sentences_are_known_by_their_language(code):
    assert mix_of(SENTENCES[code]).mix == {code: 1.0}


def test_the_mix_is_a_share_of_the_sample_and_lists_what_is_not_english():
    texts = [*SENTENCES["en"] * 2, SENTENCES["ja"][0], SENTENCES["de"][0], "ok"]
    found = mix_of(texts)
    assert found.mix == {"en": 6 / 9, "de": 1 / 9, "ja": 1 / 9, "und": 1 / 9}
    assert (found.check.name, found.check.touched, found.check.of) == ("languages", 2, 9)
    assert [(row["passage_id"], row["language"]) for row in found.check.rows] == [
        ("p6", "ja"),
        ("p7", "de"),
    ]


def test_another_language_is_warned_about_where_the_base_knows_english_only():
    texts = SENTENCES["en"] + SENTENCES["fr"]
    (warning,) = mix_of(texts).warnings
    assert warning == (
        "mine: 50% of a sample of passages is not English (en 50%, fr 50%), and "
        "BAAI/bge-small-en-v1.5 knows English only; a multilingual base model (model.base) will do "
        "better on them"
    )
    assert mix_of(texts, base="BAAI/bge-m3").warnings == ()
    assert mix_of([*SENTENCES["en"] * 3, SENTENCES["fr"][0]]).warnings == ()


@pytest.mark.parametrize("texts", [CODE, NAMES], ids=["code", "names"])
def test_code_and_names_are_neither_refused_nor_warned_about(texts):
    found = mix_of(texts, unknown_share=lambda sample: 0.05)
    assert found.warnings == ()


def test_a_language_that_the_tokenizer_does_not_know_is_refused():
    def unknown_share(sample):
        return sum(not text.isascii() for text in sample) / len(sample)

    with pytest.raises(DataError) as got:
        mix_of(SENTENCES["ja"] + SENTENCES["en"], unknown_share=unknown_share)
    assert got.value.exit_code == 3
    assert str(got.value) == (
        "mine: 50% of the tokens of a sample of passages are unknown to the tokenizer of "
        "BAAI/bge-small-en-v1.5, and at most 30% are allowed; the sample looks like: en 50%, ja 50%; "
        "choose a base model that knows the language, such as --set model.base=BAAI/bge-m3"
    )
    assert mix_of(SENTENCES["ja"], unknown_share=lambda sample: 0.3).mix == {"ja": 1.0}


def test_a_large_corpus_is_sampled_with_the_seed():
    seen = []

    def unknown_share(sample):
        seen.append(list(sample))
        return 0.0

    texts = [f"{SENTENCES['en'][0]} {i}" for i in range(SAMPLE + 500)]
    found = mix_of(texts, unknown_share=unknown_share)
    mix_of(texts, unknown_share=unknown_share)
    assert found.check.of == SAMPLE
    assert len(set(seen[0])) == SAMPLE
    assert seen[0] == seen[1]


def test_an_empty_corpus_has_no_language():
    assert mix_of([]).mix == {}


@pytest.mark.parametrize(
    ("base", "english"),
    [
        ("BAAI/bge-small-en-v1.5", True),
        ("bge-base-en", True),
        ("models/bge_large_EN_v1.5", True),
        ("BAAI/bge-m3", False),
        ("BAAI/bge-small-zh-v1.5", False),
        ("green/open-model", False),
    ],
)
def test_a_model_says_by_its_name_that_it_is_english_only(base, english):
    assert is_english_only(base) == english
