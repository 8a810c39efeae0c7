"""CWE: from what went wrong in a product to the weakness behind it.

Query: the description of an observed example (what happened in a CVE). Relevant: every weakness
that lists it. Passage: a weakness, its name, description and extended description.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from typing import IO

from retrieval_ft.dataset.builders.recipe import Judgement, Recipe, Source, fold
from retrieval_ft.dataset.types import Corpus
from retrieval_ft.packages import PackageSource

MIN_WORDS = 5
_MENTION = re.compile(r"\s*\(?CWE-\d+\)?")


def read(file: IO[bytes]) -> Source:
    """Read a CWE catalogue (XML).

    The parser is the standard library's: the file comes out of an archive checked by its sha256.
    """
    version, rows, judgements = "", [], []
    left_out: Counter[str] = Counter()
    for event, element in ET.iterparse(file, events=("start", "end")):
        tag = _tag(element)
        if event == "start":
            if tag == "Weakness_Catalog":
                version = f"{element.get('Version')} ({element.get('Date')})"
        elif tag in ("Category", "View"):
            left_out["categories and views"] += 1
            element.clear()
        elif tag == "Weakness":
            if element.get("Status") == "Deprecated":
                left_out["deprecated weaknesses"] += 1
            else:
                passage_id = f"CWE-{element.get('ID')}"
                rows.append((passage_id, element.get("Name", ""), _description(element)))
                for group, text in _examples(element):
                    if len(text.split()) < MIN_WORDS:
                        left_out[f"examples under {MIN_WORDS} words"] += 1
                    else:
                        judgements.append(Judgement(text, passage_id, group))
            element.clear()
    ids, titles, texts = zip(*rows, strict=True) if rows else ((), (), ())
    corpus = Corpus(ids=ids, titles=titles, texts=texts)
    return Source(version, corpus, tuple(judgements), dict(left_out))


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ET.Element) -> str:
    return fold(" ".join(element.itertext()))


def _description(weakness: ET.Element) -> str:
    wanted = ("Description", "Extended_Description")
    return fold(" ".join(_text(child) for child in weakness if _tag(child) in wanted))


def _examples(weakness: ET.Element) -> Iterator[tuple[str, str]]:
    """Yield (reference, description without mentions of CWE numbers) of each observed example."""
    for example in weakness.iter():
        if _tag(example) != "Observed_Example":
            continue
        fields = {_tag(child): child for child in example}
        text = fold(_MENTION.sub("", _text(fields["Description"])))
        yield _text(fields["Reference"]), text


RECIPE = Recipe(
    package=PackageSource(
        registry="pypi",
        name="cwe2",
        version="3.0.0",
        filename="cwe2-3.0.0-py3-none-any.whl",
        sha256="abef03eb853f5c1851df6af5167bd9fe73a53dddb119fdbc5c3afc7d50b9f55b",
    ),
    member="cwe2/database_v49/cwec_v4.14.xml",
    read=read,
    rule=(
        "Passages: weaknesses that are not deprecated (name; description + extended description). "
        "Queries: descriptions of observed examples, 'CWE-nn' mentions removed, at least 5 words; "
        "texts with the same words are one query, relevant are all weaknesses that list it. "
        "Split by CVE: queries that share a CVE, or a weakness and nearly all words, "
        "are in one split."
    ),
    rule_version=1,
    licence="CWE Terms of Use (research, development and commercial use; keep MITRE's notice)",
    attribution=(
        "Copyright (c) 2006-2024, The MITRE Corporation. CWE and the CWE logo are trademarks of "
        "The MITRE Corporation. Terms of use: cwe.mitre.org/about/termsofuse.html"
    ),
    dev=200,
    test=600,
    licence_member="cwe2/database_v49/cwe-tou.LICENSE",
)
