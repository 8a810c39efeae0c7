import ast

import pytest
import reader_words
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset.readers.code import parse
from retrieval_ft.dataset.readers.links import Links

PYTHON = '''"""What it does."""

import os

# Why it is here.
# More of it.
@cache
def first(a):
    return a


LIMIT = 3


class Second:
    def inner(self):
        pass
async def third(): pass
'''


def test_python_is_cut_at_its_top_level_functions_and_classes():
    parsed = parse(PYTHON, Links("tool/x.py"))
    assert parsed.title == "tool/x.py"
    assert reader_words.outline(parsed) == [
        ((), '"""What it does."""\n\nimport os'),
        (("first",), "# Why it is here.\n# More of it.\n@cache\ndef first(a):\n    return a"),
        ((), "LIMIT = 3"),
        (("Second",), "class Second:\n    def inner(self):\n        pass"),
        (("third",), "async def third(): pass"),
    ]


lines = st.sampled_from(
    [
        "x = 1",
        "# why",
        "",
        "def f():",
        "    y = 2",
        "class C: pass; z = 3",
        "@d",
        "s = '''",
        "# t'''",
    ]
)


@settings(deadline=None)
@given(st.lists(lines, max_size=12).map("\n".join))
def test_no_line_of_any_file_is_lost_or_moved(text):
    parsed = parse(text, Links("x.py"))
    read = "\n".join(section.text for section in parsed.sections)
    assert [line for line in read.split("\n") if line.strip()] == [
        line for line in text.split("\n") if line.strip()
    ]
    names = [name for section in parsed.sections for name in section.headings]
    try:
        body = ast.parse(text).body
    except SyntaxError:
        assert not names
    else:
        defined = [node.name for node in body if hasattr(node, "name")]
        assert names == defined


@pytest.mark.parametrize("text", ["def f(:\n  pass", "(" * 5_000, "print 'old'\ndef f(): pass"])
def test_python_that_does_not_parse_stays_one_section(text):
    assert reader_words.outline(parse(text, Links("x.py"))) == [((), text)]


def test_odd_escapes_are_not_told_on_stderr(recwarn, capfd):
    assert len(parse("def f():\n    return '\\d'\n", Links("x.py")).sections) == 1
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_other_languages_are_one_section():
    text = "fn main() {\n}\n\ndef f():\n    pass"
    assert reader_words.outline(parse(text, Links("src/main.rs"))) == [((), text)]
