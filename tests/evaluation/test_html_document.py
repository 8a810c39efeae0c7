import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_example import NASTY, example

from retrieval_ft.evaluation.html import report_html
from retrieval_ft.evaluation.html.blocks import one_line
from retrieval_ft.evaluation.html.charts import delta_chart, forest_chart
from retrieval_ft.evaluation.html.sections_run import size
from retrieval_ft.evaluation.html.svg import LINES, looks
from retrieval_ft.evaluation.report import label, shown

TITLES = [
    "Systems",
    "Recall at k",
    "Differences",
    "Query by query",
    "Separation of scores",
    "Training",
    "Choices made on dev",
    "Where: slices of the queries",
    "What it forgot",
    "Biggest wins and losses",
    "Data hygiene",
    "Efficiency and costs",
    "Load the model",
    "What the metrics mean",
    "Repeat it",
]
EMPTY = {"meta", "path", "use", "img"}


class Reader(HTMLParser):
    """Tags, texts by tag, and tables as rows of cell texts under their captions."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.tables, self._open = [], [], {}, {}, []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")
        if tag == "caption":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in EMPTY:
            return
        assert self._open.pop() == tag  # well-formed
        if tag == "table":
            self.tables[self.texts["caption"][-1].strip()] = self._rows

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag][-1] += data
        if {"th", "td"} & set(self._open):
            self._rows[-1][-1] += data


def read(document, evidence):
    reader = Reader()
    reader.feed(report_html(document, evidence))
    assert not reader._open
    return reader


def titles(reader):
    return [text for text in reader.texts["h2"] if text not in ("Contents", "Read with care")]


@pytest.fixture(scope="module")
def whole():
    return example()


def evaluated():
    """What `retrieval-ft evaluate` prints: no verdict, and few keys."""
    document, _ = example(queries=20)
    rows = [{**row, "system": "hybrid", "against": "dense"} for row in document["differences"][2:4]]
    return {
        "schema_version": 1,
        "model": "some/model",
        "dataset": {"name": "cwe", "passages": 938, "queries": 20, "dropped": {"unjudged": 3}},
        "systems": {
            "bm25": document["systems"]["bm25"],
            "dense": document["systems"]["base_dense"],
            "hybrid": document["systems"]["tuned_hybrid"],
        },
        "differences": rows,
        "references": {"hybrid": "dense"},
        "choices": {"fusion": {"method": "rrf"}},
    }


def test_a_whole_report_has_every_section_in_order(whole):
    assert titles(read(*whole)) == TITLES


def test_the_same_values_give_the_same_bytes(whole):
    assert report_html(*whole) == report_html(*example())


def test_two_thousand_queries_stay_under_a_megabyte_and_a_half():
    page = report_html(*example(queries=2000))
    assert len(page.encode()) < 1_500_000


def test_a_document_without_a_verdict_opens_with_what_was_measured():
    reader = read(evaluated(), {})
    assert reader.texts["h1"] == ["Retrieval on cwe"]
    assert titles(reader) == [
        "Systems",
        "Differences",
        "Choices made on dev",
        "Data hygiene",
        "What the metrics mean",
        "Repeat it",
    ]
    text = "".join(reader.texts["main"])
    assert "some/model" in text
    assert "looked at once" not in text
    rows = reader.tables[
        "Means over the test queries; every query is ranked against the whole corpus"
    ]
    assert "against dense" in rows[-1][-2]


def test_a_document_with_next_to_nothing_renders():
    reader = read({"systems": {"mine": {}}, "differences": []}, {})
    assert titles(reader) == ["Systems", "Repeat it"]
    assert reader.tags.count("h1") == 1


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        ("promote", "✓ Promote the tuned model"),
        ("hold", "■ Hold: keep the base model"),
        ("inconclusive", "? Inconclusive"),
        ('"><b>', 'Verdict: "><b>'),
    ],
)
def test_the_headline_says_the_verdict_with_the_gain_and_its_interval(whole, verdict, title):
    document, _ = whole
    reader = read({**document, "verdict": verdict}, {})
    assert reader.texts["h1"] == [title]
    row = next(r for r in document["differences"] if r["system"] == "tuned_hybrid")
    header = reader.texts["header"][0]
    assert f"{row['delta']:+.3f}".replace("0.", ".") in header
    assert all(f"{end:+.3f}".replace("0.", ".") in header for end in row["ci"])


def test_stars_mark_what_holm_left_and_nothing_else(whole):
    document, _ = whole
    rows = [
        {**row, "p_holm": p}
        for row, p in zip(document["differences"], (0.049, 0.05, 0.2, 0.0001), strict=True)
    ]
    reader = read({**document, "differences": rows}, {})
    tested = reader.tables["Differences between systems"][1:]
    assert ["★" in row[3] for row in tested] == [True, False, False, True]
    systems = reader.tables[
        "Means over the test queries; every query is ranked against the whole corpus"
    ]
    recall, ndcg = systems[0].index("R@10"), systems[0].index("nDCG@10")
    starred = [(row[0], at) for row in systems[1:] for at, cell in enumerate(row) if "★" in cell]
    assert starred == [("tuned dense", recall), ("tuned hybrid", ndcg)]
    assert "Holm" in "".join(reader.texts["p"])


def test_a_slice_has_its_count_and_a_star_only_where_it_is_a_finding(whole):
    rows = read(*whole).tables[
        "Recall@10 on slices of the test queries, and differences with their 95% intervals"
    ]
    short, long = (next(row for row in rows if row[0].startswith(v)) for v in ("short", "long"))
    assert (short[1], long[1]) == ("60", "20")
    assert "★" in short[-2]
    assert not any("★" in cell for cell in (*long, short[-1]))


def test_the_numbers_of_each_chart_stand_in_a_table(whole):
    _, evidence = whole
    reader = read(*whole)
    curve = evidence["curves"]["systems"]["tuned_hybrid"]
    row = next(
        r for r in reader.tables["Recall at k, with its 95% interval"] if r[0] == "tuned hybrid"
    )
    ends = zip(curve["mean"], curve["low"], curve["high"], strict=True)
    assert row[1:] == [
        "{} [{}, {}]".format(*(f"{x:.3f}".removeprefix("0") for x in three)) for three in ends
    ]
    assert [r[0] for r in reader.tables["Fusion on dev"][1:]][-1] == "RRF"
    assert reader.tables["Loss by step"][2] == ["4", "-"]
    marked = [r[-1] for r in reader.tables["Dev recall@10 by share of tuned weights"][1:]]
    assert marked == ["", "chosen", ""]


@given(
    st.lists(
        st.sampled_from([-1.0, -1e-12, 1e-12, -0.35, -0.1, 0.0, 0.1, 0.3, 0.7, 1.0]), min_size=1
    )
)
@settings(max_examples=15, deadline=None)
def test_the_table_of_differences_counts_every_query_once(values):
    found = {"system": "a", "against": "b", "metric": "recall@10"}
    chart = delta_chart({**found, "values": sorted(values, reverse=True)}, number=1)
    counts = {row[0].text: int(row[1].text) for row in chart.tables[0].groups[0].rows}
    assert sum(counts.values()) == len(values)
    assert counts.get("0 (tie)", 0) == values.count(0.0)
    assert counts.get("above +0.2 to +0.3", 0) == values.count(0.3)
    assert counts.get("below -0.3 to -0.4", 0) == values.count(-0.35)


def test_text_of_the_data_is_text_wherever_it_stands():
    plain, nasty = read(*example(text="xx")), read(*example(text=NASTY, extra=(NASTY, f"_{NASTY}")))
    assert {"script", "img"} & set(nasty.tags) == set()
    assert not any(name.startswith("on") for name, _ in nasty.attributes)
    assert set(nasty.tags) <= set(plain.tags)
    assert NASTY in "".join(nasty.texts["main"])
    assert "{{ 7 }}" in nasty.texts["title"][0]


@given(st.text(max_size=80))
@settings(max_examples=8, deadline=None)
def test_any_name_of_a_system_can_be_drawn(name):
    row = {"system": name, "against": name, "metric": "recall@10", "delta": 0.1, "ci": [0.0, 0.2]}
    drawn = ET.fromstring(forest_chart([row]).svg)
    texts = [element.text for element in drawn.iter("text")]
    expected = one_line(f"{label(name)} minus {label(name)}, recall@10")
    assert expected in texts


def test_no_colour_but_those_of_the_style_sheet_is_drawn(whole):
    page = report_html(*whole)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}\b", drawn)
    assert "DejaVu" not in drawn
    used = set(re.findall(r"var\(--([a-z0-9]+)\)", page))
    assert used <= set(palettes()["light"])


def test_the_page_forbids_scripts_and_the_network(whole):
    page = report_html(*whole)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert "url(http" not in page
    assert "@import" not in page


def palettes():
    css = resources.files("retrieval_ft.evaluation.html").joinpath("page.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return {
        name: dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", block))
        for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour):
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_lines_stand_out_from_their_ground(theme):
    colours = palettes()[theme]
    assert set(colours) == set(palettes()["light"])
    grounds = ["paper", "panel", "good-panel", "bad-panel", "open-panel"]
    texts = [(ink, ground) for ink in ("ink", "muted") for ground in grounds]
    texts += [(name, "paper") for name in ("good", "bad", "open", "link")]
    texts += [
        ("good", "good-panel"),
        ("bad", "bad-panel"),
        ("open", "open-panel"),
        ("link", "panel"),
    ]
    lines = [*(f"s{i}" for i in range(len(LINES))), "up", "down", "focus"]
    for name, ground in texts:
        assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in lines:
        assert contrast(colours[name], colours["paper"]) >= 3.0, name


def test_no_two_of_a_dozen_systems_look_the_same():
    names = ["bm25", "base_dense", "base_hybrid", "tuned_dense", "tuned_hybrid"]
    found = looks([*names, *(f"mine{i}" for i in range(9))])
    assert len(set(found.values())) == 14
    assert len({(one.dash, one.marker) for one in list(found.values())[:5]}) >= 4


def test_values_are_shown_for_people():
    assert [size(n) for n in (0, 512, 1536, 3 * 1024**2, 5 * 1024**4)] == [
        "0 bytes",
        "512 bytes",
        "1.5 KiB",
        "3.0 MiB",
        "5.0 TiB",
    ]
    assert shown({"a_b": 1500, "c": None}) == "a_b 1,500, c -"
    assert shown([True, 0.25]) == "yes, 0.25"
    assert one_line("a\n b\x00" + "c" * 90) == "a b\ufffd" + "c" * 55 + "…"


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, retrieval_ft.evaluation.html, retrieval_ft.evaluation.evidence; "
        "print({'torch', 'faiss', 'matplotlib', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
