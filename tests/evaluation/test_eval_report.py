import io
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from retrieval_ft.evaluation import DEFINITIONS, report_markdown, systems_table, systems_text
from retrieval_ft.evaluation import verdict_line as verdict_line_of

KNOWN = ["bm25", "base_dense", "base_hybrid", "tuned_dense", "tuned_hybrid"]
LABELS = ["BM25", "base dense", "base hybrid", "tuned dense", "tuned hybrid"]
MEASURED = ["recall@1", "recall@5", "recall@10", "recall@20", "recall@50", "recall@100"]
MEASURED += [
    "ndcg@10",
    "mrr@10",
    "precision@10",
    "map",
    "capped_recall@10",
    "success@10",
    "hole@10",
]
HEADINGS = ["R@1", "R@5", "R@10", "R@20", "R@50", "R@100", "nDCG@10", "MRR@10"]
NASTY = "a|b `c` *d* <e> [f](g) __h__ \\| &lt; $i$ ~~j~~ \n# k"
ONE_LINE = " ".join(NASTY.split())


def systems():
    return {
        name: {metric: (10 * i + j) / 1000 for j, metric in enumerate(MEASURED)}
        for i, name in enumerate(KNOWN, start=1)
    }


def difference(system, against, delta, low, high, p=0.0123):
    return {
        "system": system,
        "against": against,
        "metric": "recall@10",
        "delta": delta,
        "ci": [low, high],
        "p": p,
        "p_holm": 0.0369,
        "wins": 31,
        "ties": 22,
        "losses": 13,
    }


def minimal():
    return {
        "schema_version": 1,
        "verdict": "hold",
        "run": "runs/small",
        "systems": {"bm25": {"recall@10": 0.5}},
        "differences": [],
        "stages": [],
    }


def full():
    return {
        **minimal(),
        "verdict": "promote",
        "reason": "both intervals lie above zero",
        "dataset": {
            "name": "cwe",
            "passages": 938,
            "train_queries": 1131,
            "train_pairs": 1500,
            "dev_queries": 200,
            "test_queries": 600,
        },
        "base": "BAAI/bge-small-en-v1.5",
        "systems": systems(),
        "differences": [
            difference("tuned_hybrid", "bm25", 0.3, 0.2, 0.4),
            difference("tuned_hybrid", "base_dense", 0.25, 0.15, 0.35),
            difference("tuned_hybrid", "base_hybrid", 0.146, 0.111, 0.182, p=0.0001),
            difference("tuned_dense", "base_dense", -0.0004, -0.03, 0.021),
        ],
        "choices": {
            "soup_alpha": 0.8,
            "base_fusion": {"method": "convex", "dense_weight": 0.35},
            "tuned_fusion": {"method": "rrf", "dense_weight": 1.0},
            "lexical": "k1=1.5 b=0.75",
        },
        "stages": [
            {"name": "mine", "seconds": 12.34, "cached": False},
            {"name": "train", "seconds": 100.0, "cached": True},
        ],
        "mining": {"pairs": 1500, "negatives": 1499, "dropped": {"near_duplicate": 12}},
        "training": {"steps": 48, "learning_rate": 5e-5, "resumed": False},
        "truncation": {"passage": 0.125, "query": 0.0},
        "command": "python -m retrieval_ft.train",
    }


def on_terminal(document, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(systems_table(document))
    return console.file.getvalue()


def inline_text(token):
    parts = []
    for child in token.children:
        assert child.type in ("text", "text_special", "softbreak"), child  # else it became markup
        parts.append(child.content)
    return "".join(parts)


def parsed(markdown):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)


def tables(markdown):
    """Each table as rows of cell texts, after the heading that it stands under."""
    found, heading = {}, None
    tokens = parsed(markdown)
    for previous, token in itertools.pairwise(tokens):
        if previous.type == "heading_open":
            heading = inline_text(token)
        elif previous.type == "tr_open":
            found.setdefault(heading, []).append([])
        if previous.type in ("th_open", "td_open"):
            found[heading][-1].append(inline_text(token))
    return found


def bullets(markdown):
    tokens = parsed(markdown)
    return [inline_text(tokens[i + 2]) for i, t in enumerate(tokens) if t.type == "list_item_open"]


def test_rows_come_in_one_order_with_labels_and_others_after_them():
    document = full()
    document["systems"] = {"my_splade": {}, **dict(reversed(systems().items()))}
    lines = systems_text(document).splitlines()
    assert [re.split(r"\s{2,}", line)[0] for line in lines[1:]] == [*LABELS, "my splade"]


