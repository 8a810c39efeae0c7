"""Sets of other domains: which they are, how they are sampled, and what a run says of them."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny
from driver import cli
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft import artifacts
from retrieval_ft import config as configs
from retrieval_ft.dataset import Corpus, Dataset, Qrels, Queries, beir
from retrieval_ft.dataset.builders import SOURCE
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.pipeline import general
from retrieval_ft.pipeline.general import general_digest, general_folders, general_sets, sample


def other_domain():
    """The tiny dataset with every passage said backwards."""
    dataset = tiny.dataset()
    texts = tuple(" ".join(reversed(text.split())) for text in dataset.corpus.texts)
    return replace(dataset, name="other", corpus=replace(dataset.corpus, texts=texts))


def made(*, passages, dev=0, test=0, relevant=1):
    """A set of any size whose i-th query is about the i-th passages."""
    ids = tuple(f"p{i}" for i in range(passages))
    corpus = Corpus(ids, tuple(f"text {i}" for i in range(passages)), ("",) * passages)
    names = [f"q{i}" for i in range(dev + test)]
    rows = {
        name: {ids[(i * relevant + j) % passages]: 1 for j in range(relevant)}
        for i, name in enumerate(names)
    }
    qrels = {
        split: Qrels({name: rows[name] for name in part})
        for split, part in (("dev", names[:dev]), ("test", names[dev:]))
        if part
    }
    return Dataset("made", corpus, Queries(tuple(names), tuple(f"ask {n}" for n in names)), qrels)


def config_of(dataset_folder, **evaluation):
    raw = {"data": {"path": str(dataset_folder)}, "evaluation": evaluation}
    return configs.from_mapping(raw, source="test")


def built(folder, dataset):
    """A data set as a builder leaves it, as far as it is looked at."""
    beir.write(dataset, folder)
    artifacts.write_json(folder / SOURCE, {"name": folder.name})
    return folder


@given(
    st.integers(2, 40), st.integers(0, 12), st.integers(0, 12), st.integers(1, 3), st.integers(0, 9)
)
@settings(deadline=None)
def test_samples_never_meet_and_their_passages_are_all_there(passages, dev, test, relevant, seed):
    dataset = made(passages=passages, dev=dev, test=test, relevant=min(relevant, passages))
    if dev + test < 2 or not (dev or test):
        with pytest.raises(DataError, match="two at least are needed"):
            sample("made", dataset, seed=seed)
        return
    found = sample("made", dataset, seed=seed)
    assert found == sample("made", dataset, seed=seed)
    assert found.dev.qrels.grades and found.test.qrels.grades
    assert not set(found.dev.queries.texts) & set(found.test.queries.texts)
    for split, pool in (("dev", found.dev), ("test", found.test)):
        assert pool.queries.ids == pool.qrels.query_ids
        if dev and test:
            assert set(pool.qrels.query_ids) <= set(dataset.qrels[split].query_ids)
            assert found.remark == ""
        for query_id in pool.qrels.query_ids:
            assert pool.qrels.relevant(query_id) <= set(pool.corpus.ids)
    assert found.dev.corpus is found.test.corpus


def test_a_large_set_is_cut_to_size_by_the_seed():
    dataset = made(passages=4_000, dev=400, test=500)
    found = sample("made", dataset, seed=7)
    sizes = {"dev_queries": general.QUERIES, "test_queries": general.QUERIES}
    facts = {"name": "made", "passages": general.POOL, **sizes, "remark": ""}
    assert found.facts() == {**facts, "sha256": found.digest}
    assert found == sample("made", dataset, seed=7)
    other = sample("made", dataset, seed=8)
    assert other.test.queries.ids != found.test.queries.ids
    assert other.test.corpus.ids != found.test.corpus.ids


def test_a_set_of_long_passages_has_fewer_of_them():
    dataset = made(passages=4_000, dev=20, test=20)
    long = "x" * 2_000
    dataset = replace(dataset, corpus=replace(dataset.corpus, texts=(long,) * 4_000))
    found = sample("made", dataset, seed=7)
    assert len(found.test.corpus) == general.CHARACTERS / 2_000
    for pool in (found.dev, found.test):
        assert all(pool.qrels.relevant(q) <= set(pool.corpus.ids) for q in pool.queries.ids)


def test_queries_with_many_relevant_passages_are_fewer_not_the_pool_larger():
    found = sample("made", made(passages=6_000, dev=30, test=30, relevant=100), seed=7)
    assert len(found.dev.qrels) == len(found.test.qrels) == 10
    assert len(found.test.corpus) == general.POOL


@pytest.mark.parametrize(("split", "sizes"), [("test", {"test": 9}), ("dev", {"dev": 9})])
def test_a_set_with_one_of_dev_and_test_is_halved_and_says_so(split, sizes):
    found = sample("made", made(passages=20, **sizes), seed=7)
    assert sorted((len(found.dev.qrels), len(found.test.qrels))) == [4, 5]
    assert found.remark == f"brings {split} only; half of its queries serve as dev"


def test_a_dev_query_that_test_asks_too_is_left_out():
    dataset = made(passages=20, dev=3, test=3)
    asked = list(dataset.queries.texts)
    asked[0] = asked[3]
    dataset = replace(dataset, queries=Queries(dataset.queries.ids, tuple(asked)))
    assert sample("made", dataset, seed=7).dev.qrels.query_ids == ("q1", "q2")


def test_a_query_without_a_relevant_passage_is_not_drawn():
    dataset = made(passages=20, dev=3, test=3)
    grades = {**dataset.qrels["test"].grades, "q3": {"p0": 0}}
    dataset = replace(dataset, qrels={**dataset.qrels, "test": Qrels(grades)})
    assert sample("made", dataset, seed=7).test.qrels.query_ids == ("q4", "q5")


def test_auto_takes_what_a_builder_left_here_and_nothing_else(
    tmp_path, monkeypatch, dataset_folder
):
    monkeypatch.chdir(tmp_path)
    config = config_of(dataset_folder)
    assert general_folders(config) == {} == general_digest(config)
    beir.write(other_domain(), tmp_path / "data" / "cwe")  # no source.json: someone else's
    built(tmp_path / "data" / "hpo", other_domain())
    assert list(general_folders(config)) == ["hpo"]
    (found,) = general_sets(config, beir.read(dataset_folder))
    assert (found.name, len(found.test.corpus)) == ("hpo", 40)
    assert (len(found.dev.qrels), len(found.test.qrels)) == (8, 26)


def test_auto_never_takes_the_target(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = built(tmp_path / "data" / "hpo", tiny.dataset())
    by_folder = config_of("data/hpo")
    by_name = configs.from_mapping({"data": {"builder": "hpo"}}, source="test")
    monkeypatch.setattr(
        general, "source_folder", lambda data: folder
    )  # it stands: nothing is built
    assert general_folders(by_folder) == {} == general_folders(by_name)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    beir.write(tiny.dataset(), tmp_path / "a-copy")
    part = tiny.dataset().corpus.select([f"p{i:02}" for i in range(9)])
    for target in (tiny.dataset(), replace(tiny.dataset(), corpus=part)):
        assert general_sets(config_of("a-copy"), target) == ()
        said = "general set hpo: not used, it shares passages with the target set (100% of the"
        assert said in capsys.readouterr().err


def test_auto_takes_one_of_two_sets_that_share_their_passages(
    tmp_path, monkeypatch, dataset_folder, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("cwe", "hpo"):
        built(tmp_path / "data" / name, other_domain())
    (found,) = general_sets(config_of(dataset_folder), tiny.dataset())
    assert found.name == "cwe"
    assert "general set hpo: not used, it shares passages with cwe" in capsys.readouterr().err


def test_auto_takes_no_more_than_its_number_and_names_the_rest(
    tmp_path, monkeypatch, dataset_folder, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(general, "AUTO_SETS", 1)
    built(tmp_path / "data" / "cwe", other_domain())
    built(tmp_path / "data" / "hpo", made(passages=20, dev=3, test=3))
    (found,) = general_sets(config_of(dataset_folder), tiny.dataset())
    assert found.name == "cwe"
    assert "general sets not used: hpo; name them in evaluation.general" in capsys.readouterr().err


def test_the_identity_of_a_set_is_that_of_its_files(tmp_path, dataset_folder):
    beir.write(other_domain(), tmp_path / "other")
    config = config_of(dataset_folder, general=[str(tmp_path / "other")])
    before = general_digest(config)
    assert list(before) == ["other"] and "qrels/test.tsv" in before["other"]
    (tmp_path / "other" / "notes.txt").write_text("not read")
    assert general_digest(config) == before
    beir.write_qrels(tmp_path / "other" / "qrels" / "test.tsv", {"q00": {"p00": 1}})
    assert general_digest(config) != before


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (["cwee"], "'cwee' is no built-in set (cwe, hpo"),
        (["cwee"], "Did you mean 'cwe'?"),
        (["nowhere"], "no folder in BEIR layout (there is no nowhere/corpus.jsonl)"),
        (["a/other", "b/other"], "two sets are called 'other'"),
        (["tiny"], "'tiny' is the target set itself, so it cannot show what was forgotten"),
    ],
)
def test_a_set_that_cannot_be_used_is_told_by_name(tmp_path, monkeypatch, named, told):
    monkeypatch.chdir(tmp_path)
    tiny.tiny_dataset(tmp_path / "tiny")
    for folder in ("a", "b"):
        beir.write(other_domain(), tmp_path / folder / "other")
    with pytest.raises(ConfigError) as error:
        general_folders(config_of("tiny", general=named))
    assert told in str(error.value) and error.value.exit_code == 2


def test_a_named_set_that_holds_the_target_is_refused(tmp_path, dataset_folder):
    tiny.tiny_dataset(tmp_path / "a-copy")
    config = config_of(dataset_folder, general=[str(tmp_path / "a-copy")])
    with pytest.raises(ConfigError, match="shares passages with the target set"):
        general_sets(config, tiny.dataset())


def test_a_fault_in_their_names_is_told_before_anything_is_done(fresh):
    found = cli("train", "tiny.yaml", "--set", "evaluation.general=[nowhere]")
    assert found.code == 2
    assert "evaluation.general: 'nowhere'" in found.err
    assert not (fresh / "runs/tiny/dataset").exists()


def test_a_run_says_what_was_forgotten_and_a_changed_set_redoes_it(fresh):
    dataset = other_domain()
    beir.write(dataset, fresh / "other")
    (fresh / "other/qrels/dev.tsv").unlink()
    command = ["train", "tiny.yaml", "--json", "--set", "evaluation.general=[other]"]
    found = cli(*command)
    assert found.code in (0, 4), found.err
    forgetting = found.document["forgetting"]
    (one,) = forgetting["sets"]
    assert (one["name"], one["passages"]) == ("other", 40)
    assert (one["dev_queries"], one["test_queries"]) == (13, 13)
    for row in one["differences"]:
        base, tuned = (one["systems"][name][row["metric"]] for name in ("base", "tuned"))
        assert row["delta"] == pytest.approx(tuned - base)
        assert row["ci"][0] <= row["delta"] <= row["ci"][1]
    assert [row["metric"] for row in one["differences"]] == ["recall@10", "ndcg@10"]
    *tried, base = forgetting["alphas"]
    assert tried[0]["alpha"] == 1.0 and base["alpha"] == 0.0
    assert all(
        0 <= row[axis] <= 1 for row in forgetting["alphas"] for axis in ("target", "general")
    )
    assert found.document["choices"]["soup_alpha"] in [row["alpha"] for row in tried]
    assert forgetting["why"] and forgetting["why"] in found.err
    report = (fresh / "runs/tiny/report.md").read_text()
    assert "## What it forgot" in report and "| other | 13 | 40 | R@10 |" in report
    assert "other: brings test only; half of its queries serve as dev." in report
    metrics = json.loads((fresh / "runs/tiny/eval/metrics.json").read_text())
    assert metrics["general"] == forgetting["sets"]
    assert (fresh / "runs/tiny/eval/general/other/per_query.parquet").is_file()

    assert cli(*command).redone == []
    shutil.copytree(fresh / "runs/tiny", fresh / "runs/before")
    compared = cli("compare", "runs/tiny", "runs/before", "--json")
    assert compared.code == 0, compared.err
    systems = {row["system"] for row in compared.document["rows"]}
    assert {"general other base", "general other tuned", "tuned_hybrid"} <= systems
    beir.write_qrels(fresh / "other/qrels/test.tsv", {"q00": {"p00": 1}, "q01": {"p01": 1}})
    assert cli(*command).redone[:2] == ["train", "evaluate"]
    refused = cli("compare", "runs/tiny", "runs/before")
    assert refused.code == 3 and "general other" in refused.err
    assert cli("compare", "runs/tiny", "runs/before", "--system", "bm25").code == 0


def test_without_a_general_set_the_report_says_how_to_have_one(finished, outcome):
    forgetting = outcome.document["forgetting"]
    assert forgetting["sets"] == [] and forgetting["why"] == ""
    assert all(row["general"] is None for row in forgetting["alphas"])
    report = (finished / "report.md").read_text()
    assert "Not measured: there was no set of another domain." in report
    assert "retrieval-ft data build hpo" in report


def test_queries_without_the_prompt_are_measured_beside_the_rest(finished, outcome):
    document = outcome.document
    names = ("base_dense_no_prompt", "tuned_dense_no_prompt")
    assert tuple(document["systems"])[-2:] == names
    for name in names:
        assert document["systems"][name] != document["systems"][name.removesuffix("_no_prompt")]
    compared = {row[side] for row in document["differences"] for side in ("system", "against")}
    assert not compared & set(names)
    assert "tuned dense, no prompt" in (finished / "report.md").read_text()


def test_the_figure_without_the_prompt_is_that_of_a_config_that_has_none(finished, outcome):
    bare = ["--set", "model.query_prompt=''", "--set", "model.passage_prompt=''"]
    found = cli("evaluate", "tiny.yaml", "--model", "runs/tiny/checkpoints/tuned", "--json", *bare)
    assert found.code == 0, found.err
    figures = outcome.document["systems"]["tuned_dense_no_prompt"]
    assert found.document["systems"]["dense"] == pytest.approx(figures)


def test_a_model_without_a_prompt_has_no_such_system(fresh):
    found = cli(
        "train", "tiny.yaml", "--json", "--set", "model.query_prompt=''",
        "--set", "training.max_steps=2",
    )  # fmt: skip
    assert found.code in (0, 4), found.err
    assert not [name for name in found.document["systems"] if "no_prompt" in name]
