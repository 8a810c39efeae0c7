"""The budget: never overrun with requests at once, and what was paid for is kept and used."""

import asyncio
from dataclasses import asdict

import pytest
from chat_server import PASSAGES, check_sums, completion, error, passage_in, queries
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.errors import ConfigError
from retrieval_ft.mining.synthetic.budget import Budget, Usage, estimate, most


def counting(number, body):
    """A server whose tokenizer makes a token of every character, and whose answers reach the cap."""
    prompt = sum(len(message["content"]) for message in body["messages"])
    return completion(queries(f"what is number {number}"), usage=(prompt, body["max_tokens"]))


@given(
    st.integers(1, 400),
    st.one_of(st.none(), st.floats(0.0001, 0.01)),
    st.lists(
        st.tuples(st.integers(1, 50), st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=25
    ),
)
@settings(max_examples=60, deadline=None)
def test_it_is_never_overrun_whatever_is_in_flight(max_tokens, max_cost, requests):
    config = SyntheticConfig(
        max_tokens=max_tokens, max_cost=max_cost, input_price=5.0, output_price=30.0
    )
    budget, sent = Budget(config, earlier=Usage()), []

    async def request(prompt, answer, share):
        held = Usage(prompt, answer)
        if not await budget.reserve(held):
            return
        used = Usage(int(prompt * share), int(answer * share))
        await asyncio.sleep(0)
        sent.append(used)
        await budget.settle(held, used=used)

    async def all_at_once():
        await asyncio.gather(*(request(*each) for each in requests))

    asyncio.run(all_at_once())
    spent = budget.spent
    assert spent.total == sum(used.total for used in sent) <= max_tokens
    cost = (5.0 * spent.prompt_tokens + 30.0 * spent.answer_tokens) / 1e6
    assert spent.cost(config) == pytest.approx(cost)
    assert max_cost is None or spent.cost(config) <= max_cost
    if len(sent) < len(requests):  # what was not sent did not fit
        worst = max(requests, key=lambda each: each[0] + each[1])
        dear = max(requests, key=lambda each: 5 * each[0] + 30 * each[1])
        assert not (budget.allows(Usage(*worst[:2])) and budget.allows(Usage(*dear[:2])))


def test_a_request_waits_for_others_to_give_back_what_they_do_not_need():
    async def two():
        budget = Budget(SyntheticConfig(max_tokens=100), earlier=Usage())
        assert await budget.reserve(Usage(80, 0))
        second = asyncio.create_task(budget.reserve(Usage(60, 0)))
        await asyncio.sleep(0.01)
        assert not second.done()
        await budget.settle(Usage(80, 0), used=Usage(10, 0))
        return await second

    assert asyncio.run(two())


@given(st.text())
def test_the_most_is_no_less_than_any_tokenizer_makes(text):
    message = [{"role": "user", "content": text.encode("utf-8", "replace").decode()}]
    bound = most(message, cap=99)
    assert bound.prompt_tokens >= len(message[0]["content"].encode())
    assert bound.answer_tokens == 99
    rough = estimate(message, answer_characters=9)
    assert rough.prompt_tokens == -(-len(message[0]["content"]) // 4)
    assert (rough.answer_tokens, rough.estimated) == (3, rough.total)


def test_tokens_run_out_half_way_and_what_was_paid_for_is_used(server, config, write):
    server.answer = counting
    small = config.model_copy(update={"max_tokens": 12_000, "concurrency": 3})
    result = write(small)
    check_sums(result)
    assert result.stopped_by == "budget"
    spent = result.prompt_tokens + result.answer_tokens
    assert 12_000 - 2_500 < spent <= 12_000  # as near as one more request
    assert 0 < len(result.pairs) == result.account.answered == len(server.requests) < 12
    assert result.account.not_asked == 12 - len(result.pairs)
    for part in ("budget is spent", f"{len(result.pairs)} questions are answered", "max_tokens"):
        assert part in result.message


def test_the_budget_holds_for_all_calls_together(server, config, write):
    server.answer = counting
    small = config.model_copy(update={"max_tokens": 12_000})
    first = write(small)
    again = write(small)
    assert again.account.requests == 0 and again.stopped_by == "budget"
    assert again.pairs == first.pairs
    rest = write(small.model_copy(update={"max_tokens": 100_000}))
    assert rest.stopped_by is None and len(rest.pairs) == 12
    assert len(server.requests) == 12  # none was paid for twice
    assert set(first.pairs) < set(rest.pairs)


def test_money_runs_out_too(server, config, write):
    prices = {"input_price": 1.0, "output_price": 4.0}
    small = config.model_copy(update={"max_cost": 0.03, "concurrency": 2, **prices})
    server.answer = counting
    result = write(small)
    check_sums(result)
    assert result.stopped_by == "budget" and 0 < len(result.pairs) < 12
    cost = (result.prompt_tokens * 1.0 + result.answer_tokens * 4.0) / 1e6
    assert result.cost == pytest.approx(cost) and 0.02 < result.cost <= 0.03


def test_money_without_prices_is_refused(config, write):
    with pytest.raises(
        ConfigError, match=r"synthetic\.max_cost: a budget in money needs"
    ) as caught:
        write(config.model_copy(update={"max_cost": 1.0}))
    assert caught.value.exit_code == 2


def test_a_budget_that_allows_nothing_sends_nothing(server, config, write):
    result = write(config.model_copy(update={"max_tokens": 100}))
    assert (result.pairs, result.stopped_by, server.requests) == ((), "budget", [])
    assert result.account.not_asked == 12


def test_where_the_server_says_no_usage_it_is_estimated_and_said_so(server, config, write):
    text = queries("what is it")
    server.answer = lambda number, body: completion(text)
    result = write(config)
    assert result.prompt_tokens == sum(-(-len(prompt) // 4) for prompt in server.prompts)
    assert result.answer_tokens == 12 * -(-len(text) // 4)
    assert result.estimated_tokens == result.prompt_tokens + result.answer_tokens


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": -5, "completion_tokens": 1}, {"prompt_tokens": "9"}, [], "much"]
)
def test_a_usage_that_makes_no_sense_is_estimated(server, config, write, usage):
    server.answer = lambda n, body: {**completion(queries("what is it")), "usage": usage}
    result = write(config, PASSAGES[:1])
    assert result.estimated_tokens == result.prompt_tokens + result.answer_tokens > 0


def test_useless_answers_are_paid_for_and_counted(server, config, write):
    def model(number, body):
        good = "Ault" in passage_in(body)
        return completion(queries("what is it") if good else '{"no": 1}', usage=(100, 7))

    server.answer = model
    result = write(config)
    check_sums(result)
    assert result.account.failed == {"garbage": 8}
    assert len(server.requests) == 4 + 2 * 8  # asked again once
    assert (result.prompt_tokens, result.answer_tokens) == (2_000, 140)
    again = write(config)
    assert len(server.requests) == 20  # garbage is not paid for twice either
    assert asdict(again.account) == {
        **asdict(result.account),
        **{"answered": 0, "from_cache": 4, "requests": 0},
    }


def test_a_request_that_timed_out_may_be_billed_and_is_counted(server, config, write):
    async def never(number, body):
        if number == 1:
            await asyncio.sleep(3.0)
        return completion(queries("what is it"), usage=(10, 5))

    server.answer = never
    result = write(config.model_copy(update={"timeout_s": 1.0, "concurrency": 1}), PASSAGES[:2])
    assert len(result.pairs) == 2 and result.account.requests == 3
    lost = -(-len(server.prompts[0]) // 4)
    assert result.prompt_tokens == lost + 20
    cap = server.requests[0][1]["max_tokens"]
    assert result.answer_tokens == cap + 10
    assert result.estimated_tokens == lost + cap


def test_refusals_of_the_endpoint_cost_nothing(server, config, write):
    server.answer = lambda n, b: error(503) if n % 2 else completion(queries("x y"), usage=(3, 4))
    result = write(config.model_copy(update={"concurrency": 1}))
    assert (result.prompt_tokens, result.answer_tokens) == (36, 48)
