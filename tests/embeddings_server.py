"""A real HTTP server on loopback that speaks embeddings, and fails when it is told to."""

import asyncio
import hashlib

import numpy as np
from fastapi.responses import JSONResponse, Response
from loopback import serving

WIDTH = 8


def vector(text, *, width=WIDTH):
    """What the server answers for a text: numbers that the text decides, not of length 1."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return (3 * np.random.default_rng(seed).normal(size=width)).tolist()


def embeddings(texts, *, width=WIDTH):
    """The JSON body of an answer, its rows last to first: `index` says which is whose."""
    rows = [
        {"object": "embedding", "index": i, "embedding": vector(text, width=width)}
        for i, text in enumerate(texts)
    ]
    return {"object": "list", "model": "any", "data": rows[::-1]}


def obliging(number, body):
    del number
    return embeddings(body["input"])


class EmbeddingsServer:
    """`answer(number, body)` gives each reply: a body for 200, or a Response. Numbers from 1."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/v1"
        self.reset()

    def reset(self):
        self.answer = obliging
        self.requests = []

    @property
    def texts(self):
        """Every text that was sent, in order of arrival."""
        return [text for _, body in self.requests for text in body["input"]]

    async def reply(self, headers, body):
        self.requests.append((headers, body))
        answer = self.answer(len(self.requests), body)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer if isinstance(answer, Response) else JSONResponse(answer)


def running():
    """Start a server on a free port of loopback; stopped at the end."""
    return serving(EmbeddingsServer, "/v1/embeddings")
