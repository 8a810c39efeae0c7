"""Which share of tuned weights is kept: the rule alone, then on weights."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.config import TrainingConfig
from retrieval_ft.pipeline.soup import Tried, choose, holds, is_enough, soup

# Few different values, so that ties are common.
GRADE = st.integers(0, 5).map(lambda tenths: tenths / 10)
CURVE = st.lists(st.tuples(GRADE, GRADE), min_size=1, max_size=6)
FLOOR = st.none() | GRADE


def tried_of(curve):
    return [Tried(1 - i / 10, score, general) for i, (score, general) in enumerate(curve)]


def walked(curve, floor):
    """What is tried, from 1 down, until it is enough."""
    tried = []
    for one in tried_of(curve):
        tried.append(one)
        if is_enough(tried, floor=floor):
            break
    return tried


def without_a_floor(curve):
    """The rule as it stands without general sets: on while it helps."""
    first, *others = tried_of(curve)
    best, number = first, 1
    for one in others:
        number += 1
        if one.score <= best.score:
            break
        best = one
    return best, number


@given(CURVE)
def test_without_a_general_set_it_goes_down_while_that_helps(curve):
    tried = walked(curve, None)
    assert (choose(tried, floor=None), len(tried)) == without_a_floor(curve)


@given(CURVE)
def test_a_floor_that_everything_holds_changes_nothing(curve):
    assert walked(curve, 0.0) == walked(curve, None)
    assert choose(tried_of(curve), floor=0.0) == choose(tried_of(curve), floor=None)


@given(CURVE, FLOOR)
def test_what_is_chosen_holds_the_floor_wherever_something_does(curve, floor):
    tried = tried_of(curve)
    chosen = choose(tried, floor=floor)
    allowed = [one for one in tried if holds(one, floor=floor)]
    if allowed:
        assert chosen in allowed
        assert chosen.score == max(one.score for one in allowed)
        assert all(one.score < chosen.score for one in allowed if one.alpha > chosen.alpha)
    else:
        assert chosen.general == max(one.general for one in tried)


@given(CURVE, FLOOR)
def test_it_stops_only_after_a_loss_on_the_target_with_one_that_holds_the_floor(curve, floor):
    tried = walked(curve, floor)
    if len(tried) < len(curve):
        *before, last = tried
        assert last.score <= max(one.score for one in before)
        assert any(holds(one, floor=floor) for one in tried)


def test_the_floor_changes_the_choice():
    tried = [Tried(1.0, 0.9, 0.50), Tried(0.8, 0.8, 0.58), Tried(0.6, 0.7, 0.60)]
    assert choose(tried, floor=None).alpha == 1.0
    assert choose(tried, floor=0.55).alpha == 0.8
    assert choose(tried, floor=0.59).alpha == 0.6
    assert choose(tried, floor=0.61).alpha == 0.6  # none holds it: what forgets least


@pytest.mark.parametrize(("base", "loss"), [(0.6, 0.02), (0.7, 0.1), (1.0, 0.03), (0.3, 0.0)])
def test_a_loss_of_just_what_is_allowed_is_allowed(base, loss):
    assert holds(Tried(1.0, 0.5, base - loss), floor=base - loss)
    assert holds(Tried(1.0, 0.5, round(base - loss, 10)), floor=base - loss)
    assert not holds(Tried(1.0, 0.5, base - loss - 1e-3), floor=base - loss)


@dataclass
class Scripted:
    """A pool that tells the share of tuned weights from the weights and scores by a table."""

    recall: dict

    def score(self, encoder):
        alpha = round(float(next(iter(encoder.model.state_dict().values())).flatten()[0]), 3)
        return {"score": self.recall[alpha], "recall@10": self.recall[alpha]}


@pytest.fixture
def tuned(encoder):
    """Weights of zeros before training and of ones after it: their mix is alpha everywhere."""
    weights = encoder.model.state_dict()
    before = {
        name: torch.zeros_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }
    encoder.model.load_state_dict(
        {
            name: torch.ones_like(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }
    )
    return encoder, before


class Before:
    """The base model, as far as a scripted pool looks at it."""

    class model:
        @staticmethod
        def state_dict():
            return {"w": torch.zeros(1)}


def mixed(tuned, general, **settings):
    encoder, before = tuned
    target = Scripted({0.8: 0.75, 0.6: 0.7, 0.5: 0.65, 0.4: 0.6})
    log = [{"loss": 1.0}, {"eval_score": 0.8, "eval_recall@10": 0.8}]
    config = TrainingConfig(**settings)
    facts = soup(encoder, target, before, log=log, config=config, general=general, base=Before)
    left = {round(float(t.flatten()[0]), 3) for t in encoder.model.state_dict().values()
            if t.is_floating_point()}  # fmt: skip
    assert left == {facts["soup_alpha"]}  # the encoder holds what was chosen
    return facts


def test_without_a_general_set_the_facts_are_those_of_dev_alone(tuned):
    assert mixed(tuned, []) == {"soup_alpha": 1.0, "soup_dev": {"1": 0.8, "0.8": 0.75}}


def test_tuned_weights_that_forget_too_much_are_mixed_with_the_base(tuned, capsys):
    one = Scripted({0.0: 0.7, 1.0: 0.5, 0.8: 0.60, 0.6: 0.69, 0.5: 0.7})
    other = Scripted({0.0: 0.5, 1.0: 0.5, 0.8: 0.52, 0.6: 0.49, 0.5: 0.5})
    facts = mixed(tuned, [one, other], max_forgetting=0.03)
    assert facts["soup_alpha"] == 0.6
    assert facts["soup_dev"] == {"1": 0.8, "0.8": 0.75, "0.6": 0.7}
    assert facts["general_dev_base"] == pytest.approx(0.6)
    assert facts["soup_general"] == pytest.approx({"1": 0.5, "0.8": 0.56, "0.6": 0.59})
    assert "alpha 0.6 is the best on dev of the 1 of 3 tried" in facts["soup_why"]
    assert "soup alpha 0.8: dev recall@10 0.7500, general 0.5600" in capsys.readouterr().err


def test_where_none_holds_the_floor_what_forgets_least_is_taken_and_said(tuned, capsys):
    general = Scripted({0.0: 0.9, 1.0: 0.5, 0.8: 0.6, 0.6: 0.72, 0.5: 0.71, 0.4: 0.7})
    facts = mixed(tuned, [general])
    assert facts["soup_alpha"] == 0.6
    assert list(facts["soup_dev"]) == ["1", "0.8", "0.6", "0.5", "0.4"]
    said = "each alpha tried loses more than 0.02 recall@10 on the general sets; alpha 0.6 loses"
    assert f"{said} least, 0.1800" in capsys.readouterr().err


def test_a_higher_limit_lets_the_tuned_weights_through(tuned):
    general = Scripted({0.0: 0.9, 1.0: 0.5, 0.8: 0.6, 0.6: 0.72})
    assert mixed(tuned, [general], max_forgetting=0.4)["soup_alpha"] == 1.0
