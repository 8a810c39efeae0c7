"""`evaluate` as a benchmark harness: many systems, run files, judgements of one's own, a folder of it all."""

import gc
import json
import shutil
import weakref
from contextlib import chdir
from pathlib import Path

import embeddings_server
import numpy as np
import pytest
import tiny
from driver import cli, python

from retrieval_ft.dataset import Qrels, Ranking, beir
from retrieval_ft.encoder.cross_encoder import CrossEncoder, load_cross_encoder
from retrieval_ft.evaluation import (
    PerQuery,
    compare,
    document_groups,
    evaluate,
    facts_of,
    read_qrels,
    read_trec_run,
    write_qrels,
    write_trec_run,
)
from retrieval_ft.index import FusionSpec, fuse
from retrieval_ft.pipeline import measure, ranked
from retrieval_ft.pipeline.measure import _detectable

FAST = ["--set", "evaluation.resamples=1000", "--set", "model.precision=fp32"]
FIRST = 5
MODELS = ["dense", "hybrid", "hybrid_rrf"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_folder, dataset_folder):
    """A working directory with two models, a cross-encoder and what measuring them all left."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copytree(model_folder, folder / "model")
    shutil.copytree(dataset_folder, folder / "tiny")
    tiny.tiny_model(folder / "second", seed=9)
    tiny.tiny_cross_encoder(folder / "judge", tiny.bert_folder(folder / "bert"))
    with chdir(folder):
        found = cli(*everything(), "--out", "all", "--json")
    assert found.code == 0, found.err
    return folder, found.document


def everything():
    words = ["evaluate", "tiny", "--model", "model", "--with", "second=second", "--with"]
    return [*words, "same=model", "--rerank", FIRST, "--cross-encoder", "judge", *FAST]


@pytest.fixture
def here(place, monkeypatch):
    """The working directory; read only, but for new names."""
    monkeypatch.chdir(place[0])
    return place[0]


@pytest.fixture
def document(place):
    return place[1]


def ranking(name):
    """Of a system, as the big measurement left it."""
    return read_trec_run(Path(f"all/{name}.trec"))


def test_every_system_is_there_under_its_name(document):
    models = [prefix + kind for prefix in ("", "second_", "same_") for kind in MODELS]
    plain = ["bm25", *models]
    reranked = [f"{name}_rerank" for name in plain if not name.endswith("dense")]
    assert set(document["systems"]) == {*plain, *reranked}
    sizes = {"passages": 40, "queries": 26, "train_pairs": 44}
    assert document["dataset"] == {"name": "tiny", **sizes, "dropped": {}}


def test_one_model_under_two_names_has_the_same_figures(document):
    for kind in (*MODELS, "hybrid_rerank"):
        assert document["systems"][f"same_{kind}"] == document["systems"][kind]


def test_hybrid_rrf_is_the_fusion_by_rank_of_the_two_sides(here):
    for prefix in ("", "second_"):
        fused = fuse(ranking("bm25"), ranking(f"{prefix}dense"), spec=FusionSpec(depth=400), k=100)
        found = ranking(f"{prefix}hybrid_rrf")
        assert {q: found.ids(q) for q in found.hits} == {q: fused.ids(q) for q in fused.hits}


def test_reranking_orders_the_first_hits_by_the_cross_encoder_and_leaves_the_rest(
    here, dataset_folder
):
    dataset = beir.read(dataset_folder)
    text_of, corpus = dataset.queries.text_of, dataset.corpus
    judge = load_cross_encoder(here / "judge", device="cpu")
    for name in ("bm25", "second_hybrid"):
        before, after = ranking(name), ranking(f"{name}_rerank")
        for query_id, (ids, _) in before.hits.items():
            first = ids[:FIRST]
            passages = [corpus.passages[corpus.index_of[p]] for p in first]
            scores = judge.scores([text_of[query_id]] * len(first), passages).tolist()
            best = sorted(zip(first, scores, strict=True), key=lambda row: (-row[1], row[0]))
            assert after.ids(query_id) == (*(p for p, _ in best), *ids[FIRST:])


def test_a_pair_is_scored_once_for_all_systems(here, monkeypatch):
    calls = []
    original = CrossEncoder.scores

    def counting(self, queries, passages):
        calls.append(list(zip(queries, passages, strict=True)))
        return original(self, queries, passages)

    monkeypatch.setattr(CrossEncoder, "scores", counting)
    assert cli(*everything(), "--json").code == 0
    (pairs,) = calls
    assert len(set(pairs)) == len(pairs)


def test_models_are_loaded_and_freed_one_at_a_time(here, monkeypatch):
    original, alive = ranked.encoder_of, []

    def watching(path, config):
        gc.collect()
        assert [one() for one in alive] == [None] * len(alive)
        encoder = original(path, config)
        alive.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(ranked, "encoder_of", watching)
    assert cli("evaluate", "tiny", "--model", "model", "--with", "b=second", *FAST).code == 0
    assert len(alive) == 2


def test_the_prompt_of_the_config_is_that_of_the_primary_alone(here, document):
    prompt = ["--set", "model.query_prompt=go to "]
    words = ["evaluate", "tiny", "--model", "model", "--with", "same=model", *FAST, "--json"]
    found = cli(*words, *prompt).document["systems"]
    assert found["same_dense"] == document["systems"]["dense"] != found["dense"]


# Statistics


def test_a_row_has_the_figures_of_its_pair_and_the_family_is_one(here, document):
    qrels = read_qrels(here / "all/qrels.trec")
    rows = document["differences"]
    assert len({(r["system"], r["against"], r["metric"]) for r in rows}) == len(rows)
    assert {(r["system"], r["against"]) for r in rows} >= {
        ("hybrid", "bm25"),
        ("hybrid", "dense"),
        ("second_dense", "dense"),
        ("second_hybrid_rerank", "second_hybrid"),
    }
    row = next(r for r in rows if r["system"] == "second_dense" and r["metric"] == "ndcg@10")
    sides = (evaluate(ranking(name), qrels) for name in ("second_dense", "dense"))
    found = compare(*sides, metric="ndcg@10", seed=13, resamples=1000)
    assert (row["delta"], row["p"], row["ci"]) == (
        pytest.approx(found.delta),
        found.p,
        pytest.approx([found.ci_low, found.ci_high]),
    )
    assert row["p_holm"] >= row["p"]
    assert document["references"]["second_dense"] == "dense"


def test_one_can_name_what_all_are_compared_with(here):
    words = ["evaluate", "tiny", "--model", "model", "--run", "r=all/second_dense.trec", *FAST]
    found = cli(*words, "--against", "r", "--json").document
    assert {row["against"] for row in found["differences"]} == {"r"}
    assert {row["system"] for row in found["differences"]} == {"bm25", *MODELS}
    refused = cli(*words, "--against", "s")
    assert refused.code == 2 and "--against 's': no such system; allowed: bm25" in refused.err


def test_clusters_are_of_queries_about_one_document(here, tmp_path):
    folder = tmp_path / "parts"
    shutil.copytree("tiny", folder)
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row["metadata"] = {"document": f"d{i // 5}"}
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = beir.read(folder)
    groups = document_groups(dataset.qrels["test"], dataset.corpus.document_of)
    words = ["evaluate", folder, "--model", "model", *FAST, "--json"]
    found, alone = cli(*words, "--cluster").document, cli(*words).document
    for row, single in zip(found["differences"], alone["differences"], strict=True):
        assert row["groups"] == len(set(groups.values())) < 26
        assert row["delta"] == single["delta"] and "groups" not in single


def test_the_smallest_detectable_difference_is_that_of_the_mean_of_units():
    rng = np.random.default_rng(3)
    ids = tuple(f"q{i}" for i in range(40))
    one, other = (PerQuery(ids, {"m": rng.random(40)}) for _ in range(2))
    d = one.of("m") - other.of("m")
    alone = _detectable(one, other, metric="m", groups=None)
    assert alone == pytest.approx(1.96 * d.std() / np.sqrt(40))
    single = _detectable(one, other, metric="m", groups={q: q for q in ids})
    assert single == pytest.approx(alone)
    # Four queries with one value in each group: as many units as groups.
    four = PerQuery(ids, {"m": np.repeat(rng.random(10), 4)})
    zero = PerQuery(ids, {"m": np.zeros(40)})
    groups = {q: str(i // 4) for i, q in enumerate(ids)}
    by_group = four.of("m")[::4].std() / np.sqrt(10)
    assert _detectable(four, zero, metric="m", groups=groups) == pytest.approx(1.96 * by_group)


def test_slices_stand_beside_the_primary(document):
    assert {row["name"] for row in document["slices"]} >= {"query length", "lexical overlap"}
    assert set(document["slices"][0]["systems"]) == {"bm25", "dense", "hybrid"}
    compared = [(r["system"], r["against"]) for r in document["slices"][0]["differences"]]
    assert compared == [("hybrid", "dense"), ("hybrid", "bm25")]


def test_the_same_command_gives_the_same_files(here, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "another-home"))  # no vector is cached
    assert cli(*everything(), "--out", tmp_path / "again", "--json").code == 0
    names = {path.name for path in (here / "all").iterdir()}
    assert names == {path.name for path in (tmp_path / "again").iterdir()}
    for name in names:
        again, before = (
            (folder / name).read_bytes() for folder in (tmp_path / "again", here / "all")
        )
        assert again == before, name


# BM25, run files and judgements


def test_no_model_is_bm25_alone_and_loads_no_torch(here):
    script = (
        "import sys\n"
        "from retrieval_ft.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'faiss', 'sentence_transformers'} & set(sys.modules)\n"
    )
    words = ["evaluate", "tiny", "--model", "none", "--run", "r=all/dense.trec", "--json", *FAST]
    found = python("-c", script, *words)
    assert found.code == 0, found.err
    assert list(found.document["systems"]) == ["bm25", "r"]
    assert found.document["model"] == "none" and "slices" not in found.document
    assert {(r["system"], r["against"]) for r in found.document["differences"]} == {("r", "bm25")}


@pytest.mark.parametrize("tsv", [False, True])
def test_run_files_alone_need_judgements_and_nothing_else(here, document, tmp_path, tsv):
    qrels = here / "all/qrels.trec"
    if tsv:
        qrels = tmp_path / "test.tsv"
        shutil.copy("tiny/qrels/test.tsv", qrels)
    script = (
        "import sys\n"
        "from retrieval_ft.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'faiss', 'sentence_transformers'} & set(sys.modules)\n"
    )
    words = ["evaluate", "--qrels", str(qrels), "--run", "a=all/hybrid.trec"]
    words += ["--run", "b=all/bm25.trec", "--set", "seed=13", "--json", *FAST[:2]]
    found = python("-c", script, *words)
    assert found.code == 0, found.err
    systems = found.document["systems"]
    assert systems == {"a": document["systems"]["hybrid"], "b": document["systems"]["bm25"]}
    of_all = next(r for r in document["differences"] if r["against"] == "bm25")
    row = found.document["differences"][0]
    assert (row["system"], row["against"]) == ("b", "a")
    assert (row["delta"], row["wins"]) == (pytest.approx(-of_all["delta"]), of_all["losses"])
    absent = found.document["runs"]["b"]["absent"]
    assert absent > 0 and f"b: all/bm25.trec has no result for {absent} of 26 queries" in found.err


@pytest.mark.parametrize(
    "words",
    [["--with", "a=b"], ["--rerank", "3"], ["--cluster"], ["--model", "x"]],
)
def test_without_a_corpus_what_needs_one_is_refused(here, words):
    run = ["--run", "a=all/hybrid.trec"]
    found = cli("evaluate", "--qrels", "all/qrels.trec", *run, *words)
    assert found.code == 2 and f"{words[0]}: needs a corpus; name a dataset folder" in found.err


def test_judgements_without_a_target_need_run_files_and_no_settings_of_data(here):
    alone = cli("evaluate", "--qrels", "all/qrels.trec")
    assert alone.code == 2 and "give them as --run NAME=FILE" in alone.err
    words = ["--run", "a=all/hybrid.trec", "--set", "model.base=x"]
    found = cli("evaluate", "--qrels", "all/qrels.trec", *words)
    assert found.code == 2 and "only seed and evaluation.* mean anything" in found.err


def lines(*rows):
    return "".join(f"{q} Q0 {p} 1 {score} tag\n" for q, p, score in rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lines(("q01", "p01", 1), ("q01", "nowhere", 0.5)), "1 of 2 results (50.0%) are not in"),
        (lines(("q01", "p01", 1), ("q01", "p01", 2)), "has passage 'p01' already at line 1"),
        (lines(("q01", "p01", "nan")), "is not a finite float32 number"),
        (lines(("x1", "p01", 1)), "none of its 1 queries is among the 26"),
        ("q01 p01 1\n", "3 columns, 6 are needed"),
        ("", "is empty"),
        (None, "no such run file"),
    ],
)
def test_a_run_file_whose_figures_would_mean_nothing_is_refused(here, tmp_path, text, said):
    path = tmp_path / "x.trec"
    if text is not None:
        path.write_text(text)
    found = cli("evaluate", "tiny", "--model", "none", "--run", f"x={path}")
    assert found.code == 3 and said in found.err and str(path) in found.err
    assert found.out == ""


def test_judgements_of_ones_own_take_the_place_of_the_test_split(here, dataset_folder, tmp_path):
    dataset = beir.read(dataset_folder)
    some = dataset.qrels["test"].query_ids[:9]
    mine = Qrels({q: {"p00": 1, "p07": 2} for q in some})
    write_qrels(tmp_path / "mine.trec", mine)
    words = ["evaluate", "tiny", "--model", "model", *FAST, "--json"]
    found = cli(*words, "--qrels", tmp_path / "mine.trec").document
    assert found["dataset"]["queries"] == 9
    bm25 = evaluate(read_trec_run(here / "all/bm25.trec"), mine)
    assert found["systems"]["bm25"] == bm25.means()


def test_judgements_of_what_is_not_there_are_refused_with_counts(here, tmp_path):
    for judged, said in (
        ({"q01": {"p00": 1}, "zz": {"p00": 1}}, "1 of 2 judged queries are not among the 74"),
        ({"q01": {"p00": 1, "zz": 0}}, "1 of 2 judged passages are not among the 40"),
    ):
        write_qrels(tmp_path / "bad.trec", Qrels(judged))
        found = cli("evaluate", "tiny", "--model", "none", "--qrels", tmp_path / "bad.trec")
        assert found.code == 3 and said in found.err and "'zz'" in found.err


def test_nothing_is_chosen_on_queries_that_are_measured(here, dataset_folder, tmp_path):
    dataset = beir.read(dataset_folder)
    dev, train = (dataset.qrels[split] for split in ("dev", "train"))
    rows = {**dev.grades, **{q: train.grades[q] for q in train.query_ids[:3]}}
    write_qrels(tmp_path / "mine.trec", Qrels(rows))
    words = ["evaluate", "tiny", "--model", "model", *FAST, "--json"]
    found = cli(*words, "--qrels", tmp_path / "mine.trec")
    count = len(dev) + 3
    assert f"3 of {count} judged queries are train queries of tiny" in found.err
    assert f"{len(dev)} of {count} judged queries are dev queries of tiny" in found.err
    assert len(found.document["warnings"]) == 2
    assert found.document["choices"]["fusion"]["method"] == "rrf"  # there is no dev any more


# The folder


def test_the_folder_holds_what_its_figures_are_made_of(here, document):
    assert json.loads((here / "all/metrics.json").read_text()) == document
    qrels = read_qrels(here / "all/qrels.trec")
    for name, means in document["systems"].items():
        found = evaluate(read_trec_run(here / f"all/{name}.trec"), qrels).means()
        assert found == pytest.approx(means, abs=1e-12), name
    report = (here / "all/report.md").read_text()
    assert report.startswith(f"# {len(document['systems'])} systems on tiny\n")
    for part in ("## Systems", "## Differences", "hybrid minus dense", "## Made by"):
        assert part in report


def test_two_folders_are_compared_as_two_runs_are(here, tmp_path):
    qrels = read_qrels(here / "all/qrels.trec")
    found = {q: sorted(qrels.relevant(q))[:1] for q in qrels.query_ids}
    words = ["evaluate", "--qrels", "all/qrels.trec", *FAST[:2]]
    for name, hits in (("good", found), ("bad", {q: ["p-none"] for q in found})):
        made = Ranking({q: (tuple(ids), np.ones(1, np.float32)) for q, ids in hits.items()})
        write_trec_run(tmp_path / f"{name}.trec", made, tag=name)
        run = f"a={tmp_path / name}.trec"
        assert cli(*words, "--run", run, "--out", tmp_path / name).code == 0
    assert cli("compare", tmp_path / "good", tmp_path / "good").code == 0
    fell = cli("compare", tmp_path / "bad", tmp_path / "good")
    assert fell.code == 4 and "a recall@10" in fell.out
    write_qrels(tmp_path / "other.trec", Qrels({qrels.query_ids[0]: {"p00": 1}}))
    words = ["evaluate", "--qrels", tmp_path / "other.trec", *FAST[:2]]
    assert cli(*words, "--run", "a=all/dense.trec", "--out", tmp_path / "else").code == 0
    refused = cli("compare", tmp_path / "else", tmp_path / "good")
    assert refused.code == 3 and "measured on different data (judgements" in refused.err


def test_measurements_over_another_corpus_are_refused(here, tmp_path):
    shutil.copytree("tiny", tmp_path / "tiny")
    with (tmp_path / "tiny/corpus.jsonl").open("a") as file:
        file.write('{"_id": "p99", "title": "", "text": "one more"}\n')
    for name, folder in (("now", tmp_path / "tiny"), ("then", here / "tiny")):
        words = ["evaluate", folder, "--model", "none", "--out", tmp_path / name]
        assert cli(*words, *FAST).code == 0
    refused = cli("compare", tmp_path / "now", tmp_path / "then")
    assert refused.code == 3 and "measured on different data (corpus" in refused.err


def test_a_folder_that_was_edited_is_refused(here, tmp_path):
    shutil.copytree("all", tmp_path / "edited")
    path = tmp_path / "edited/metrics.json"
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    refused = cli("compare", tmp_path / "edited", "all")
    assert refused.code == 3 and "metrics.json: damaged or edited" in refused.err


def test_a_place_that_holds_something_else_is_left_as_it_is(here, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for place in ("mine", "mine/thesis.txt"):
        words = ["evaluate", "tiny", "--model", "none", "--out", tmp_path / place]
        found = cli(*words)
        assert found.code == 2 and "is there already and is no folder that" in found.err
    for place in (".", "..", tmp_path / "mine/.."):
        found = cli("evaluate", "tiny", "--model", "none", "--out", place)
        assert found.code == 2 and "--out" in found.err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_an_earlier_measurement_is_replaced_whole(here, tmp_path):
    words = ["evaluate", "tiny", "--model", "none", "--out", tmp_path / "out", *FAST]
    assert cli(*words, "--run", "r=all/dense.trec").code == 0
    assert cli(*words).code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "bm25.trec" in names and "r.trec" not in names


def test_advice_can_be_had_from_a_measurement(here, document):
    facts = facts_of(document, source="all")
    assert facts["test_queries"] == 26
    assert facts["base_hybrid_recall_10"] == document["systems"]["hybrid"]["recall@10"]
    assert "Do first" in cli("advise", "all/metrics.json").out


def test_a_table_of_many_systems_shows_what_each_is_compared_with(here, document):
    table = cli(*everything()).out.splitlines()
    assert len(table) == 1 + len(document["systems"])
    assert "vs base" not in table[0] and table[0].rstrip().endswith("vs")
    row = next(line for line in table if line.startswith("second hybrid, RRF "))
    assert row.rstrip().endswith("hybrid, RRF")


def test_a_run_is_measured_with_the_fusion_that_it_chose(finished, outcome, tmp_path):
    found = cli("evaluate", "runs/tiny", "--out", tmp_path / "out", "--json")
    assert found.code == 0, found.err
    chosen = outcome.document["choices"]["tuned_fusion"]
    assert found.document["choices"]["fusion"] == chosen
    names = [{row["name"] for row in one.document["slices"]} for one in (found, outcome)]
    assert names[0] == names[1]
    refused = cli("compare", tmp_path / "out", "runs/tiny")
    assert refused.code == 3 and "a measurement and a run say in different ways" in refused.err


# Endpoints


def test_an_endpoint_is_measured_as_a_model_is_and_asked_once(here, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with embeddings_server.running() as server:
        words = ["evaluate", "tiny", "--model", "model", *FAST, "--json"]
        words += ["--endpoint", f"far={server.url}#any"]
        found = cli(*words)
        assert found.code == 0, found.err
        asked = len(server.requests)
        again = cli(*words)
        assert again.document["systems"] == found.document["systems"]
        assert len(server.requests) == asked > 0
    assert {"far_dense", "far_hybrid", "far_hybrid_rrf"} <= set(found.document["systems"])
    assert found.document["models"] == {"far": f"{server.url}#any"}
    assert "to which all passages and queries are sent as they are" in found.err
    down = cli(*words[:-2], "--endpoint", f"down={server.url}#other")
    assert down.code == 5 and "--endpoint down" in down.err and "cannot be reached" in down.err


def test_what_is_missing_is_told_before_a_text_is_encoded(here, monkeypatch):
    def never(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.setattr(measure, "rank_all", never)
    for words, code in (
        (["--with", "a=no/such/folder"], 5),
        (["--rerank", "3", "--cross-encoder", "./no-such-folder"], 5),
        (["--endpoint", "a=https://example.invalid/v1#m", "--api-key-variable", "NO_KEY"], 5),
        (["--run", "a=no.trec"], 3),
        (["--run", "hybrid=all/dense.trec"], 2),
        (["--out", "tiny"], 2),
    ):
        found = cli("evaluate", "tiny", "--model", "model", *words)
        assert found.code == code, found.err
