import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from tiny_index import FINGERPRINT, corpus_of, spec_of, unit

from retrieval_ft import artifacts
from retrieval_ft.dataset import Corpus, Queries
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import (
    DenseSpec,
    FusionSpec,
    HybridIndex,
    LexicalSpec,
    depth_for,
    fuse,
    parse,
    rank_dense,
    rank_lexical,
    rerank,
    writing,
)

OTHER = "cd" * 32
PARTS = ["arrays.safetensors", "passages.jsonl", "segment.json", "vectors.faiss"]


def build(count=12, **options):
    return HybridIndex.build(corpus_of(count), unit(count, 0), spec=spec_of(**options))


def search(index, texts, *, k=5, mode="hybrid", where=None):
    return index.search(
        texts, unit(len(texts), 1), encoder_fingerprint=FINGERPRINT, k=k, mode=mode, where=where
    )


def files_of(folder):
    """Every file that is covered by a seal: all but the lock."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return sorted(path.relative_to(folder).as_posix() for path in found)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
def test_what_is_loaded_answers_like_what_was_saved(tmp_path, mode):
    spec, fusion = LexicalSpec(stemmer=None, k1=1.2), FusionSpec("convex", 0.35)
    index = build(lexical=spec, fusion=fusion)
    index.save(tmp_path / "index")
    loaded = HybridIndex.load(tmp_path / "index")
    assert loaded.spec == index.spec
    assert (loaded.lexical.spec, loaded.spec.fusion) == (spec, fusion)
    queries = ["cat on a roof", "overflow", "größenänderung", ""]
    assert search(loaded, queries, mode=mode) == search(index, queries, mode=mode)


def test_the_manifest_says_what_the_index_is(tmp_path):
    folder = tmp_path / "index"
    build(prompts={"query": "ask: ", "passage": ""}).save(folder)
    manifest = json.loads((folder / "generations/000001/manifest.json").read_text())
    assert (manifest["kind"], manifest["schema_version"]) == ("hybrid-index", 2)
    assert manifest["spec"]["encoder_fingerprint"] == FINGERPRINT
    assert manifest["spec"]["prompts"] == {"query": "ask: ", "passage": ""}
    assert manifest["spec"]["lexical"] == dataclasses.asdict(LexicalSpec())
    assert manifest["spec"]["fusion"] == {"method": "rrf", "dense_weight": 0.5, "depth": None}
    assert manifest["spec"]["dimension"] == 6
    assert (manifest["counts"]["passages"], manifest["changes"]) == (12, 0)
    (segment,) = manifest["segments"]
    expected = [f"segments/{segment['name']}/{name}" for name in PARTS]
    assert sorted(manifest["files"]) == expected
    assert files_of(folder) == sorted(["CURRENT", "generations/000001/manifest.json", *expected])


def test_a_hit_carries_text_and_the_rank_and_score_of_each_side():
    index = build()
    queries = Queries(("q",), ("cat overflow",))
    vectors = unit(1, 1)
    lexical = rank_lexical(index.lexical, queries, k=100)
    dense = rank_dense(index.dense, queries, vectors, k=100)
    fused = fuse(lexical, dense, spec=index.spec.fusion, k=12)
    (found,) = index.search(["cat overflow"], vectors, encoder_fingerprint=FINGERPRINT, k=12)
    assert tuple(hit.id for hit in found) == fused.ids("q")
    assert [hit.score for hit in found] == fused.scores("q").tolist()
    for hit in found:
        at = corpus_of(12).index_of[hit.id]
        assert (hit.title, hit.text) == (corpus_of(12).titles[at], corpus_of(12).texts[at])
        assert hit.metadata == corpus_of(12).metadata[at]
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
    expected = fuse(*sides, spec=index.spec.fusion, k=2)
    assert index.rank(queries, unit(1, 1), k=2).ids("q") == expected.ids("q")


def test_k_above_the_corpus_gives_every_passage_once():
    (found,) = search(build(), ["cat"], k=1000)
    assert sorted(hit.id for hit in found) == sorted(corpus_of(12).ids)


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


def changed(tmp_path):
    """An index with two segments and something deleted."""
    folder = tmp_path / "index"
    build().save(folder)
    with writing(folder) as writer:
        more = Corpus(ids=("m",), texts=("more",), titles=("",), metadata=({"a": [1, True]},))
        writer.add(more, unit(1, 5), encoder_fingerprint=FINGERPRINT)
        writer.delete(["d3"])
        writer.clear(older=True)
    return folder


def test_one_flipped_byte_is_refused_by_the_name_of_its_file(tmp_path):
    folder = changed(tmp_path)
    names = files_of(folder)
    assert len(names) == 2 + 1 + 2 * len(PARTS)  # pointer, manifest, what is deleted, segments
    for name in names:
        original = (folder / name).read_bytes()
        for place in {0, len(original) // 3, len(original) // 2, len(original) - 2}:
            damaged = bytearray(original)
            damaged[place] ^= 1
            (folder / name).write_bytes(damaged)
            with pytest.raises(DataError) as caught:
                HybridIndex.load(folder)
            # A pointer to a generation that is not there can only name the place of that one.
            assert (name if name != "CURRENT" else str(folder)) in str(caught.value), place
            assert caught.value.exit_code == 3
        (folder / name).write_bytes(original)
    HybridIndex.load(folder)


def test_an_edited_manifest_is_refused_even_unverified(tmp_path):
    build().save(tmp_path / "index")
    path = tmp_path / "index/generations/000001/manifest.json"
    path.write_text(path.read_text().replace('"dense_weight": 0.5', '"dense_weight": 0.9'))
    with pytest.raises(DataError, match=r"manifest\.json: damaged or edited"):
        HybridIndex.load(tmp_path / "index", verify=False)


@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file_is_named(tmp_path, verify):
    folder = changed(tmp_path)
    for name in files_of(folder):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(DataError) as caught:
            HybridIndex.load(folder, verify=verify)
        assert name.split("/")[-1] in str(caught.value)
        (folder / name).write_bytes(kept)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(DataError, match="no index here"):
        HybridIndex.load(tmp_path / "nowhere")


def test_another_kind_of_folder_is_refused(tmp_path):
    artifacts.seal(tmp_path, {"kind": "run"})
    with pytest.raises(DataError, match="no index of this version here"):
        HybridIndex.load(tmp_path)


def test_saving_again_replaces_the_older_index_whole(tmp_path):
    build(12).save(tmp_path / "index")
    build(20).save(tmp_path / "index")
    assert len(HybridIndex.load(tmp_path / "index")) == 20
    assert len(list((tmp_path / "index/segments").iterdir())) == 1
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
        HybridIndex.build(twice, unit(2, 0), spec=spec_of())


@pytest.mark.parametrize("mode", ["hybrid", "dense", "bm25"])
@pytest.mark.parametrize("part", [0, 1, 7])
def test_a_filter_gives_what_an_index_of_the_passages_that_pass_would_find(mode, part):
    index = build(40)
    (found,) = search(index, ["cat overflow"], mode=mode, where=parse({"part": part}), k=40)
    (every,) = search(index, ["cat overflow"], mode=mode, k=40)
    assert {hit.id for hit in found} == {h.id for h in every if h.metadata["part"] == part}
    if mode != "hybrid":  # min-max or ranks of fusion depend on who else is there
        kept = [hit.id for hit in every if hit.metadata["part"] == part]
        assert [hit.id for hit in found] == kept


def test_a_narrowed_handle_finds_nothing_else_whatever_is_asked(tmp_path):
    build(40).save(tmp_path / "index")
    whole = HybridIndex.load(tmp_path / "index")
    handle = whole.narrowed(parse({"part": 1}))
    for where in (None, parse({"part": {"$in": [0, 1]}}), parse({"$not": {"part": 1}})):
        for mode in ("hybrid", "dense", "bm25"):
            (found,) = search(handle, ["cat title 1"], mode=mode, where=where, k=40)
            assert {hit.metadata["part"] for hit in found} <= {1}
    assert handle.passage("d0") is None
    assert handle.passage("d1").id == "d1"
    assert handle.narrowed(parse({"part": 2})).matching(parse({"name": "n1"})) == []
    assert len(search(whole, ["cat"], k=40)[0]) == 40  # the handle it was made from sees all


def test_an_index_that_keeps_tenants_apart_is_not_searched_without_one():
    index = build(40, tenant_key="part")
    for call in (
        lambda: search(index, ["cat"]),
        lambda: search(index, ["cat"], where=parse({"part": 1})),
        lambda: index.rank(Queries(("q",), ("cat",)), None, k=3, mode="bm25"),
        lambda: index.passage("d1"),
        lambda: index.matching(parse({"part": 1})),
    ):
        with pytest.raises(ConfigError, match="keeps tenants apart by 'part'"):
            call()
    (found,) = search(index.for_tenant(2), ["cat"], k=40, where=parse({"part": {"$gte": 0}}))
    assert {hit.metadata["part"] for hit in found} == {2}
    with pytest.raises(ConfigError, match="keeps no tenants apart"):
        build().for_tenant(2)


def test_a_deeper_fusion_can_be_asked_for():
    index = build(300)
    queries = Queries(("q",), ("cat overflow 7",))
    for depth in (2, 250):
        other = index.with_fusion(FusionSpec(depth=depth))
        sides = (
            rank_lexical(index.lexical, queries, k=depth),
            rank_dense(index.dense, queries, unit(1, 1), k=depth),
        )
        expected = fuse(*sides, spec=FusionSpec(depth=depth), k=2)
        assert other.rank(queries, unit(1, 1), k=2).ids("q") == expected.ids("q")


@pytest.mark.parametrize("dense", [DenseSpec(dimension=3), DenseSpec(precision="int8")])
def test_smaller_vectors_are_searched_as_such(tmp_path, dense):
    index = build(200, dense=dense)
    index.save(tmp_path / "index")
    loaded = HybridIndex.load(tmp_path / "index")
    assert loaded.spec.dense == dense
    assert search(loaded, ["x", "y"], mode="dense") == search(index, ["x", "y"], mode="dense")
    cut = unit(200, 0)[:, : dense.dimension]
    cut /= np.linalg.norm(cut, axis=1, keepdims=True)
    query = unit(1, 1)[:, : dense.dimension] / np.linalg.norm(unit(1, 1)[:, : dense.dimension])
    (found,) = search(loaded, ["x"], mode="dense", k=3)
    cosines = cut @ query[0]
    tolerance = 0.02 if dense.precision == "int8" else 1e-6
    for hit in found:
        assert abs(hit.score - cosines[int(hit.id[1:])]) < tolerance


def test_a_cross_encoder_orders_the_first_hits_and_leaves_the_others_behind():
    index = build(40)
    found = search(index, ["cat", "overflow"], k=8)
    calls = []

    def lengths(queries, passages):
        calls.append((list(queries), list(passages)))
        return np.array([-len(p) for p in passages], np.float32)

    again = rerank(["cat", "overflow"], found, scores=lengths, first=3)
    assert len(calls) == 1
    assert calls[0][0] == ["cat"] * 3 + ["overflow"] * 3
    for before, after in zip(found, again, strict=True):
        head = sorted(before[:3], key=lambda h: (len(f"{h.title} {h.text}"), h.id))
        assert [hit.id for hit in after] == [hit.id for hit in [*head, *before[3:]]]
        assert [hit.rerank_score is None for hit in after] == [False] * 3 + [True] * 5
    assert rerank([], [], scores=lengths, first=3) == []


def test_importing_the_room_loads_neither_faiss_nor_torch():
    code = (
        "import sys, retrieval_ft.index; print(*{'faiss', 'torch', 'Stemmer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
