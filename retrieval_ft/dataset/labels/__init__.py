"""Labels that others wrote, brought in as they are: which passages answer which queries."""

from retrieval_ft.dataset.labels.gather import Labels
from retrieval_ft.dataset.labels.read import brings_texts, names_ids, read_labels

__all__ = ["Labels", "brings_texts", "names_ids", "read_labels"]
