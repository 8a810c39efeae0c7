import pytest

from retrieval_ft.config import PairsConfig
from retrieval_ft.errors import ConfigError
from retrieval_ft.mining.generate import choose_tier


@pytest.mark.parametrize(
    ("train_pairs", "name", "words"),
    [
        (500, "labels", "500 labelled train pairs are plentiful (pairs.plentiful is 500)"),
        (499, "both", "499 labelled train pairs are few"),
        (1, "both", "1 labelled train pair is few"),
        (0, "corpus", "There are no labelled train pairs"),
    ],
)
def test_auto_goes_by_the_number_of_labels(train_pairs, name, words):
    tier = choose_tier(train_pairs, has_endpoint=False, config=PairsConfig())
    assert (tier.name, words in tier.reason) == (name, True)
    assert tier.reason.endswith(".")


def test_the_reason_says_what_makes_the_pairs():
    reason = choose_tier(0, has_endpoint=True, config=PairsConfig(kinds=("title", "crop"))).reason
    assert reason.endswith(
        "training uses pairs made from the corpus (title, crop) and queries written by the endpoint."
    )
    config = PairsConfig(kinds=())
    assert choose_tier(0, has_endpoint=True, config=config).reason.endswith(
        "training uses queries written by the endpoint."
    )


@pytest.mark.parametrize("name", ["labels", "both", "corpus"])
def test_what_the_configuration_asks_for_is_done(name):
    tier = choose_tier(10_000, has_endpoint=False, config=PairsConfig(tier=name))
    assert tier.name == name
    assert tier.reason.startswith(f"pairs.tier={name} was asked for")


@pytest.mark.parametrize("name", ["labels", "both"])
def test_labels_that_are_not_there_cannot_be_asked_for(name):
    with pytest.raises(ConfigError, match=rf"pairs\.tier={name}: there are no labelled") as caught:
        choose_tier(0, has_endpoint=True, config=PairsConfig(tier=name))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "train_pairs"), [("both", 3), ("corpus", 3), ("auto", 0)])
def test_pairs_that_nothing_makes_cannot_be_asked_for(name, train_pairs):
    with pytest.raises(ConfigError, match=r"name some in pairs\.kinds"):
        choose_tier(train_pairs, has_endpoint=False, config=PairsConfig(tier=name, kinds=()))


def test_few_labels_are_used_alone_where_nothing_makes_more():
    tier = choose_tier(3, has_endpoint=False, config=PairsConfig(kinds=()))
    assert tier.name == "labels"
    assert "nothing makes more" in tier.reason