def test_text_holds_every_figure_under_its_heading():
    lines = [re.split(r"\s{2,}", line) for line in systems_text(full()).splitlines()]
    assert lines[0][1:9] == HEADINGS
    assert lines[0][9:] == ["Δ R@10 vs base [95% CI]", "p"]
    for i, line in enumerate(lines[1:], start=1):
        assert line[1:9] == [f".{10 * i + j:03}" for j in range(8)]


def test_the_difference_shown_is_that_to_the_base_of_its_kind():
    text = systems_text(full())
    hybrid = next(line for line in text.splitlines() if line.startswith("tuned hybrid"))
    dense = next(line for line in text.splitlines() if line.startswith("tuned dense"))
    assert re.split(r"\s{2,}", hybrid)[-2:] == ["+.146 [+.111, +.182]", "0.0001"]
    assert "+.000 [-.030, +.021]" in dense  # -0.0004 is no "-.000"
    assert "+.300" not in text
    assert "[" not in next(line for line in text.splitlines() if line.startswith("BM25"))


def test_a_whole_point_keeps_its_digit():
    document = minimal()
    document["systems"] = {"tuned_dense": {"recall@10": 1.0, "recall@1": 0.0}}
    document["differences"] = [difference("tuned_dense", "base_dense", 1.0, -1.0, 1.0)]
    assert "+1.000 [-1.000, +1.000]" in systems_text(document)
    assert " 1.000 " in systems_text(document)
    assert " .000 " in systems_text(document)


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_every_figure(width):
    shown = on_terminal(full(), width)
    for means in systems().values():
        for metric in MEASURED[:8]:
            assert f"{means[metric]:.3f}"[1:] in shown
    assert all(name in shown for name in LABELS)
    assert "+.146" in shown
    assert "[+.111, +.182]" in shown
    assert "0.0001" in shown
    assert max(map(len, shown.splitlines())) <= width


def test_rich_markup_in_a_name_is_text():
    document = minimal()
    document["systems"] = {"[bold]x[/bold]": {"recall@10": 0.5}, "[/oops]": {}}
    shown = on_terminal(document, 120)
    assert "[bold]x[/bold]" in shown
    assert "[/oops]" in shown


def test_a_document_with_only_what_is_required_renders():
    markdown = report_markdown(minimal())
    assert markdown.startswith("# Verdict: hold\n")
    assert markdown.endswith("\n")
    assert "runs/small" in markdown
    for title in ("Differences", "Choices", "Mining", "Training", "Stages", "Made by"):
        assert f"## {title}" not in markdown
    rows = tables(markdown)["Systems"]
    assert rows[1][:4] == ["BM25", "-", "-", ".500"]
    assert ".500" in on_terminal(minimal(), 80)


def test_a_difference_without_later_keys_renders():
    document = full()
    kept = ("system", "against", "metric", "delta", "ci", "p")
    document["differences"] = [{k: row[k] for k in kept} for row in document["differences"]]
    assert tables(report_markdown(document))["Differences"][1][-2:] == ["-", "-/-/-"]


def test_report_starts_with_the_verdict_and_holds_every_table():
    markdown = report_markdown(full())
    assert markdown.splitlines()[0] == "# Verdict: promote"
    assert markdown.splitlines()[2] == "Reason: both intervals lie above zero"
    found = tables(markdown)
    assert [row[0] for row in found["Systems"][1:]] == LABELS
    assert found["Systems"][0][9:11] == ["P@10", "MAP"]
    assert found["Systems"][1][9:11] == [".018", ".019"]
    assert found["Systems"][-1][-2:] == ["+.146 [+.111, +.182]", "0.0001"]
    assert found["Differences"][1] == [
        "tuned hybrid",
        "BM25",
        "recall@10",
        "+.300",
        "[+.200, +.400]",
        "0.0123",
        "0.0369",
        "31/22/13",
    ]
    assert found["Stages"][1:] == [
        ["mine", "12.3", "no"],
        ["train", "100.0", "yes"],
        ["all", "112.3", ""],
    ]


def test_report_lists_the_account_the_choices_and_the_definitions():
    markdown = report_markdown(full())
    found = bullets(markdown)
    assert (
        "dataset: cwe, 938 passages, 1,131 train queries, 1,500 train pairs, 200 dev queries, "
        "600 test queries"
    ) in found
    assert "base model: BAAI/bge-small-en-v1.5" in found
    assert "texts cut at the maximum length: passage 12.5%, query 0.0%" in found
    assert "soup alpha: 0.8" in found
    assert "base fusion: method convex, dense_weight 0.35" in found
    assert "negatives: 1,499" in found
    assert "dropped: near_duplicate 12" in found
    assert "learning rate: 5e-05" in found
    assert "resumed: no" in found
    assert "chosen on the dev split" in markdown
    for definition in DEFINITIONS.values():
        assert any(definition in bullet for bullet in found)


