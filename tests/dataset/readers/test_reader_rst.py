import pytest
import reader_words
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.dataset import Link
from retrieval_ft.dataset.readers.links import Links
from retrieval_ft.dataset.readers.reading import Fault
from retrieval_ft.dataset.readers.rst import parse

LINKS = Links("guide/a.rst", frozenset({"guide/b.rst", "x.rst"}))
phrase = reader_words.phrases


def joined(*parts):
    return st.tuples(*parts).map("".join)


inline = st.one_of(
    phrase,
    phrase.map(lambda t: f"**{t}** and ``{t}``"),
    phrase.map(lambda t: f":ref:`{t} <place>` :class:`{t}`"),
    phrase.map(lambda t: f"`{t} <b.rst>`_ and {t}__"),
    phrase.map(lambda t: f"|{t}| and `{t}`_"),
)
block = st.one_of(
    inline,
    phrase.map(lambda t: f"{t}\n{'=' * 80}"),
    phrase.map(lambda t: f"{t}\n{'-' * 80}"),
    phrase.map(lambda t: f"{'*' * 80}\n{t}\n{'*' * 80}"),
    st.lists(inline, min_size=1).map(lambda items: "\n".join(f"* {item}" for item in items)),
    st.lists(inline, min_size=1).map(lambda items: "\n".join(f"#. {item}" for item in items)),
    joined(st.just("::\n\n   "), phrase),
    joined(phrase, st.just("\n   "), phrase),
    joined(st.just(":"), reader_words.words, st.just(": "), phrase),
    joined(st.just(".. note:: "), phrase, st.just("\n\n   "), inline),
    joined(st.just(".. versionadded:: "), phrase, st.just("\n   "), inline),
    joined(st.just(".. own:thing:: "), phrase, st.just("\n\n   .. other::\n\n      "), inline),
    joined(st.just(".. code-block:: py\n   :caption: "), phrase, st.just("\n\n   "), phrase),
    joined(st.just("===== =====\n"), phrase, st.just("\n===\n"), phrase, st.just("\n=====")),
    joined(st.just("+---+\n| "), phrase, st.just(" |\n+---+")),
    joined(st.just("[1]_\n\n.. [1] "), phrase),
    joined(st.just("| "), phrase, st.just("\n| "), phrase),
)


def seen(text):
    for mark in (":ref:", "<place>", ":class:", "<b.rst>", ".. note::", ".. versionadded::"):
        text = text.replace(mark, " ")
    for mark in (".. own:thing::", ".. other::", ".. code-block:: py", ":caption:", "__", "_"):
        text = text.replace(mark, " ")
    return text


@settings(deadline=None)
@given(st.lists(block, max_size=6).map("\n\n".join))
def test_every_word_of_a_document_is_found(text):
    assert not reader_words.lost(seen(text), parse(text, LINKS))


@settings(deadline=None)
@given(st.text(alphabet="ab \n=-*:|`", max_size=50))
def test_every_letter_of_any_text_is_found(text):
    found = "".join(reader_words.kept(parse(text, LINKS)).elements())
    assert found.count("a") >= text.count("a")
    assert found.count("b") >= text.count("b")


def test_sections_lists_and_tables_become_sections_of_text():
    text = """
Pumps
=====

Two *kinds*
of pump.

Small ones
----------

:Price: low

1. prime it
2. start it

.. code-block:: sh

   pump --start

.. list-table:: Sizes

   * - size
     - price
   * - 3
     - 4

Deep
~~~~

.. figure:: x.png
   :alt: a pump

   Seen from above

term
   meaning
"""
    parsed = parse(text, LINKS)
    assert parsed.title == "Pumps"
    assert reader_words.outline(parsed) == [
        ((), "Two kinds of pump."),
        (
            ("Small ones",),
            "Price: low\n\n1. prime it\n2. start it\n\npump --start\n\nSizes\n\nsize | price\n3 | 4",
        ),
        (("Small ones", "Deep"), "a pump\n\nSeen from above\n\nterm\nmeaning"),
    ]


def test_links_of_docutils_and_sphinx_are_resolved():
    text = "T `b`_ and `see <b.rst>`_\n\n:doc:`the x </x>` :doc:`b` `T`_\n\n.. _b: b.rst#part\n"
    assert parse(text, LINKS).sections[0].links == (
        Link("b", "guide/b.rst#part"),
        Link("see", "guide/b.rst"),
        Link("the x", "x.rst"),
    )


def test_unknown_roles_and_directives_read_as_their_text(capfd):
    text = ":func:`open` of :py:class:`a File <io.X>`.\n\n.. deprecated:: 3.1\n   Use :meth:`b`.\n"
    assert parse(text, LINKS).sections[0].text == "open of a File.\n\n3.1\n\nUse b."
    assert capfd.readouterr() == ("", "")


def test_no_other_file_is_read(tmp_path, capfd):
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    text = (
        f".. include:: {secret}\n\n.. raw:: html\n   :file: {secret}\n\n"
        f".. csv-table::\n   :file: {secret}\n\n.. raw:: html\n\n   <p>seen</p><p>too</p>\n"
    )
    read = " ".join(section.text for section in parse(text, LINKS).sections)
    assert "password" not in read
    assert "seen\n\ntoo" in read
    assert capfd.readouterr() == ("", "")


def test_a_table_of_contents_and_comments_are_not_text():
    text = "A\n=\n\n.. contents::\n\n.. a comment\n\nB\n-\n\nx\n"
    assert reader_words.outline(parse(text, LINKS)) == [(("B",), "x")]


def test_nesting_without_end_is_a_fault():
    with pytest.raises(Fault, match="too deep"):
        parse("".join("  " * i + "* x\n\n" for i in range(600)), LINKS)
