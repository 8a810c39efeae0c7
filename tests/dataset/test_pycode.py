import ast
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrieval_ft
from retrieval_ft.dataset import beir, builders
from retrieval_ft.dataset.builders.pycode import CodeRecipe, Wheel, first_sentence, functions, read
from retrieval_ft.dataset.builders.pycode_wheels import ALL, SMALL
from retrieval_ft.dataset.builders.recipe import normalise
from retrieval_ft.packages import PackageSource, home

BODY = "\n    total = 0\n    for {0} in bag:\n        total += {0}\n    return total\n"


def function(name, docstring, variable="x"):
    """A function of five lines; another variable makes it another function."""
    return f'def {name}(bag):\n    """{docstring}"""' + BODY.format(variable)


def rows_of(source):
    left_out = Counter()
    code = source if isinstance(source, bytes) else source.encode()
    return list(functions(code, left_out)), left_out


def test_a_function_is_its_source_without_the_docstring():
    source = '''
import os

class Shop:
    """Sells things."""

    @cached
    @cost(
        low=True)
    async def price(self, thing):
        """Look up what a thing costs.  It may be free.

        Parameters: none."""  # noqa
        # the till knows
        found = await self.till.get(thing)

        return found or 0
'''
    rows, left_out = rows_of(source)
    assert rows == [
        (
            "10:Shop.price",
            "@cached\n@cost(\n    low=True)\nasync def price(self, thing):\n    # the till knows\n"
            "    found = await self.till.get(thing)\n\n    return found or 0",
            "Look up what a thing costs.",
        )
    ]
    assert not left_out


def test_functions_below_conditions_are_found_and_those_in_functions_are_part_of_it():
    inner = '''
if fast:
    def add(bag):
        """Add up a bag."""
        def one(x):
            """Do one of many steps."""
            return x
        total = sum(map(one, bag))
        return total
else:
    try:
        class A:
            class B:
                def add(self, bag):
                    """Add up a bag slowly."""
                    total = 0
                    for x in bag:
                        total += x
                    return total
    except ImportError:
        pass
'''
    rows, left_out = rows_of(inner)
    assert [(name, query) for name, _, query in rows] == [
        ("3:add", "Add up a bag."),
        ("14:A.B.add", "Add up a bag slowly."),
    ]
    assert "def one(x)" in rows[0][1]
    assert not left_out


def without_docstring(node):
    fields = {name: value for name, value in ast.iter_fields(node) if name != "body"}
    return ast.dump(type(node)(**fields, body=node.body[1:]))


def test_every_function_of_this_package_keeps_its_code():
    folder = Path(retrieval_ft.__file__).parent
    seen = 0
    for file in sorted(folder.rglob("*.py")):
        left_out = Counter()
        nodes = {
            f"{node.lineno}:{node.name}": node
            for node in ast.walk(ast.parse(file.read_bytes()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for name, text, query in functions(file.read_bytes(), left_out):
            line, _, qualified = name.partition(":")
            node = nodes[f"{line}:{qualified.rpartition('.')[2]}"]
            assert ast.dump(ast.parse(text).body[0]) == without_docstring(node)
            assert normalise(query) in normalise(ast.get_docstring(node).replace("`", ""))
            seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def add(bag):" + BODY.format("x"), "functions without a docstring"),
        ('def f(x):\n    """Short as it is."""\n    return x\n', "functions under 4 lines"),
        (
            'def f(x):\n    """Long as it is."""\n' + "    x += 1\n" * 60,
            "functions over 60 lines",
        ),
        ('def f(x):\n    """Blank as it is."""\n    x += 1\n\n\n    return x\n', "under 4 lines"),
        ("@overload\n" + function("f", "Add up."), "overloads, setters and deleters"),
        ("@f.setter\n" + function("f", "Add up."), "overloads, setters and deleters"),
        ("@util.deprecated('2')\n" + function("f", "Add up."), "deprecated functions"),
        (function("f", "Deprecated way to add up."), "deprecated functions"),
        (function("f", "Add up.\n\n    .. deprecated:: 2\n    "), "deprecated functions"),
        (
            'def f(\n    a,\n    b,\n):\n    """To be done."""\n    raise NotImplementedError(a)\n',
            "functions without a body of their own",
        ),
        ('def f(\n    a,\n    b,\n):\n    """To be done."""\n    ...\n', "a body of their own"),
        ('def f(\n    a,\n    b,\n):\n    """Only words."""\n', "a body of their own"),
        ('def f(\n    a,\n    b,\n):\n    """Add."""; a += b\n    return a\n', "under 4 lines"),
        ("def f(:\n", "files that do not parse"),
        (b"# coding: no-such-coding\nx = 1\n", "files that do not parse"),
        (b"# caf\xe9\nx = 1\n", "files that do not parse"),
        (b"x = 1\x00\n", "files that do not parse"),
    ],
)
def test_what_is_no_passage_is_counted_by_its_reason(source, reason):
    rows, left_out = rows_of(source)
    assert rows == []
    ((found, number),) = left_out.items()
    assert reason in found
    assert number == 1


def test_an_old_parameter_does_not_make_a_function_deprecated():
    docstring = (
        "Add up.\n\n    Parameters\n    ----------\n    old\n        .. deprecated:: 2\n    "
    )
    rows, _ = rows_of(function("f", docstring))
    assert [query for _, _, query in rows] == ["Add up."]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_newlines_give_the_same_passage(encoding, newline):
    declared = f"# coding: {encoding}\n\x0c\n" if encoding == "latin-1" else "\n\x0c\n"
    code = declared + function("f", "Éléments are added up.", "é")
    ((name, text, query),), _ = rows_of(code.replace("\n", newline).encode(encoding))
    assert query == "Éléments are added up."
    assert text == "def f(bag):" + BODY.format("é").rstrip("\n")
    assert name.endswith(":f")


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Give the sum.", "Give the sum."),
        ("Give the sum", "Give the sum"),
        ("\n    Give\n      the sum. Slowly.\n\n    More.", "Give the sum."),
        ("Give the sum (i.e. add up, e.g. Bags). More.", "Give the sum (i.e. add up, e.g. Bags)."),
        ("Round 2.5 to 3. Then stop.", "Round 2.5 to 3."),
        ("Is it so? Yes.", "Is it so?"),
        ('Say "stop." Then go.', 'Say "stop."'),
        ("Call :meth:`~shop.Till.open` of ``x`` and `y <z>`_.", "Call shop.Till.open of x and y."),
        ("Call L{Till.open<shop.Till.open>} of C{x}.", "Call Till.open of x."),
        ("The |Till| of a shop", "The Till of a shop"),
        ("Give the sum of::\n    1 + 1", "Give the sum of:: 1 + 1"),
        ("Give this:", "Give this"),
        ("Give the sum\n    Parameters\n    ----------\n    x", "Give the sum"),
        ("Give the sum\n    :param x: y", "Give the sum"),
        ("Give the sum\n    >>> f()", "Give the sum"),
        ("The sum\n    =======\n    More.", "The sum"),
        (":param x: y", ""),
        ("Parameters\n    ----------", ""),
        ("", ""),
    ],
)
def test_the_first_sentence_is_plain_text(docstring, sentence):
    assert first_sentence(docstring) == sentence


