"""One chat server a session, as new for each test, and a config that points at it."""

import pytest
from chat_server import PASSAGES, running, scrub

from retrieval_ft.config import SyntheticConfig
from retrieval_ft.mining.synthetic import write_queries
from retrieval_ft.mining.synthetic.asking import Backoff

QUICK = Backoff(first_s=0.01, longest_s=0.05)


@pytest.fixture(autouse=True)
def _no_key(no_key):
    """For every test here."""


@pytest.fixture(scope="session")
def one_server():
    with running() as server:
        yield server


@pytest.fixture
def server(one_server):
    one_server.reset()
    return one_server


@pytest.fixture
def config(server):
    """Points at the server; `config.model_copy(update=...)` for another."""
    return SyntheticConfig(base_url=server.url, model="small", kinds=("question",), retries=2)


@pytest.fixture
def write(tmp_path):
    """`write_queries` over twelve passages, with short waits and a cache in tmp_path."""

    def call(config, passages=PASSAGES, *, examples=(), cache=tmp_path / "cache", seed=13, **more):
        more = {"scrub": scrub, "backoff": QUICK, **more}
        return write_queries(
            passages, config=config, examples=examples, cache=cache, seed=seed, **more
        )

    return call
