"""An index that is changed from the command line while it is in use."""

import json

import pytest
from driver import cli

from retrieval_ft.index import HybridIndex


@pytest.fixture
def live(copied, model_folder, tmp_path):
    """An index of the tiny run's promoted model, apart from the run."""
    assert cli("index", "runs/tiny", "--out", "live").code == 0
    return copied.parents[1] / "live"


def rows(path, passages):
    lines = (json.dumps({"_id": i, "text": t, "metadata": m}) for i, (t, m) in passages.items())
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def added(live, tmp_path, command="add"):
    folder = tmp_path / "more"
    folder.mkdir(exist_ok=True)
    rows(
        folder / "corpus.jsonl",
        {
            "unicorn": ("a unicorn eats the fox", {"kind": "tale", "year": 2021}),
            "dragon": ("a dragon guards the river", {"kind": "tale", "year": 2023}),
        },
    )
    return cli("index", command, live, folder, "--json")


def ids(*words):
    found = cli("search", *words, "--json")
    assert found.code == 0, found.err
    return [hit["id"] for hit in found.document["hits"]]


def test_what_is_added_is_found_and_what_is_deleted_is_not(live, tmp_path):
    found = added(live, tmp_path)
    assert found.code == 0, found.err
    assert (found.document["added"], found.document["replaced"]) == (2, 0)
    assert found.document["passages"] == 42
    assert "unicorn" in ids("unicorn", "--index", live)
    assert "dragon" in ids("a dragon guards", "--index", live, "--mode", "dense", "-k", "42")
    assert cli("index", "delete", live, "unicorn", "--json").document["deleted"] == 1
    assert "unicorn" not in ids("unicorn", "--index", live, "-k", "50")
    before = cli("index", "info", live, "--json").document
    assert (before["counts"]["passages"], before["counts"]["deleted"]) == (41, 1)
    assert (before["changes"], before["generation"]) == (2, 3)
    done = cli("index", "compact", live, "--json").document
    assert done["passages"] == 41 and done["bytes"] < done["bytes_before"]
    assert cli("index", "verify", live, "--json").document["whole"] is True
    assert not any(b"unicorn" in p.read_bytes() for p in live.rglob("*") if p.is_file())


def test_adding_what_is_there_is_refused_and_upsert_replaces_it(live, tmp_path):
    added(live, tmp_path)
    again = added(live, tmp_path)
    assert again.code == 3
    assert "'unicorn' is in the index already (2 of 2 are); upsert replaces" in again.err
    found = added(live, tmp_path, "upsert")
    assert (found.document["added"], found.document["replaced"]) == (0, 2)
    assert found.document["passages"] == 42


def test_filters_on_the_command_line(live, tmp_path):
    added(live, tmp_path)
    where = ["--index", live, "-k", "50", "--where"]
    assert set(ids("fox river", *where, "kind=tale")) == {"unicorn", "dragon"}
    assert ids("fox river", *where, '{"year": {"$gt": 2021}}') == ["dragon"]
    assert ids("fox river", *where, "kind=tale", "--where", "year=2021") == ["unicorn"]
    assert ids("fox river", *where, "kind=none") == []
    wrong = cli("search", "fox", *where, '{"year": {"$above": 1}}')
    assert wrong.code == 2 and "$above" in wrong.err and "$gt" in wrong.err
    gone = cli("index", "delete", live, "--where", "kind=tale", "--json")
    assert gone.document["deleted"] == 2


def test_ids_to_delete_are_read_from_stdin(live):
    some = ids("fox", "--index", live, "--mode", "bm25")[:2]
    gone = cli("index", "delete", live, "-", "--json", stdin="".join(f"{i}\n" for i in some))
    assert gone.document["deleted"] == 2
    missing = cli("index", "delete", live, some[0])
    assert missing.code == 3 and f"{some[0]!r} is not in the index" in missing.err
    ignored = cli("index", "delete", live, some[0], "--ignore-missing", "--json")
    assert ignored.document["deleted"] == 0
    nothing = cli("index", "delete", live)
    assert nothing.code == 2 and "nothing to delete" in nothing.err


