"""Pairs, account, cache, plan and personal data, against a real server on loopback."""

import asyncio
import json
from dataclasses import asdict

import pytest
from chat_server import PASSAGES, check_sums, completion, obliging, passage_in, queries, scrub

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.mining.synthetic import plan, plan_text
from retrieval_ft.mining.synthetic.prompts import KINDS

ALL_KINDS = SyntheticConfig().kinds


def test_each_passage_gets_a_pair_with_its_own_words(server, config, write):
    result = write(config)
    check_sums(result)
    text_of = dict(PASSAGES)
    assert [pair.passage_id for pair in result.pairs] == sorted(text_of)
    for pair in result.pairs:
        start = " ".join(text_of[pair.passage_id].split()[:3])
        assert pair.query == f"about {start} what is there"
        assert pair.kind == "synthetic:question"
        assert pair.view is None
    assert len(server.requests) == result.account.requests == result.account.answered == 12
    assert (result.prompt_tokens, result.answer_tokens) == (12 * 50, 12 * 10)
    assert (result.estimated_tokens, result.stopped_by, result.message) == (0, None, None)


def test_a_second_call_sends_nothing_and_gives_the_same(server, config, write):
    first = write(config)
    second = write(config)
    check_sums(second)
    assert len(server.requests) == 12
    assert second.pairs == first.pairs
    assert second.account.from_cache == 12 and second.account.requests == 0
    assert second.earlier_tokens == 12 * 60 == second.prompt_tokens + second.answer_tokens


def test_the_cache_is_kept_by_model_and_question_not_by_address(server, config, write):
    write(config)
    moved = server.url.replace("127.0.0.1", "localhost")
    write(config.model_copy(update={"base_url": moved}))
    assert len(server.requests) == 12
    for change in ({"model": "other"}, {"temperature": 0.0}, {"kinds": ("claim",)}):
        before = len(server.requests)
        write(config.model_copy(update=change))
        assert len(server.requests) == before + 12, change
    write(config, seed=14)
    assert len(server.requests) == 5 * 12


def test_a_grown_corpus_asks_about_the_new_passages_only(server, config, write):
    config = config.model_copy(update={"kinds": ALL_KINDS})
    write(config, PASSAGES[:9])
    write(config, PASSAGES)
    assert len(server.requests) == 12
    assert {passage_in(body) for _, body in server.requests[9:]} == {t for _, t in PASSAGES[9:]}


def test_order_of_arrival_does_not_show(server, config, write, tmp_path):
    async def shuffled(number, body):
        await asyncio.sleep(0.03 * ((number * 7) % 5))
        return obliging(number, body)

    alone = write(config.model_copy(update={"concurrency": 1}), cache=tmp_path / "one")
    server.answer = shuffled
    many = write(config.model_copy(update={"concurrency": 8}), cache=tmp_path / "many")
    assert asdict(alone) == asdict(many)


def test_no_more_requests_at_once_than_the_config_says(server, config, write):
    async def slow(number, body):
        await asyncio.sleep(0.1)
        return obliging(number, body)

    server.answer = slow
    write(config.model_copy(update={"concurrency": 3}))
    assert server.most_busy == 3


def test_kinds_take_turns_and_are_asked_for_in_their_own_words(server, config, write):
    config = config.model_copy(update={"kinds": ALL_KINDS, "per_passage": 5})
    server.answer = lambda n, body: completion(queries(*(f"made up {n} {i}" for i in range(2))))
    result = write(config)
    check_sums(result)
    for passage_id, text in PASSAGES:
        prompts = [prompt for prompt in server.prompts if text in prompt]
        assert len(prompts) == 4  # five queries: four kinds, one of them asked for two
        assert sum("Write 2 such queries" in prompt for prompt in prompts) == 1
        assert all(sum(kind in prompt for kind in KINDS.values()) == 1 for prompt in prompts)
        kinds = [pair.kind for pair in result.pairs if pair.passage_id == passage_id]
        assert sorted(set(kinds)) == sorted(f"synthetic:{kind}" for kind in ALL_KINDS)
        assert len(kinds) == 5
    assert result.account.refused == {"surplus": 12 * 3}


def test_every_kind_comes_first_somewhere(server, config, write):
    passages = [(f"n{i}", f"Note {i} is about the number {i} and no other.") for i in range(60)]
    result = write(config.model_copy(update={"kinds": ALL_KINDS}), passages)
    counts = dict.fromkeys(ALL_KINDS, 0)
    for pair in result.pairs:
        counts[pair.kind.removeprefix("synthetic:")] += 1
    assert min(counts.values()) >= 5, counts


def test_examples_are_shown_and_a_copy_of_one_is_no_query(server, config, write):
    examples = [f"when does shop {i} open" for i in range(9)]
    shown = []

    def parrot(number, body):
        shown.append([e for e in examples if e in body["messages"][0]["content"]])
        return completion(queries(shown[0][0].upper() if number % 2 else f"own words {number}"))

    server.answer = parrot
    result = write(config, examples=examples)
    check_sums(result)
    assert len(shown[0]) == config.few_shot == 3
    assert all(lines == shown[0] for lines in shown)
    assert result.account.refused == {"copies_example": 6}
    again = list(reversed(examples))
    assert write(config, examples=again).account.requests == 0  # their order is nothing


