"""retrieval_ft: from a folder of documents to a better retriever, with proof."""

__version__ = "0.1.0"
__all__ = ["__version__"]
