"""A real HTTP server on loopback that speaks chat completions, and fails when it is told to."""

import asyncio
import json
import re
import time

from fastapi.responses import JSONResponse, Response
from loopback import serving

PASSAGES = [
    (
        f"p{i:02}",
        f"The {thing} of {place} opens at {i + 5} and closes when the last guest has left.",
    )
    for i, (thing, place) in enumerate(
        (thing, place)
        for thing in ("harbour", "library", "market", "swimming bath")
        for place in ("Ault", "Brede", "Castra")
    )
]


def scrub(text):
    """A scrubber for tests: e-mail addresses only."""
    return re.sub(r"[\w.]+@[\w.]+\w", "<EMAIL>", text)


def passage_in(body):
    """The passage that a request asks about."""
    prompt = body["messages"][-1]["content"]
    return prompt.split("<passage>\n", 1)[1].rsplit("\n</passage>", 1)[0]


def completion(text, *, usage=None, finish="stop"):
    """The JSON body of a chat completion; `usage` as (prompt, answer) tokens, None for none."""
    body = {
        "id": "chat-1",
        "object": "chat.completion",
        "created": 0,
        "model": "any",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text},
            }
        ],
    }
    if usage:
        body["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": sum(usage),
        }
    return body


def queries(*texts):
    """The JSON that a well-behaved model answers with."""
    return json.dumps({"queries": list(texts)})


def obliging(number, body):
    """A model that writes a query from the first words of the passage; 50 + 10 tokens each."""
    del number
    words = passage_in(body).split()[:3]
    return completion(queries(f"about {' '.join(words)} what is there"), usage=(50, 10))


def error(status, message="no", *, headers=None, **more):
    """An error as OpenAI words it."""
    return JSONResponse({"error": {"message": message, **more}}, status, headers)


def check_sums(result):
    """What the account promises of itself."""
    account = result.account
    assert account.questions == (
        account.answered + account.from_cache + account.not_asked + sum(account.failed.values())
    )
    assert account.queries == len(result.pairs) + sum(account.refused.values())
    assert min(account.answered, account.from_cache, account.not_asked) >= 0


class ChatServer:
    """`answer(number, body)` gives each reply: a body for 200, or a Response; it may be a coroutine.

    Numbers count from 1. `requests` holds what came: headers and body.
    """

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/v1"
        self.reset()

    def reset(self):
        self.answer = obliging
        self.requests = []
        self.at = []
        self.busy = self.most_busy = 0

    @property
    def prompts(self):
        return [body["messages"][-1]["content"] for _, body in self.requests]

    async def reply(self, headers, body):
        self.requests.append((headers, body))
        self.at.append(time.monotonic())
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            answer = self.answer(len(self.requests), body)
            if asyncio.iscoroutine(answer):
                answer = await answer
        finally:
            self.busy -= 1
        return answer if isinstance(answer, Response) else JSONResponse(answer)


def running():
    """Start a server on a free port of loopback; stopped at the end."""
    return serving(ChatServer, "/v1/chat/completions")
