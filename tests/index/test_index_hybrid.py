import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from retrieval_ft import artifacts
from retrieval_ft.dataset import Corpus, Queries
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import (
    FusionSpec,
    HybridIndex,
    LexicalSpec,
    depth_for,
    fuse,
    rank_dense,
    rank_lexical,
)

FINGERPRINT = "ab" * 32
OTHER = "cd" * 32
TEXTS = (
    "a cat sleeps on the warm roof",
    "the dog barks at the cat",
    "stack overflow in the parser",
    "heap overflow corrupts memory",
    "Größenänderung\u2028mit Umlaut",
    "數據庫 查詢",
)
FILES = [
    "corpus.jsonl",
    "dense/ids.json",
    "dense/vectors.faiss",
    "lexical/ids.json",
    "lexical/impacts.npy",
    "lexical/indptr.npy",
    "lexical/passages.npy",
    "lexical/spec.json",
    "lexical/statistics.json",
    "lexical/vocabulary.json",
    "manifest.json",
]


def unit(count, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def corpus_of(count):
    texts = tuple(f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(count))
    ids = tuple(f"d{i}" for i in range(count))
    return Corpus(ids=ids, texts=texts, titles=tuple(f"title {i % 4}" for i in range(count)))


def build(count=12, **options):
    return HybridIndex.build(
        corpus_of(count),
        unit(count, 0),
        encoder_fingerprint=FINGERPRINT,
        encoder_path="runs/x/model",
        **options,
    )


def search(index, texts, *, k=5, mode="hybrid"):
    return index.search(texts, unit(len(texts), 1), encoder_fingerprint=FINGERPRINT, k=k, mode=mode)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
def test_what_is_loaded_answers_like_what_was_saved(tmp_path, mode):
    spec, fusion = LexicalSpec(stemmer=None, k1=1.2), FusionSpec("convex", 0.35)
    index = build(lexical=spec, fusion=fusion)
    index.save(tmp_path / "index")
    loaded = HybridIndex.load(tmp_path / "index")
    assert (loaded.corpus, loaded.fusion) == (index.corpus, fusion)
    assert (loaded.encoder_fingerprint, loaded.encoder_path) == (FINGERPRINT, "runs/x/model")
    assert loaded.lexical.spec == spec
    queries = ["cat on a roof", "overflow", "größenänderung", ""]
    assert search(loaded, queries, mode=mode) == search(index, queries, mode=mode)


def test_the_manifest_says_what_the_index_is(tmp_path):
    build().save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["kind"] == "hybrid-index"
    assert manifest["schema_version"] == 1
    assert manifest["encoder_fingerprint"] == FINGERPRINT
    assert manifest["lexical"] == dataclasses.asdict(LexicalSpec())
    assert manifest["fusion"] == {"method": "rrf", "dense_weight": 0.5}
    assert manifest["counts"]["passages"] == 12
    assert (manifest["dimension"], manifest["faiss_factory"]) == (6, "Flat")
    assert sorted([*manifest["files"], "manifest.json"]) == FILES


def test_a_hit_carries_text_and_the_rank_and_score_of_each_side():
    index = build()
    queries = Queries(("q",), ("cat overflow",))
    vectors = unit(1, 1)
    lexical = rank_lexical(index.lexical, queries, k=100)
    dense = rank_dense(index.dense, queries, vectors, k=100)
    fused = fuse(lexical, dense, spec=index.fusion, k=12)
    (found,) = index.search(["cat overflow"], vectors, encoder_fingerprint=FINGERPRINT, k=12)
    assert tuple(hit.id for hit in found) == fused.ids("q")
    assert [hit.score for hit in found] == fused.scores("q").tolist()
    for hit in found:
        at = index.corpus.index_of[hit.id]
        assert (hit.title, hit.text) == (index.corpus.titles[at], index.corpus.texts[at])
        assert dense.ids("q")[hit.dense_rank - 1] == hit.id
        assert dense.scores("q")[hit.dense_rank - 1] == hit.dense_score
        if hit.id in lexical.ids("q"):
            assert lexical.ids("q")[hit.bm25_rank - 1] == hit.id
            assert lexical.scores("q")[hit.bm25_rank - 1] == hit.bm25_score
        else:
            assert (hit.bm25_rank, hit.bm25_score) == (None, None)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
def test_rank_and_search_agree(mode):
    index = build()
    queries = Queries(("x", "y"), ("cat roof", "heap memory"))
    ranking = index.rank(queries, unit(2, 1), k=4, mode=mode)
    found = search(index, queries.texts, k=4, mode=mode)
    assert [ranking.ids(q) for q in queries.ids] == [tuple(h.id for h in row) for row in found]


def test_one_mode_asks_one_side_only():
    index = build()
    (dense,) = search(index, ["cat"], mode="dense")
    (bm25,) = index.search(["cat"], None, encoder_fingerprint=None, k=5, mode="bm25")
    assert all(hit.bm25_rank is None and hit.dense_rank == n for n, hit in enumerate(dense, 1))
    assert all(hit.dense_rank is None and hit.bm25_rank == n for n, hit in enumerate(bm25, 1))
    assert all("cat" in hit.text for hit in bm25)


def test_bm25_reads_titles_too():
    (found,) = search(build(), ["title 3"], mode="bm25", k=1)
    assert found[0].title == "title 3"


def test_fusion_looks_deeper_than_k():
    index = build(300)
    queries = Queries(("q",), ("cat overflow 7",))
    sides = (
        rank_lexical(index.lexical, queries, k=depth_for(2)),
        rank_dense(index.dense, queries, unit(1, 1), k=depth_for(2)),
    )
    expected = fuse(*sides, spec=index.fusion, k=2)
    assert index.rank(queries, unit(1, 1), k=2).ids("q") == expected.ids("q")


def test_k_above_the_corpus_gives_every_passage_once():
    (found,) = search(build(), ["cat"], k=1000)
    assert sorted(hit.id for hit in found) == sorted(build().corpus.ids)


def test_an_empty_query_is_answered_by_the_dense_side_alone():
    index = build()
    (hybrid,), (dense,) = search(index, [""]), search(index, [""], mode="dense")
    assert [hit.id for hit in hybrid] == [hit.id for hit in dense]
    assert search(index, [""], mode="bm25") == [[]]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
def test_no_queries_give_no_results(mode):
    assert search(build(), [], mode=mode) == []


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_another_encoder_is_refused(mode):
    with pytest.raises(DataError) as caught:
        build().search(["cat"], unit(1, 1), encoder_fingerprint=OTHER, k=3, mode=mode)
    message = str(caught.value)
    assert OTHER[:12] in message
    assert FINGERPRINT[:12] in message
    assert "runs/x/model" in message
    assert "build the index again" in message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_is_refused_by_the_name_of_its_file(tmp_path, name):
    folder = tmp_path / "index"
    build().save(folder)
    original = (folder / name).read_bytes()
    for place in {0, len(original) // 3, len(original) // 2, len(original) - 2}:
        damaged = bytearray(original)
        damaged[place] ^= 1
        (folder / name).write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            HybridIndex.load(folder)
        assert str(folder / name) in str(caught.value)
        assert caught.value.exit_code == 3
    (folder / name).write_bytes(original)
    HybridIndex.load(folder)


def test_an_edited_manifest_is_refused_even_unverified(tmp_path):
    build().save(tmp_path / "index")
    path = tmp_path / "index" / "manifest.json"
    path.write_text(path.read_text().replace('"dense_weight": 0.5', '"dense_weight": 0.9'))
    with pytest.raises(DataError, match=r"manifest\.json: damaged or edited"):
        HybridIndex.load(tmp_path / "index", verify=False)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    build().save(tmp_path / "index")
    (tmp_path / "index" / name).unlink()
    with pytest.raises(DataError) as caught:
        HybridIndex.load(tmp_path / "index")
    assert name in str(caught.value)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(DataError, match="no index here"):
        HybridIndex.load(tmp_path / "nowhere")


def test_another_kind_of_folder_is_refused(tmp_path):
    artifacts.seal(tmp_path, {"kind": "run"})
    with pytest.raises(DataError, match="not the manifest of a hybrid-index"):
        HybridIndex.load(tmp_path)


def test_saving_again_replaces_the_older_index_whole(tmp_path):
    build(12).save(tmp_path / "index")
    build(20).save(tmp_path / "index")
    assert len(HybridIndex.load(tmp_path / "index").corpus) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_faulty_calls_are_refused_in_words():
    index = build()
    with pytest.raises(DataError, match="2 queries came with 1 vectors"):
        index.search(["a", "b"], unit(1, 1), encoder_fingerprint=FINGERPRINT, k=3)
    with pytest.raises(DataError, match="'hybrid' needs query vectors"):
        index.search(["a"], None, encoder_fingerprint=FINGERPRINT, k=3)
    with pytest.raises(ConfigError, match="k = 0"):
        index.search(["cat"], None, encoder_fingerprint=None, k=0, mode="bm25")
    with pytest.raises(ConfigError, match="k = 0"):
        search(index, ["cat"], k=0)


def test_a_corpus_with_an_id_twice_is_refused():
    twice = Corpus(ids=("a", "a"), texts=("x", "y"), titles=("", ""))
    with pytest.raises(DataError, match="2 passages under 1 ids"):
        HybridIndex.build(twice, unit(2, 0), encoder_fingerprint=FINGERPRINT, encoder_path="m")


def test_sides_of_another_corpus_are_refused():
    with pytest.raises(DataError, match=r"BM25 index \(20\).*do not hold the same ids"):
        dataclasses.replace(build(12), lexical=build(20).lexical)


def test_importing_the_room_loads_neither_faiss_nor_torch():
    code = (
        "import sys, retrieval_ft.index; print(*{'faiss', 'torch', 'Stemmer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
