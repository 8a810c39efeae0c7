"""How each stack must load an exported model: a prompt that serving forgets is the commonest loss.

What each stack does with prompts and pooling was read in its sources; `design` notes name the traps:
LangChain calls `encode` without a prompt, LlamaIndex blanks saved prompts of a local path, FastEmbed
knows no pooling of a custom model, text-embeddings-inference takes the prompt by its name.
"""

from __future__ import annotations


def loading(
    folder: str, *, query_prompt: str, separate_passages: bool = False
) -> list[dict[str, str]]:
    """Code that loads a model folder, by stack: `[{"stack": ..., "code": ...}, ...]`.

    Args:
        folder: The model folder, as it shall stand in the code.
        query_prompt: Put before each query.
        separate_passages: The folder is for queries alone; `passages/` in it holds the other model.
            Stacks with one model for both sides are left out then.
    """
    passages = f"{folder}/passages" if separate_passages else folder
    both = {} if separate_passages else _one_model(folder, query_prompt)
    found = {
        "sentence-transformers": f"""from sentence_transformers import SentenceTransformer

queries = SentenceTransformer({folder!r}).encode(["a question"], prompt_name="query")
passages = SentenceTransformer({passages!r}).encode(["a passage"], prompt_name="document")
scores = queries @ passages.T""",
        **both,
    }
    return [{"stack": stack, "code": code} for stack, code in found.items()]


def _one_model(folder: str, query_prompt: str) -> dict[str, str]:
    return {
        "LangChain": f"""from langchain_huggingface import HuggingFaceEmbeddings

embeddings = HuggingFaceEmbeddings(
    model_name={folder!r},
    query_encode_kwargs={{"prompt_name": "query"}},
    encode_kwargs={{"prompt_name": "document"}},
)""",
        "LlamaIndex": f"""from llama_index.embeddings.huggingface import HuggingFaceEmbedding

embedding = HuggingFaceEmbedding({folder!r}, query_instruction={query_prompt!r}, text_instruction="")""",
        "Haystack": f"""from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

queries = SentenceTransformersTextEmbedder({folder!r}, prefix={query_prompt!r})
passages = SentenceTransformersDocumentEmbedder({folder!r})""",
        "text-embeddings-inference": f"""text-embeddings-router --model-id {folder}
curl localhost:80/embed -H 'Content-Type: application/json' \\
  -d '{{"inputs": "a question", "prompt_name": "query"}}'""",
    }
