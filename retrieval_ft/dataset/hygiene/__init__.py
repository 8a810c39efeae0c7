"""Hygiene of a corpus and its labels; every check gives a count and lists what it touched."""

from retrieval_ft.dataset.hygiene.account import Check
from retrieval_ft.dataset.hygiene.boilerplate import BoilerplateCounter
from retrieval_ft.dataset.hygiene.clean import Hygiene, clean
from retrieval_ft.dataset.hygiene.collapse import collapse
from retrieval_ft.dataset.hygiene.duplicates import Clusters, Duplicate, clusters
from retrieval_ft.dataset.hygiene.language import language_mix

__all__ = [
    "BoilerplateCounter",
    "Check",
    "Clusters",
    "Duplicate",
    "Hygiene",
    "clean",
    "clusters",
    "collapse",
    "language_mix",
]
