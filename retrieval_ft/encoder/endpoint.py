"""An embedding model behind an OpenAI-compatible endpoint, as an encoder; importing this loads no torch.

It is for measuring what others serve (a provider's model, or a server of one's own such as vLLM or
text-embeddings-inference). Texts are sent as they are, since a figure would be of other texts
otherwise: no prompt is put before them, and personal data is not taken out. What has come back is kept
in the embedding cache, so an interrupted measurement goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_ft import artifacts
from retrieval_ft.console import note, progress
from retrieval_ft.encoder.cache import EmbeddingCache, text_key
from retrieval_ft.encoder.protocol import Role, Vectors
from retrieval_ft.endpoints import (
    LONGEST_WAIT_S,
    Address,
    Backoff,
    Fault,
    host,
    key_of,
    shown_url,
)
from retrieval_ft.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from retrieval_ft.endpoints import Connection

BATCH = 64
"""Texts of one request at first; half as many where a server refuses (text-embeddings-inference takes 32)."""
CONCURRENCY = 4
RETRIES = 5
TIMEOUT_S = 60.0
_GROUP = 16
"""Batches that go into the cache together; what has arrived of them is kept when one fails."""
_TRIED_AGAIN = frozenset({"dropped", "timeout", "rate_limited", "server_error"})
_ABOUT = "endpoint.json"


class EndpointEncoder:
    """A model as a function from texts to vectors; an answer is asked for once and then kept.

    Args:
        url: of the endpoint, such as http://127.0.0.1:8080/v1.
        model: as the endpoint knows it.
        place: what the user calls it, for messages.
        key_variable: environment variable that holds the key; none is needed on this machine.
        cache_root: where vectors are kept, by address and model; by default they are not.
        backoff: waits between tries.

    Raises:
        ConfigError: the address is none.
        DependencyError: the package `openai` is missing, or a key that is needed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        place: str = "endpoint",
        key_variable: str = "OPENAI_API_KEY",
        cache_root: Path | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.prompts: dict[Role, str] = {"query": "", "passage": ""}
        if not url.startswith(("http://", "https://")) or not host(url):
            raise ConfigError(
                f"{place}: {shown_url(url)!r} is no http or https address; the form is "
                "http://127.0.0.1:8000/v1"
            )
        self.address = Address(
            url,
            model,
            key_variable=key_variable,
            timeout_s=TIMEOUT_S,
            url_setting=place,
            model_setting=f"the model of {place}",
            key_setting="--api-key-variable",
            timeout_setting="a fixed limit",
        )
        self._backoff = backoff or Backoff()
        identity = artifacts.sha256_json([url, model])
        self._folder = cache_root / f"{identity[:32]}-endpoint" if cache_root else None
        self._cache: EmbeddingCache | None = None
        self._dimension: int | None = None
        self._batch = BATCH
        key_of(self.address)
        _check_package()

    def encode(self, texts: Sequence[str], *, role: Role) -> Vectors:
        """Encode texts; one that was answered before comes from the cache.

        Returns:
            float32 [n, dimension], L2-normalised, in the order of `texts`. The role changes nothing.

        Raises:
            DependencyError: the endpoint is down, refuses, or answers with something else than one
                finite vector of one width for each text. What it had answered is kept.
        """
        unique = list(dict.fromkeys(texts))
        known = self._known(unique)
        missing = [text for text in unique if text not in known]
        if missing:
            known |= asyncio.run(self._ask(missing, role))
        width = self._dimension or 0
        rows = [known[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, width), np.float32)

    def _known(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """Texts that the cache has, with their vectors."""
        cache = self._opened()
        if cache is None or self._dimension is None:
            return {}
        vectors = np.empty((len(texts), self._dimension), np.float32)
        gone = set(cache.lookup([text_key(text) for text in texts], vectors).tolist())
        return {text: vectors[i] for i, text in enumerate(texts) if i not in gone}

    async def _ask(self, texts: Sequence[str], role: Role) -> dict[str, Vectors]:
        """Ask for every text, some batches at once."""
        from retrieval_ft.endpoints import Connection

        found: dict[str, Vectors] = {}
        async with Connection(self.address) as connection:
            limit = asyncio.Semaphore(CONCURRENCY)
            with progress(f"asking {self.address.model} for {role} vectors", len(texts)) as bar:
                while len(found) < len(texts):
                    rest, size = texts[len(found) :], self._batch
                    # The first alone: it says how wide the vectors are, and how many texts are taken.
                    starts = range(0, size * _GROUP if found else size, size)
                    group = [rest[at : at + size] for at in starts if at < len(rest)]
                    arrived = await self._group(connection, group, limit)
                    found |= arrived
                    bar.advance(len(arrived))
        return found

    async def _group(
        self, connection: Connection, batches: Sequence[Sequence[str]], limit: asyncio.Semaphore
    ) -> dict[str, Vectors]:
        """Ask for some batches, and keep what has arrived, whatever becomes of the rest."""
        arrived: dict[str, Vectors] = {}

        async def one(batch: Sequence[str]) -> None:
            async with limit:
                vectors = await self._tries(connection, batch)
            arrived.update(zip(batch, vectors, strict=True))

        try:
            async with asyncio.TaskGroup() as tasks:
                for batch in batches:
                    tasks.create_task(one(batch))
        except* Fault as faults:
            raise DependencyError(str(faults.exceptions[0])) from faults
        finally:
            self._keep(arrived)
        return arrived

    async def _tries(self, connection: Connection, batch: Sequence[str]) -> Vectors:
        """Ask for one batch, and again after faults that pass.

        Raises:
            Fault: there is no answer that can be used.
        """
        attempt = 0
        while True:
            try:
                return await self._once(connection, batch)
            except Fault as fault:
                if fault.reason == "rejected" and len(batch) > 1:
                    return await self._halves(connection, batch)
                wait = fault.wait_s or self._backoff.wait(attempt)
                passes = fault.reason in _TRIED_AGAIN and wait <= LONGEST_WAIT_S
                if not passes or attempt == RETRIES:
                    raise
                if attempt == 0:
                    note(f"{fault}; waiting, then trying again")
                await asyncio.sleep(wait)
            attempt += 1

    async def _halves(self, connection: Connection, batch: Sequence[str]) -> Vectors:
        """Ask for a refused batch in two: perhaps it held too many texts, and so would others."""
        middle = (len(batch) + 1) // 2
        self._batch = min(self._batch, middle)
        parts = [await self._tries(connection, half) for half in (batch[:middle], batch[middle:])]
        return np.concatenate(parts)

    async def _once(self, connection: Connection, batch: Sequence[str]) -> Vectors:
        import openai

        # Endpoints refuse an empty text, and one of a space means the same to a model.
        request = connection.client.embeddings.with_raw_response.create(
            model=self.address.model,
            input=[text or " " for text in batch],
            encoding_format="float",
            extra_headers=connection.headers,
        )
        try:
            body = await connection.body(request)
        except (openai.APIStatusError, openai.APIConnectionError, TimeoutError) as error:
            raise connection.fault(error) from error
        return self._vectors(connection, body, count=len(batch))

    def _vectors(self, connection: Connection, body: str, *, count: int) -> Vectors:
        """Read a body that should hold one vector a text, and take nothing in it for granted."""
        where = self.address.where
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        rows = data.get("data") if isinstance(data, dict) else None
        if not isinstance(rows, list):
            said = connection.words((isinstance(data, dict) and data.get("error")) or body)
            raise _garbled(
                f"{where}: answers, but not with embeddings: {said}; check the address, which mostly "
                "ends in /v1"
            )
        found = _in_order(rows, count)
        if found is None:
            raise _garbled(
                f"{where}: gave {len(rows)} vectors for {count} texts, or not one for each"
            )
        widths = {len(row) for row in found}
        expected = self._dimension or len(found[0])
        if widths != {expected} or not expected:
            raise _garbled(
                f"{where}: gave vectors of {', '.join(map(str, sorted(widths)))} numbers where "
                f"{expected} are expected; is another model behind the name {self.address.model!r} now? "
                + (f"Its earlier vectors are in {self._folder}" if self._folder else "")
            )
        self._dimension = expected
        return self._normalised(found)

    def _normalised(self, rows: Sequence[Sequence[Any]]) -> Vectors:
        where = self.address.where
        try:
            vectors = np.array(rows, np.float64)
        except (TypeError, ValueError) as error:
            raise _garbled(
                f"{where}: gave a vector that does not hold numbers ({error})"
            ) from error
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise _garbled(f"{where}: gave a vector that holds NaN or infinity")
        if not lengths.all():
            raise _garbled(f"{where}: gave a vector of zeros, which has no direction")
        normalised: Vectors = (vectors / lengths).astype(np.float32)
        return normalised

    def _opened(self) -> EmbeddingCache | None:
        """The cache, once it is known how wide the vectors are."""
        if self._cache is None and self._folder is not None:
            about = self._folder / _ABOUT
            if self._dimension is None and about.is_file():
                self._dimension = int(artifacts.read_json(about)["dimension"])
            if self._dimension is not None:
                self._cache = EmbeddingCache(self._folder, dimension=self._dimension)
        return self._cache

    def _keep(self, arrived: dict[str, Vectors]) -> None:
        if self._folder is None or not arrived:
            return
        about = self._folder / _ABOUT
        if not about.is_file():
            shown = {"url": shown_url(self.address.url), "model": self.address.model}
            artifacts.write_json(about, {**shown, "dimension": self._dimension})
        if (cache := self._opened()) is not None:
            cache.add([text_key(text) for text in arrived], np.stack(list(arrived.values())))


def _in_order(rows: Sequence[Any], count: int) -> list[list[Any]] | None:
    """The vectors by their `index`; None where there is not just one for each text."""
    found: dict[int, list[Any]] = {}
    for place, row in enumerate(rows):
        vector = row.get("embedding") if isinstance(row, dict) else None
        index = row.get("index", place) if isinstance(row, dict) else None
        if not isinstance(vector, list) or not isinstance(index, int):
            return None
        found[index] = vector
    whole = len(rows) == count and set(found) == set(range(count))
    return [found[place] for place in range(count)] if whole else None


def _garbled(message: str) -> Fault:
    return Fault("no_vectors", message)


def _check_package() -> None:
    """Tell what is missing before the work starts."""
    try:
        import httpx2  # noqa: F401
        import openai  # noqa: F401
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"an embeddings endpoint needs the package {error.name!r}, which is not installed; run "
            "pip install 'retrieval-ft[synthetic]'"
        ) from error
