"""Models: a name becomes a verified folder on this disk."""

from retrieval_ft.models.resolve import ModelRow, ResolvedModel, fetch, list_models, resolve
from retrieval_ft.models.table import DEFAULT_EMBEDDER

__all__ = ["DEFAULT_EMBEDDER", "ModelRow", "ResolvedModel", "fetch", "list_models", "resolve"]
