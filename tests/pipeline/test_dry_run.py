from driver import cli

from retrieval_ft.config import from_mapping, load


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def test_it_changes_nothing(fresh, home):
    before = tree(fresh), tree(home)
    assert cli("train", "tiny.yaml", "--dry-run").code == 0
    assert (tree(fresh), tree(home)) == before
    assert not (fresh / "runs").exists()


def test_it_says_what_a_run_would_do(fresh):
    found = cli("train", "tiny.yaml", "--dry-run", "--json")
    assert found.code == 0, found.err
    plan = found.document
    assert from_mapping(plan["config"], source="plan") == load(fresh / "tiny.yaml")
    counts = {"passages": 40, "train_pairs": 44, "train_queries": 40, "dev_queries": 8}
    assert counts.items() <= plan["dataset"].items()
    assert plan["tokens"]["passage"] == {
        "mean": 10.0,  # title, "the", title, a doing, four words of a place, [CLS] and [SEP]
        "p50": 10,
        "p95": 10,
        "truncated_share": 0.0,
    }
    assert plan["steps"] == 15 * 5  # epochs x ceil(44 pairs / 10)
    assert plan["estimate"]["tokens_per_second"] > 0 and plan["estimate"]["minutes"] >= 0
    assert len(plan["first_triplets"]) == 3
    for triplet in plan["first_triplets"]:
        assert set(triplet) == {"query", "positive", "negative"}
        assert triplet["positive"] != triplet["negative"]


def test_it_says_so_in_words(fresh):
    out = cli("train", "tiny.yaml", "--dry-run").out
    for words in (
        "learning_rate: 0.003",
        "passages 40, train_pairs 44, train_queries 40, dev_queries 8, test_queries 26",
        "passage tokens: mean 10.0, median 10, 95% 10; 0.0% are cut",
        "75 steps; about",
        "tokens a second encoded (fp32: asked for)",
        "triplet 1",
        "  query: ",
        "  positive: ",
        "  negative: ",
    ):
        assert words in out


def test_it_reports_truncation(fresh):
    plan = cli("train", "tiny.yaml", "--dry-run", "--json", "--set", "model.max_length=16").document
    assert plan["tokens"]["passage"]["truncated_share"] == 0.0
    long = "'" + "find the old town " * 4 + "'"
    prompted = ["--set", "model.max_length=16", "--set", f"model.passage_prompt={long}"]
    plan = cli("train", "tiny.yaml", "--dry-run", "--json", *prompted).document
    assert plan["tokens"]["passage"]["truncated_share"] == 1.0


def test_it_finds_faults_in_the_data_before_a_run_does(fresh):
    found = cli("train", "tiny.yaml", "--dry-run", "--set", "data.path=nowhere")
    assert found.code == 3
    assert "nowhere: no such file or folder" in found.err


def test_it_runs_on_a_finished_run_and_leaves_it(copied):
    before = tree(copied)
    assert cli("train", copied, "--dry-run").code == 0
    assert tree(copied) == before