def test_metadata_changes_without_the_text(live, tmp_path):
    first = ids("fox", "--index", live, "--mode", "bm25")[0]
    changes = tmp_path / "changes.jsonl"
    changes.write_text(json.dumps({"_id": first, "metadata": {"seen": True}}) + "\n")
    found = cli("index", "update-metadata", live, changes, "--json")
    assert found.code == 0, found.err
    assert found.document["changed"] == 1
    assert ids("fox", "--index", live, "--where", "seen=true", "-k", "50") == [first]
    for text, words in (
        ("{}", 'changes.jsonl:1: lacks "_id"'),
        ('{"_id": "x", "metadata": []}', "changes.jsonl:1: "),
        ('{"_id": "nobody", "metadata": {}}', "'nobody' is not in the index"),
        ('{"_id": "x", "metadata": {}}\n{"_id": "x", "metadata": {}}', "changes.jsonl:2: "),
    ):
        changes.write_text(text)
        wrong = cli("index", "update-metadata", live, changes)
        assert wrong.code == 3 and words in wrong.err


def test_another_model_takes_over(live, model_folder):
    before = HybridIndex.load(live)
    assert cli("index", "rebuild", live, "--model", model_folder, "--json").code == 0
    after = HybridIndex.load(live)
    assert after.spec.encoder_fingerprint != before.spec.encoder_fingerprint
    assert after.spec.encoder_path == str(model_folder)
    assert len(after) == len(before) == 40
    assert len(ids("fox", "--index", live)) == 10
    assert cli("index", "gc", live, "--json").document["removed"] == []


def test_a_runs_index_that_was_changed_is_not_built_over(copied, tmp_path):
    assert added(copied / "index", tmp_path).code == 0
    for words in (["train", "tiny.yaml"], ["index", "runs/tiny"]):
        found = cli(*words)
        assert found.code == 3
        assert "passages were added or deleted since" in found.err
    assert len(HybridIndex.load(copied / "index")) == 42


def test_queries_are_read_line_by_line(live):
    words = ["search", "--index", live, "-k", "1", "--mode", "bm25"]
    found = cli(*words, stdin="fox\n\nriver\n")
    assert found.code == 0, found.err
    heads = [line for line in found.out.splitlines() if line.split()[:2] == ["#", "score"]]
    assert len(heads) == 2


def test_an_explained_hit_names_its_terms_and_where_they_stand(live):
    found = cli("search", "the foxes", "--index", live, "--explain", "--json", "--mode", "bm25")
    hit = found.document["hits"][0]["explain"]
    assert hit["terms"] == ["fox"]
    for begin, end in hit["spans"]:
        assert hit["text"][begin:end].casefold() == "fox"
    assert hit["spans"]


def test_depth_is_how_much_of_each_side_is_fused(live):
    for depth in (3, 30):
        words = ["--index", live, "--depth", depth, "-k", "3", "--json"]
        hits = cli("search", "the fox and the river", *words).document["hits"]
        ranks = [hit[side] for hit in hits for side in ("bm25_rank", "dense_rank") if hit[side]]
        assert max(ranks) <= depth


def test_rank_bm25_finds_the_same(live, tmp_path):
    added(live, tmp_path)
    words = ["the fox and the river", "--index", live, "--mode", "bm25"]
    assert ids(*words, "--engine", "rank_bm25") == ids(*words)
    wrong = cli("search", *words, "--engine", "lucene")
    assert wrong.code == 2 and "choose one of impacts, rank_bm25" in wrong.err


def test_tenants_are_kept_apart(copied, tmp_path, model_folder):
    folder = tmp_path / "tenants"
    folder.mkdir()
    texts = {f"{t}{i}": (f"the {t} fox number {i}", {"tenant": t}) for t in "ab" for i in range(3)}
    rows(folder / "corpus.jsonl", texts)
    words = ["--model", model_folder, "--out", "apart", "--set", "index.tenant_key=tenant"]
    assert cli("index", folder, *words).code == 0
    refused = cli("search", "fox", "--index", "apart")
    assert refused.code == 2 and "--tenant VALUE" in refused.err
    assert {i[0] for i in ids("fox", "--index", "apart", "--tenant", "b")} == {"b"}
    where = ["--where", "tenant=a"]
    assert ids("fox", "--index", "apart", "--tenant", "b", *where) == []


def test_commands_on_a_folder_without_an_index_say_so(fresh, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for command in ("info", "verify", "compact", "gc"):
        found = cli("index", command, empty)
        assert found.code == 3
        assert "no index here" in found.err
    assert list(empty.iterdir()) == []
