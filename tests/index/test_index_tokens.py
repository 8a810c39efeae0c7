"""How text becomes terms, script by script."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.errors import ConfigError
from retrieval_ft.index import tokens
from retrieval_ft.index.tokens import LexicalSpec, stop_word_lists

PLAIN = LexicalSpec(stemmer=None, stop_words="none")
WORDS_ONLY = LexicalSpec(stemmer=None, stop_words="none", bigrams=False)

EVERY = [chr(code) for code in range(sys.maxunicode + 1)]
MARKS = [c for c in EVERY if unicodedata.category(c) in ("Mn", "Mc")]
HIDDEN = {c for c in EVERY if unicodedata.category(c) in ("Cf", "Me")}
LATIN = st.text(
    st.characters(
        max_codepoint=0x24F, categories=["L", "N", "P", "S", "Z", "Cc"], exclude_characters="İǰ"
    )
)


def words(text, spec=PLAIN):
    return spec.tokenize([text])[0]


def plain_words(text):
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


@given(LATIN)
def test_latin_text_is_split_at_what_is_no_letter_and_no_digit(text):
    assert words(text) == words(text, WORDS_ONLY) == plain_words(text)


@given(st.text(st.characters(codec="ascii")))
def test_ascii_text_is_split_as_any_other(text):
    assert words(text) == plain_words(text)


def test_greek_and_cyrillic_are_split_like_latin():
    text = "Ὀδυσσεύς, ΟΔΟΣ; съешь ЕЩЁ этих… «мягких» булок — да!"
    assert words(text) == plain_words(text)
    assert words("ΟΔΟΣ") == words("οδος")


@given(st.text())
def test_any_text_is_split_into_words_that_are_not_empty_and_are_folded(text):
    for spec in (PLAIN, WORDS_ONLY):
        for word in words(text, spec):
            assert word
            assert unicodedata.normalize("NFKC", word.casefold()) == word
            assert not any(c.isspace() or c in HIDDEN for c in word)


@given(st.lists(st.text(max_size=20), max_size=6), st.sampled_from(["none", "english", "german"]))
def test_counting_gives_what_splitting_gives(texts, stop_words):
    spec = LexicalSpec(stop_words=stop_words)
    vocabulary, numbers, lengths = spec.count(texts)
    names = list(vocabulary)
    rows = spec.tokenize(texts)
    assert [names[n] for n in numbers] == [term for row in rows for term in row]
    assert lengths.tolist() == [len(row) for row in rows]
    assert list(vocabulary.values()) == list(range(len(vocabulary)))


def test_every_mark_and_hidden_character_leaves_the_short_way():
    scripts = [chr(c) for first, last in tokens._SPACELESS for c in range(first, last + 1)]
    for character in [*MARKS, *HIDDEN, *scripts]:
        assert not tokens._USUAL.fullmatch(character), f"U+{ord(character):04X}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में खोज", ["हिन्दी", "में", "खोज"]),  # Devanagari: vowel signs and virama
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),  # Tamil
        ("বাংলা ভাষা", ["বাংলা", "ভাষা"]),  # Bengali
        ("كِتَابٌ جَدِيدٌ", ["كِتَابٌ", "جَدِيدٌ"]),  # Arabic with vowel signs
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),  # Hebrew with points
        ("x\u0304 and y\u0304z", ["x\u0304", "and", "y\u0304z"]),  # Latin, no composed form
        ("ΜΑΪ́ΟΥ Μαΐου", ["μαΐου", "μαΐου"]),  # noqa: RUF001  Greek that casefold takes apart
        ("\u0301 alone", ["alone"]),  # a mark on nothing
    ],
)
def test_words_keep_their_marks(text, expected):
    expected = [unicodedata.normalize("NFKC", word) for word in expected]
    assert words(text) == words(text, WORDS_ONLY) == expected


def test_composed_and_decomposed_spellings_are_one_word():
    assert words("Cafe\u0301") == words("Caf\u00e9") == ["café"]


def test_the_turkish_capital_is_found_as_it_is_typed():
    assert words("İSTANBUL") == words("istanbul") == ["istanbul"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我是中国人", ["我是", "是中", "中国", "国人"]),  # the example of Lucene's CJKAnalyzer
        ("水", ["水"]),
        ("数据", ["数据"]),
        ("水 と 火", ["水", "と", "火"]),
        ("今日はABC123です。", ["今日", "日は", "abc123", "です"]),
        ("データﾍﾞｰｽ", ["デー", "ータ", "タベ", "ベー", "ース"]),  # half-width is full-width
        ("第〇章", ["第〇", "〇章"]),
        ("𠮷野家", ["𠮷野", "野家"]),  # beyond the basic plane
        ("한국어 검색", ["한국어", "검색"]),  # Korean writes spaces
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("ที่นี่", ["ที่นี่"]),  # two consonants with their marks
        ("ปี ๒๕๖๗", ["ปี", "๒๕๖๗"]),  # a number stays whole
        ("ភាសា\u200bខ្មែរ", ["ភាសា", "ខ្មែ", "មែរ"]),  # zero-width space parts words
        ("ພາສາລາວ", ["ພາ", "າສ", "ສາ", "າລ", "ລາ", "າວ"]),
        ("မြန်မာ", ["မြန်", "န်မာ"]),
        ("你好😀世界", ["你好", "世界"]),
    ],
)
def test_letters_of_scripts_without_spaces_become_pairs(text, expected):
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in expected]


def test_a_part_of_a_chinese_sentence_is_found_in_it():
    sentence, query = words("这个系统支持全文检索和向量检索。"), words("全文检索")
    assert set(query) <= set(sentence)
    assert set(words("全文检索", WORDS_ONLY)).isdisjoint(words("支持全文检索", WORDS_ONLY))


def test_without_pairs_such_a_run_is_one_word():
    assert words("我是中国人 abc", WORDS_ONLY) == ["我是中国人", "abc"]


@given(st.text(st.sampled_from("日本語ก็ခ์ភ្abc 1.\u200d\u0301")))
def test_pairs_hold_every_letter_that_a_text_holds(text):
    assert set("".join(words(text))) == set("".join(words(text, WORDS_ONLY)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("co\u00adoperate", ["cooperate"]),  # soft hyphen
        ("\u200eabc\u200f \u202bdef\u202c", ["abc", "def"]),  # marks of direction
        ("שלום\u200f, עולם", ["שלום", "עולם"]),
        ("می\u200cخواهم", ["میخواهم"]),  # noqa: RUF001  zero-width non-joiner
        ("क्\u200dष", ["क्ष"]),  # zero-width joiner
        ("\ufeffword", ["word"]),  # byte order mark
        ("one\u200btwo", ["one", "two"]),  # zero-width space
        ("one\x00two\x1bthree\x7ffour\x85five", ["one", "two", "three", "four", "five"]),
        ("1\ufe0f\u20e3 and ❤\ufe0f", ["1", "and"]),  # keycap, variation selector
        ("ok👍🏽go 👩\u200d👩\u200d👧 end", ["ok", "go", "end"]),
        ("a\u2028b\u2029c", ["a", "b", "c"]),
        ("\ud800lone", ["lone"]),  # half of a surrogate pair
    ],
)
def test_what_is_not_seen_neither_glues_nor_parts_words(text, expected):
    assert words(text) == words(text, WORDS_ONLY) == expected


def test_a_long_text_is_split_in_one_go():
    text = "नमस्ते दुनिया 你好世界 hello " * 20_000
    found = words(text)
    assert len(found) == 20_000 * 6
    assert len(set(found)) == 6


@pytest.mark.parametrize(
    ("language", "stemmer", "text", "expected"),
    [
        ("german", "german", "Die Häuser und das Haus", ["haus", "haus"]),
        ("french", "french", "les chevaux et le cheval", ["cheval", "cheval"]),
        ("russian", "russian", "и в книгах", ["книг"]),
        ("arabic", "arabic", "في كِتَاب", ["كتاب"]),
        ("hindi", "hindi", "और किताबें", ["किताब"]),
        ("chinese", None, "的 数据", ["数据"]),
    ],
)
def test_stop_words_and_stems_are_those_of_the_language(language, stemmer, text, expected):
    assert words(text, LexicalSpec(stop_words=language, stemmer=stemmer)) == expected


def test_english_stop_words_are_the_33_of_lucene():
    assert len(tokens._stop_words("english", True)) == 33
    assert words("about the house", LexicalSpec(stemmer=None)) == ["about", "house"]


@pytest.mark.parametrize("language", stop_word_lists())
def test_every_list_holds_words_as_texts_hold_them(language):
    spec = LexicalSpec(stemmer=None, stop_words=language)
    listed = tokens._stop_words(language, True)
    assert bool(listed) == (language != "none")
    assert words(" ".join(sorted(listed)), spec) == []


def test_a_phrase_of_a_list_takes_no_word_out():
    assert "lô" not in tokens._stop_words("vietnamese", True)  # listed: "a lô"


def test_the_lists_are_named_in_order():
    names = stop_word_lists()
    assert names[0] == "none"
    assert list(names[1:]) == sorted(names[1:])
    assert {"english", "german", "french", "russian"} < set(names)


@pytest.mark.parametrize("name", ["klingon", "de", "English", ""])
def test_unknown_stop_words_are_refused_with_the_choices(name):
    with pytest.raises(
        ConfigError, match=rf"stop words '{name}'; choose from none.*german"
    ) as caught:
        LexicalSpec(stop_words=name)
    assert caught.value.exit_code == 2


def test_an_unknown_stemmer_is_refused_with_the_choices():
    for split in (LexicalSpec(stemmer="klingon").tokenize, LexicalSpec(stemmer="klingon").count):
        with pytest.raises(ConfigError, match=r"'klingon'.*english"):
            split(["a word"])


def test_the_description_names_what_a_figure_depends_on():
    assert LexicalSpec().describe() == (
        "BM25 (Okapi) k1=1.5 b=0.75 epsilon=0.25, words case-folded, with their marks, "
        "pairs of letters where no spaces are written, stemmer english, stop words english"
    )
    other = LexicalSpec(stemmer=None, stop_words="german", bigrams=False).describe()
    assert "pairs" not in other
    assert re.search(r"stemmer none, stop words german \(stop-words [\d.]+\)$", other)