@given(st.text())
def test_the_first_sentence_of_any_text_is_one_line(docstring):
    sentence = first_sentence(docstring)
    assert sentence == " ".join(sentence.split())


def wheel(folder, name, split, modules):
    """A wheel with a licence and some modules; what it holds is in a folder of its name."""
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for module, code in modules.items():
            file.writestr(f"{name}/{module}", code)
        file.writestr(f"{name}-1.dist-info/LICENSE", f"You may use {name}.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    package = PackageSource("pypi", name, "1", path.name, digest)
    return path, Wheel(package, split, "MIT", f"{name}-1.dist-info/LICENSE")


@pytest.mark.parametrize(
    ("docstring", "reason"),
    [
        ("Add it up.", "queries under 4 words"),
        (">>> f([1])", "docstrings without a sentence"),
        ("See the other function g.", "queries that point elsewhere"),
        ("Add up the {kind} of a bag.", "queries with a gap to fill in"),
        ("Add up the %(kind)s of a bag.", "queries with a gap to fill in"),
        ("Складывает всё, что есть в мешке.", "queries in other letters than English"),
        ("For x in bag, total.", "queries that stand in the passage"),
    ],
)
def test_what_is_no_query_is_counted_and_its_passage_stays(tmp_path, docstring, reason):
    path, made = wheel(tmp_path, "one", "train", {"a.py": function("f", docstring)})
    source = read({path: made})
    assert len(source.corpus) == 1
    assert source.judgements == ()
    assert {found: number for found, number in source.left_out.items() if number} == {reason: 1}


def test_tests_and_code_of_others_are_not_read(tmp_path):
    code = function("f", "Add up a whole bag.")
    names = ["tests/a.py", "b/test/a.py", "test_a.py", "conftest.py", "extern/a.py", "x.txt"]
    path, made = wheel(tmp_path, "one", "train", dict.fromkeys([*names, "z.py"], code))
    source = read({path: made})
    assert source.corpus.ids == ("one/z.py:1:f",)
    assert source.left_out["files of tests"] == 4
    assert source.left_out["files of other authors"] == 1


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three packages, one a split, that share sources and queries within and across splits."""
    sources = {
        "learn": (
            "train",
            function("a", "Add up a whole bag.")
            + function("a", "Sum all of a bag.")
            + function("b", "Count what a shop holds.", "y")
            + function("c", "Open the door of the shop.", "z"),
        ),
        "tune": ("dev", function("d", "Close the door of the shop.", "w")),
        "prove": (
            "test",
            function("a", "Give the sum of a bag.")
            + function("e", "COUNT what a shop holds", "v")
            + function("f", "Paint the door of the shop.", "u")
            + function("g", "Paint the door of the shop.", "t"),
        ),
    }
    folder = tmp_path_factory.mktemp("wheels")
    return dict(wheel(folder, name, s, {"m.py": code}) for name, (s, code) in sources.items())


def test_copies_are_one_passage_and_nothing_ties_two_splits(three):
    source = read(three)
    assert [i.split(":")[0] + i.rpartition(":")[2] for i in source.corpus.ids] == [
        *("learn/m.pya", "learn/m.pyb", "learn/m.pyc", "tune/m.pyd"),
        *("prove/m.pye", "prove/m.pyf", "prove/m.pyg"),
    ]
    assert source.left_out == {
        "copies of functions, their queries given to the first one": 1,
        "copies of functions of another split": 1,
        "queries of functions in two splits": 2,
    }
    recipe = CodeRecipe(tuple(three.values()), rule="as said", rule_version=1)
    dataset = recipe.arrange("made", source)
    asked = {
        split: {dataset.queries.text_of[q]: len(grades) for q, grades in qrels.grades.items()}
        for split, qrels in dataset.qrels.items()
    }
    assert asked == {
        "train": {
            "Add up a whole bag.": 1,
            "Sum all of a bag.": 1,
            "Open the door of the shop.": 1,
        },
        "dev": {"Close the door of the shop.": 1},
        "test": {"Paint the door of the shop.": 2},
    }


@given(data=st.data())
def test_a_query_is_in_the_split_of_its_packages(three, data):
    names = ("learn", "tune", "prove")
    splits = {name: data.draw(st.sampled_from(["train", "dev", "test"])) for name in names}
    wheels = {path: replace(w, split=splits[w.package.name]) for path, w in three.items()}
    source = read(wheels)
    dataset = CodeRecipe(tuple(wheels.values()), rule="", rule_version=1).arrange("m", source)
    for split, qrels in dataset.qrels.items():
        for grades in qrels.grades.values():
            assert {splits[passage_id.partition("/")[0]] for passage_id in grades} == {split}
    texts = Counter(normalise(text) for text in dataset.queries.texts)
    assert all(number == 1 for number in texts.values())
    assert set(dataset.queries.ids) == {q for r in dataset.qrels.values() for q in r.grades}


@pytest.fixture
def recipe(three, monkeypatch, tmp_path):
    """The three packages as a builder, already downloaded."""
    monkeypatch.setenv("RETRIEVAL_FT_HOME", str(tmp_path / "home"))
    (home() / "packages").mkdir(parents=True)
    for path in three:
        shutil.copy(path, home() / "packages")
    made = CodeRecipe(tuple(three.values()), rule="as said", rule_version=1)
    monkeypatch.setitem(builders.BUILDERS, "pycode", made)
    return made


def test_a_built_set_carries_the_licence_of_each_package(recipe, tmp_path):
    facts = builders.build("pycode", tmp_path / "data")
    assert facts == json.loads((tmp_path / "data" / "source.json").read_text())
    assert facts["licence"] == "learn: MIT; tune: MIT; prove: MIT"
    assert facts["source"].startswith("pypi package learn 1; pypi package tune 1;")
    notice = (tmp_path / "data" / "NOTICE.txt").read_text()
    assert all(f"You may use {name}." in notice for name in ("learn", "tune", "prove"))
    dataset = beir.read(tmp_path / "data")
    assert facts["counts"]["passages"] == len(dataset.corpus) == 7
    assert facts["counts"]["test_pairs"] == dataset.qrels["test"].pair_count == 2


def test_two_builds_give_the_same_bytes_and_another_wheel_builds_again(
    recipe, tmp_path, monkeypatch
):
    files = [builders.build("pycode", tmp_path / name)["files"] for name in ("one", "two")]
    assert files[0] == files[1]
    monkeypatch.setitem(builders.BUILDERS, "pycode", replace(recipe, wheels=recipe.wheels[:2]))
    assert builders.build("pycode", tmp_path / "one")["counts"]["passages"] == 4


def test_the_small_set_is_a_part_of_the_whole_one_with_every_split():
    assert set(SMALL.wheels) < set(ALL.wheels)
    assert {made.split for made in SMALL.wheels} == {"train", "dev", "test"}
    assert all(made.package.filename.endswith("-py3-none-any.whl") for made in SMALL.wheels)
    assert len({made.package.filename for made in ALL.wheels}) == len(ALL.wheels) == 17


@pytest.mark.slow
def test_the_real_pycode_small_has_the_counts_of_its_card_and_does_not_leak(tmp_path):
    facts = builders.build("pycode-small", tmp_path / "small")
    expected = {"passages": 4766, "train_queries": 2740, "dev_queries": 575, "test_queries": 1121}
    assert {key: facts["counts"][key] for key in expected} == expected
    dataset = beir.read(tmp_path / "small")
    packages = {
        split: {p.partition("/")[0] for grades in qrels.grades.values() for p in grades}
        for split, qrels in dataset.qrels.items()
    }
    assert packages == {
        "train": {"django", "xarray"},
        "dev": {"boltons", "scrapy"},
        "test": {"networkx"},
    }
