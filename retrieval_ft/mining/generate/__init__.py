"""Training pairs where there are no labels: taken from the corpus, filtered, made into a data set.

`extract`, then `check_overlap`, then `check_round_trip` with `hybrid_ranks`, then `leave_some_whole`,
then `to_dataset`; `choose_tier` says whether any of it is needed.
"""

from retrieval_ft.mining.generate.assemble import GeneratedSet, to_dataset
from retrieval_ft.mining.generate.crop import leave_some_whole
from retrieval_ft.mining.generate.extract import Extraction, extract
from retrieval_ft.mining.generate.filters import (
    account,
    check_overlap,
    check_round_trip,
    describe,
    shown,
)
from retrieval_ft.mining.generate.ranks import Side, hybrid_ranks
from retrieval_ft.mining.generate.tier import Tier, choose_tier
from retrieval_ft.mining.generate.types import Dropped, Filtered, GeneratedPair

__all__ = [
    "Dropped",
    "Extraction",
    "Filtered",
    "GeneratedPair",
    "GeneratedSet",
    "Side",
    "Tier",
    "account",
    "check_overlap",
    "check_round_trip",
    "choose_tier",
    "describe",
    "extract",
    "hybrid_ranks",
    "leave_some_whole",
    "shown",
    "to_dataset",
]