def test_only_metrics_that_were_measured_are_defined():
    found = bullets(report_markdown(minimal()))
    assert any(DEFINITIONS["recall"] in bullet for bullet in found)
    assert not any(DEFINITIONS["map"] in bullet for bullet in found)


def nasty(text):
    document = full()
    document["dataset"]["name"] = document["base"] = document["run"] = text
    document["reason"] = document["choices"]["lexical"] = text
    document["systems"] = {**systems(), text: {"recall@10": 0.5}}
    document["differences"].append(difference(text, "bm25", 0.1, 0.0, 0.2))
    document["stages"][0]["name"] = text
    document["mining"]["dropped"] = {text: 3}
    return document


@given(st.text(st.sampled_from("a1 |`*_<>[]()\\&#$~!-+=.:;\"'\n\t"), min_size=1))
@settings(deadline=None)
def test_no_text_breaks_the_report(text):
    document = nasty(f"x{text}y")
    shown = " ".join(f"x{text}y".split())
    markdown = report_markdown(document)
    found = tables(markdown)
    for rows in found.values():
        assert len({len(row) for row in rows}) == 1
    assert found["Systems"][-1][0] == " ".join(shown.replace("_", " ").split())
    assert found["Stages"][1][0] == shown
    assert f"base model: {shown}" in bullets(markdown)
    assert f"lexical: {shown}" in bullets(markdown)
    assert f"dropped: {shown} 3" in bullets(markdown)


def test_markup_in_names_stays_text():
    markdown = report_markdown(nasty(NASTY))
    assert f"base model: {ONE_LINE}" in bullets(markdown)
    assert tables(markdown)["Stages"][1][0] == ONE_LINE


def test_the_command_stands_whole_in_a_code_block():
    document = full()
    document["command"] = "python -m x --name '```' \\\n  --set a.b=|"
    tokens = [token for token in parsed(report_markdown(document)) if token.type == "fence"]
    assert [token.content for token in tokens] == [document["command"] + "\n"]


def test_verdict_line_is_one_line():
    assert verdict_line_of(full()) == "promote: both intervals lie above zero"
    assert verdict_line_of({**full(), "reason": "a\nb"}) == "promote: a b"
    assert verdict_line_of(minimal()) == "hold"


def test_hygiene_slices_and_warnings_stand_in_the_report():
    document = full()
    means = {name: {"recall@10": 0.25 + i / 8} for i, name in enumerate(document["systems"])}
    document["slices"] = [
        {
            "name": "document",
            "value": "unseen",
            "queries": 1234,
            "systems": means,
            "differences": [
                {
                    "system": "tuned_hybrid",
                    "against": "base_hybrid",
                    "delta": 0.02,
                    "ci": [0.01, 0.03],
                    "finding": True,
                }
            ],
        },
        {"name": NASTY, "value": "x", "queries": 3, "systems": means, "differences": []},
    ]
    document["hygiene"] = [
        {"check": "near_duplicates", "touched": 7, "of": 4321, "what was done": NASTY}
    ]
    document["warnings"] = ["Few queries.", NASTY]
    document["pairs"] = {"tier": "corpus", "kept": 1500}
    markdown = report_markdown(document)
    found = tables(markdown)
    recall = [f"{values['recall@10']:.4f}" for values in means.values()]
    assert found["Where: slices of the test queries, R@10"][1:] == [
        ["document: unseen", "1,234", *recall, "+.020 [+.010, +.030] *"],
        [f"{ONE_LINE}: x", "3", *recall, ""],
    ]
    assert found["Hygiene"][1] == ["near_duplicates", "7", "4,321", ONE_LINE]
    assert {"Few queries.", ONE_LINE, "tier: corpus", "kept: 1,500"} <= set(bullets(markdown))


def with_no_prompt():
    document = full()
    for name in ("tuned_dense_no_prompt", "base_dense_no_prompt"):
        document["systems"][name] = dict.fromkeys(MEASURED, 0.777)
    return document


def test_systems_without_the_prompt_come_last_and_have_no_difference():
    lines = systems_text(with_no_prompt()).splitlines()
    names = [re.split(r"\s{2,}", line)[0] for line in lines[1:]]
    assert names == [*LABELS, "tuned dense, no prompt", "base dense, no prompt"]
    assert "[" not in lines[-1] and "[" not in lines[-2]


