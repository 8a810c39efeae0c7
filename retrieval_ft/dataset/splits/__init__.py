"""Splits that do not leak: checks on the ones a dataset brings, and carving of the ones it lacks."""

from retrieval_ft.dataset.splits.carve import Carving, SplitBy, carve, complete
from retrieval_ft.dataset.splits.checks import check_judged, check_leaks, normalize
from retrieval_ft.dataset.splits.groups import Kind, near_duplicates_of_train, seen_or_unseen

__all__ = [
    "Carving",
    "Kind",
    "SplitBy",
    "carve",
    "check_judged",
    "check_leaks",
    "complete",
    "near_duplicates_of_train",
    "normalize",
    "seen_or_unseen",
]