def test_an_email_address_never_reaches_the_server(server, config, write):
    passages = [("a", "Write to jo.doe@example.org before noon."), ("b", "Nothing of the kind.")]
    write(config, passages, examples=["who is ann@example.org"])
    sent = json.dumps([body for _, body in server.requests])
    assert "@" not in sent
    assert sent.count("who is <EMAIL>") == 2 and sent.count("Write to <EMAIL> before") == 1


def test_the_scrubber_of_the_house_is_used_by_default(server, config, write):
    pytest.importorskip("retrieval_ft.dataset.pii")
    write(config, [("a", "Write to jo.doe@example.org before noon.")], scrub=None)
    assert len(server.requests) == 1
    assert "jo.doe" not in json.dumps(server.requests[0][1])


def test_passages_that_differ_in_personal_data_only_are_asked_about_once(server, config, write):
    passages = [("a", "Write to a@example.org."), ("b", "Write to b@example.org."), ("c", " \n")]
    result = write(config, passages)
    assert len(server.requests) == 1
    assert result.account.skipped == {"empty": 1, "same text as another": 1}


def test_at_most_max_passages_are_asked_about_and_the_rest_counted(server, config, write):
    few = write(config.model_copy(update={"max_passages": 5}))
    assert few.account.skipped == {"over synthetic.max_passages": 7}
    more = write(config.model_copy(update={"max_passages": 8}))
    assert more.account.requests == 3  # the five are among the eight
    assert {pair.passage_id for pair in few.pairs} < {pair.passage_id for pair in more.pairs}


def test_nothing_to_ask_about_sends_nothing(server, config, write):
    result = write(config, [])
    check_sums(result)
    assert (result.pairs, result.account.questions, server.requests) == ((), 0, [])


def test_text_of_any_kind_travels_and_comes_back(server, config, write):
    odd = [
        "\ud800 half a pair",
        'quotes " and \\ and </passage>',
        "naïve 漢字 \u2028 🙂",
        "{0} {x}",
    ]
    server.answer = lambda n, body: completion(queries(f"漢字 🙂 number {n}"), usage=(1, 1))
    result = write(config, [(str(i), text) for i, text in enumerate(odd)])
    check_sums(result)
    assert len(result.pairs) == 4
    assert {passage_in(body) for _, body in server.requests[1:]} <= {
        text.encode("utf-8", "replace").decode() for text in odd
    }
    assert write(config, [(str(i), text) for i, text in enumerate(odd)]).pairs == result.pairs


def test_queries_that_are_no_use_are_counted_by_reason(server, config, write):
    def model(number, body):
        passage = passage_in(body)
        texts = ["?!", "many words " * 40, passage, passage[4:60], "good one", "Good  ONE"]
        return completion(queries(*texts, "left over"), usage=(9, 9))

    server.answer = model
    result = write(config.model_copy(update={"per_passage": 6}))
    check_sums(result)
    assert [pair.query for pair in result.pairs] == ["Good ONE"] * 12
    assert result.account.refused == {
        "empty": 12,
        "too_long": 12,
        "copies_passage": 24,
        "repeated": 12,
        "surplus": 12,
    }


def test_the_plan_is_what_then_happens(server, config, write, tmp_path):
    config = config.model_copy(update={"input_price": 2.0, "output_price": 10.0})
    write(config, PASSAGES[:4])
    arguments = {"config": config, "examples": [], "cache": tmp_path / "cache", "seed": 13}
    before = len(server.requests)
    planned = plan(PASSAGES, **arguments, scrub=scrub)
    assert len(server.requests) == before == 4
    result = write(config)
    assert planned.requests == result.account.requests == 8
    assert planned.from_cache == result.account.from_cache == 4
    assert planned.passages == 12 and planned.questions == {"question": 12}
    characters = sum(len(prompt) for prompt in server.prompts[4:])
    assert characters / 4 <= planned.prompt_tokens < characters / 4 + 8
    cost = (planned.prompt_tokens * 2.0 + planned.answer_tokens * 10.0) / 1e6
    assert planned.cost == pytest.approx(cost)
    assert planned.earlier_tokens == 4 * 60
    assert result.cost == pytest.approx(12 * (50 * 2.0 + 10 * 10.0) / 1e6)
    assert not planned.exceeds_budget
    text = plan_text(planned)
    for part in (
        *("12 questions about 12 passages", server.url, "8 requests", "characters / 4"),
        *("in the cache already: 4", f"{planned.prompt_tokens:,} prompt", "2,000,000 tokens"),
        *("240 tokens spent earlier: enough", f"about {planned.cost:.2g}"),
    ):
        assert part in text, part


def test_the_plan_says_when_the_budget_is_too_small(config, tmp_path):
    small = config.model_copy(update={"max_tokens": 1_000, "max_passages": 9})
    arguments = {"examples": [], "cache": tmp_path / "cache", "seed": 13, "scrub": scrub}
    planned = plan(PASSAGES, config=small, **arguments)
    assert planned.exceeds_budget
    text = plan_text(planned)
    assert "1,000 tokens: too little" in text
    assert "3 passages (over synthetic.max_passages)" in text
    assert "cost: unknown" in text
    poor = config.model_copy(update={"max_cost": 1e-6, "input_price": 1.0})
    assert plan(PASSAGES, config=poor, **arguments).exceeds_budget
    assert not plan([], config=small, **arguments).exceeds_budget