def test_a_label_of_two_parts_leaves_the_terminal_table_as_wide_as_it_was():
    shown = on_terminal(with_no_prompt(), 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert max(map(len, shown.splitlines())) == max(map(len, on_terminal(full(), 80).splitlines()))
    assert "tuned dense," in shown and "no prompt" in shown
    assert shown.count(".777") == 2 * len(HEADINGS)


def test_slices_show_the_systems_that_they_hold():
    document = with_no_prompt()
    means = {name: {"recall@10": 0.5} for name in KNOWN}
    row = {"name": "document", "value": "unseen", "queries": 3, "differences": []}
    document["slices"] = [{**row, "systems": means}]
    table = tables(report_markdown(document))["Where: slices of the test queries, R@10"]
    assert table == [
        ["test queries", "n", *LABELS, "Δ hybrid [95% CI]"],
        ["document: unseen", "3", *["0.5000"] * len(KNOWN), ""],
    ]


def forgetting(name="hpo", remark=""):
    figures = {"recall@10": 0.7, "ndcg@10": 0.5}
    return {
        "sets": [
            {
                "name": name,
                "passages": 3000,
                "dev_queries": 300,
                "test_queries": 299,
                "remark": remark,
                "systems": {"base": figures, "tuned": {"recall@10": 0.68, "ndcg@10": 0.49}},
                "differences": [
                    {**difference("tuned", "base", -0.02, -0.04, 0.001), "metric": "recall@10"},
                    {**difference("tuned", "base", -0.01, -0.03, 0.002), "metric": "ndcg@10"},
                ],
            }
        ],
        "alphas": [
            {"alpha": 1.0, "target": 0.8, "general": 0.6},
            {"alpha": 0.8, "target": 0.79, "general": 0.69},
            {"alpha": 0.0, "target": 0.5, "general": 0.7},
        ],
        "why": "alpha 0.8 is the best of the 1 of 2",
    }


def test_both_axes_and_the_curve_stand_in_the_report():
    document = {**full(), "forgetting": forgetting()}
    markdown = report_markdown(document)
    rows = tables(markdown)["What it forgot"]
    cut = rows.index(["share of tuned weights", "target dev R@10", "general dev R@10", ""])
    assert rows[1:cut] == [
        ["cwe (target)", "600", "938", "R@10", ".022", ".042", "+.000", "[-.030, +.021]", "0.0123"],
        ["hpo", "299", "3,000", "R@10", ".700", ".680", "-.020", "[-.040, +.001]", "0.0123"],
        ["hpo", "299", "3,000", "nDCG@10", ".500", ".490", "-.010", "[-.030, +.002]", "0.0123"],
    ]
    assert rows[cut + 1 :] == [
        ["1", ".800", ".600", ""],
        ["0.8", ".790", ".690", "chosen"],
        ["0 (base)", ".500", ".700", ""],
    ]
    assert "chosen on dev. alpha 0.8 is the best of the 1 of 2." in markdown


def test_a_report_without_general_sets_says_so_and_keeps_the_curve():
    found = forgetting()
    alphas = [{**row, "general": None} for row in found["alphas"]]
    document = {**full(), "forgetting": {"sets": [], "alphas": alphas, "why": ""}}
    markdown = report_markdown(document)
    assert "Not measured: there was no set of another domain." in markdown
    assert tables(markdown)["What it forgot"][1] == ["1", ".800", "-", ""]


def test_names_and_remarks_of_general_sets_are_text():
    document = {**full(), "forgetting": forgetting(NASTY, NASTY)}
    markdown = report_markdown(document)
    assert {row[0] for row in tables(markdown)["What it forgot"]} >= {ONE_LINE}
    assert "## What it forgot" not in report_markdown(full())


def test_the_search_over_recipes_names_the_chosen_trial_and_the_failed_one():
    trial = {"epochs": 2, "ndcg": 0.5, "steps": 40, "failed": False}
    trials = [
        {**trial, "number": 0, "learning_rate": 2e-4, "recall": 0.61},
        {**trial, "number": 1, "learning_rate": 1e-4, "recall": 0.64},
        {**trial, "number": 2, "learning_rate": 8e-4, "recall": 0.0, "failed": True},
    ]
    document = {**minimal(), "tuning": {"chosen": trials[1], "trials": trials}}
    header, *rows = tables(report_markdown(document))["Search over recipes"]
    assert [row[header.index("dev R@10")] for row in rows] == [".610", ".640", "failed"]
    assert [row[-1] for row in rows] == ["", "chosen", ""]
    assert [row[1] for row in rows] == ["0.0002", "0.0001", "0.0008"]
