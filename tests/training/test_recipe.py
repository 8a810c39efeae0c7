import pytest

from retrieval_ft.config import TrainingConfig
from retrieval_ft.training.recipe import resolve_recipe


def recipe(pairs, hidden_size=384, **given):
    return resolve_recipe(TrainingConfig(**given), pairs=pairs, hidden_size=hidden_size)


def test_fewer_pairs_get_more_passes_and_smaller_batches():
    sizes = [50, 500, 1_500, 4_000, 20_000, 1_000_000]
    found = [recipe(pairs) for pairs in sizes]
    epochs = [one.epochs for one in found]
    batches = [one.batch_size for one in found]
    assert epochs == sorted(epochs, reverse=True)
    assert (epochs[0], epochs[-1]) == (3, 1)
    assert batches == sorted(batches)
    assert all(16 <= batch <= 64 and batch % 8 == 0 for batch in batches)


def test_the_rate_falls_with_the_width_of_the_model():
    small, base, large = (recipe(1_000, width).learning_rate for width in (384, 768, 1024))
    assert base == pytest.approx(small * 384 / 768)
    assert large == pytest.approx(small * 384 / 1024)


def test_pairs_made_from_the_corpus_get_one_pass_at_a_lower_rate():
    def of(made):
        return resolve_recipe(TrainingConfig(), pairs=1_000, hidden_size=384, made=made)

    labelled, mixed, most = of(0), of(500), of(501)
    assert mixed == labelled
    assert most.epochs == 1
    assert most.learning_rate < labelled.learning_rate
    assert most.batch_size == labelled.batch_size


def test_what_the_config_says_stands():
    found = recipe(1_000, epochs=7, batch_size=5, learning_rate=1e-6)
    assert (found.epochs, found.batch_size, found.learning_rate) == (7, 5, 1e-6)
