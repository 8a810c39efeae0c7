from hypothesis import given
from hypothesis import strategies as st

from retrieval_ft.mining.generate import crop
from retrieval_ft.mining.generate.types import GeneratedPair

TEXT = (
    "Parcels leave the depot at dawn. They reach most towns by noon.\n\n"
    "- Rivers in flood close two of the bridges.\n"
    "| weight | price |\n\n"
    "A driver waits at the gate until the river falls."
)


@given(st.text(alphabet=st.sampled_from("aB .!?\n-|1é你。\u2003\t")))
def test_sentences_follow_each_other_and_lie_in_the_text(text):
    end = 0
    for sentence in crop.sentences(text):
        assert end <= sentence.start < sentence.end <= len(text)
        assert crop.words.clean(text[sentence.start : sentence.end]) == sentence.query
        end = sentence.end


def test_list_items_and_table_rows_are_sentences_of_their_own():
    assert [sentence.query for sentence in crop.sentences(TEXT)] == [
        "Parcels leave the depot at dawn.",
        "They reach most towns by noon.",
        "Rivers in flood close two of the bridges.",
        "| weight | price |",
        "A driver waits at the gate until the river falls.",
    ]


def test_the_view_is_title_and_text_less_the_sentence():
    first, second, *_ = crop.sentences("Parcels leave at dawn. They arrive by noon. Then all rest.")
    text = "Parcels leave at dawn. They arrive by noon. Then all rest."
    assert crop.without("Depot", text, second) == "Depot Parcels leave at dawn. Then all rest."
    assert crop.without("", text, first) == "They arrive by noon. Then all rest."


def test_sentences_that_are_no_prose_are_no_queries():
    assert crop.fault("Rivers in flood close two bridges.") is None
    assert crop.fault("Rivers close.") == "too_short"
    assert crop.fault("| weight | price | size | place | day |") == "no_prose"
    assert crop.fault("a = b[1] + 22 * (c - 333) / d[4].") == "no_prose"
    assert crop.fault("Wide " * 41 + "rivers.") == "too_long"
    assert crop.fault('The clerk asked: "Is the river wide?"') is None


def test_the_choice_hangs_on_seed_and_id_and_avoids_sentences_that_lean():
    found = crop.sentences("Boats sail on the lake. They turn at the pier. Kites fly over it.")
    chosen = {crop.choose(found, seed=1, passage_id=f"p{i}").query for i in range(40)}
    assert chosen == {"Boats sail on the lake.", "Kites fly over it."}
    assert crop.choose(found[1:2], seed=1, passage_id="p").query == "They turn at the pier."
    assert crop.choose([], seed=1, passage_id="p") is None


def test_a_tenth_of_the_cropped_passages_stays_whole():
    pairs = [GeneratedPair(f"query {i}", f"p{i}", "crop", "view") for i in range(4000)]
    whole = crop.leave_some_whole(pairs, seed=3)
    share = sum(pair.view is None for pair in whole) / len(pairs)
    assert abs(share - crop.WHOLE_SHARE) < 4 * (0.1 * 0.9 / len(pairs)) ** 0.5  # four deviations
    assert crop.leave_some_whole(pairs[::-1], seed=3) == whole[::-1]
    assert [pair.query for pair in whole] == [pair.query for pair in pairs]
    titles = [GeneratedPair(f"query {i}", f"p{i}", "title", "view") for i in range(200)]
    assert crop.leave_some_whole(titles, seed=3) == tuple(titles)
