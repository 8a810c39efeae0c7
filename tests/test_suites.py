"""Suites of eval/: their files, what they tell, and the table that stands in the README."""

import json
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).resolve().parents[1]
SUITE = "model: {model}\nsystems: [bm25, dense, hybrid, hybrid_rrf, rank_bm25]\nsets:\n"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "eval"))
    import bench_suites

    return bench_suites


@pytest.fixture
def suite(tmp_path):
    """Write a suite over the tiny model; return its file."""
    model = tiny.tiny_model(tmp_path / "model")

    def write(*sets: str) -> Path:
        file = tmp_path / "mine.yaml"
        rows = "".join(f"  - {row}\n" for row in sets)
        file.write_text(SUITE.format(model=model) + rows, encoding="utf-8")
        return file

    return write


@pytest.mark.parametrize(("folder", "made"), [("eval", "recorded"), ("data", "cards")])
def test_the_tables_of_the_readmes_are_those_of_the_recorded_results(bench, folder, made):
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    wanted = getattr(bench.suite_table, made)(ROOT / "eval/results")
    assert bench.suite_table.between(readme) == wanted, "run `python eval/bench_suites.py --table`"


def test_every_shipped_suite_names_known_sets_and_systems(bench):
    import suite_file
    import yaml

    from retrieval_ft.dataset.builders import BUILDERS

    for file in sorted((ROOT / "eval/suites").glob("*.yaml")):
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = suite_file.Suite.model_validate({"name": file.stem, **raw})
        assert {spec.set for spec in found.sets} <= set(BUILDERS)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("nonesuch", "'nonesuch' is no built-in set"),
        ("cwee", "Did you mean 'cwe'?"),
        ("{set: cwe, passages: 3}", "sets.0.passages: Input should be greater than or equal to 10"),
        ("{sett: cwe}", "sets.0.set: Field required"),
    ],
)
def test_a_fault_in_a_suite_is_one_line_and_exit_2(bench, suite, capsys, row, says):
    assert bench.main(["--suite", str(suite(row))]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and says in err


def test_a_built_in_set_that_is_not_built_says_how_to(bench, suite, capsys, monkeypatch, tmp_path):
    import suite_file

    monkeypatch.setattr(suite_file, "DATA", tmp_path)
    assert bench.main(["--suite", str(suite("hpo"))]) == 2
    assert "run `retrieval-ft data build hpo`" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["nonesuch", "nonesuch.yaml"])
def test_an_unknown_suite_names_those_there_are(bench, capsys, given):
    assert bench.main(["--suite", given]) == 2
    assert "known by name: full, quick, standard" in capsys.readouterr().err


def test_two_sets_of_one_name_are_refused(bench, suite, capsys, tmp_path):
    for name in ("a", "b"):
        tiny.tiny_dataset(tmp_path / name / "same")
    assert bench.main(["--suite", str(suite(tmp_path / "a/same", tmp_path / "b/same"))]) == 2
    assert "two are called 'same'" in capsys.readouterr().err


def test_a_suite_measures_as_our_evaluator_does_and_takes_up_where_it_stopped(
    bench, suite, capsys, monkeypatch, tmp_path
):
    from retrieval_ft.dataset import beir
    from retrieval_ft.evaluation import evaluate
    from retrieval_ft.index import LexicalIndex, LexicalSpec, rank_lexical

    monkeypatch.setattr(bench, "record", lambda name, document: None)
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))
    folder = tiny.tiny_dataset(tmp_path / "tiny")
    words = ["--suite", str(suite(folder)), "--work", str(tmp_path / "work"), "--json"]
    assert bench.main(words) == 0
    first = json.loads(capsys.readouterr().out)
    found = first["sets"]["tiny"]
    dataset = beir.read(folder)
    corpus, qrels = dataset.corpus, dataset.qrels["test"]
    index = LexicalIndex.build(corpus.ids, corpus.passages, spec=LexicalSpec())
    ranking = rank_lexical(index, dataset.queries_of("test"), k=100)
    wanted = evaluate(ranking, qrels, metrics=("recall@10", "ndcg@10")).means()
    assert {m: found["systems"]["bm25"][m] for m in wanted} == pytest.approx(wanted)
    assert first["figures"]["tiny_bm25_recall@10"] == found["systems"]["bm25"]["recall@10"]
    pairs = {(row["system"], row["against"]) for row in found["differences"]}
    assert ("bm25", "rank_bm25") in pairs and ("hybrid", "dense") in pairs

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(bench.suite_systems, "measure", never)
    assert bench.main(words) == 0
    assert json.loads(capsys.readouterr().out) == first
    # A file of the set has changed: what was kept is of no use.
    path = folder / "qrels/test.tsv"
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    with pytest.raises(AssertionError, match="measured again"):
        bench.main(words)


def test_a_peer_that_is_not_installed_is_missing_and_not_beaten(
    bench, suite, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(bench, "record", lambda name, document: None)
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(bench.suite_systems.PACKAGES, "rank_bm25", ("no_such_module", "no-such"))
    folder = tiny.tiny_dataset(tmp_path / "tiny")
    assert bench.main(["--suite", str(suite(folder)), "--work", str(tmp_path / "work")]) == 0
    out = capsys.readouterr().out
    assert "| rank_bm25 | missing | missing |  |  |" in out
    assert "rank_bm25 missing: run `make peers`" in out
    assert "minus_rank_bm25" not in out


def test_unlabelled_near_duplicates_of_relevant_passages_are_counted(bench):
    from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries

    texts = ("a b c d e", "a b c d e", "e d c b a", "v w x y z", "a b c d")
    corpus = Corpus(tuple("pqrst"), texts, ("",) * 5)
    qrels = Qrels({"1": {"p": 1, "q": 0}, "2": {"s": 1}, "3": {"t": 1}})
    queries = Queries(("1", "2", "3"), ("one", "two", "three"))
    found = bench.suite_systems.near_duplicates(Dataset("d", corpus, queries, {"test": qrels}))
    # 1: r has the words of p, and t four of its five; q is judged. 2: none. 3: p, q and r.
    assert found["test_queries_with_unlabelled"] == 2
    assert found["share_of_test_queries"] == 2 / 3
    assert found["unlabelled_passages"] == 4


def test_numbers_of_the_table_keep_their_sign_and_lose_the_zero_in_front(bench):
    table = bench.suite_table
    assert [table.number(v) for v in (0.5304, 1.0, 0.0)] == [".530", "1.000", ".000"]
    shown = [table.signed(v) for v in (0.0181, -0.0023, 0.0001, -0.0001)]
    assert shown == ["+.018", "\N{MINUS SIGN}.002", ".000", ".000"]


def test_tables_are_written_between_their_markers_and_nowhere_else(bench, tmp_path):
    table = bench.suite_table
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", encoding="utf-8")
    table.write(readme, "new")
    assert readme.read_text() == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    assert table.between(readme.read_text()) == "new"
    readme.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the markers"):
        table.write(readme, "new")
