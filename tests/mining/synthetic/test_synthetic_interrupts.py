"""Ctrl-C and kill -9 in the middle: what had arrived is kept, and the rest is all that is asked."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import check_sums, obliging

CODE = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts without
from chat_server import PASSAGES, scrub
from retrieval_ft.config import SyntheticConfig
from retrieval_ft.mining.synthetic import write_queries

config = SyntheticConfig(base_url=sys.argv[1], model="small", kinds=("question",), concurrency=3)
try:
    write_queries(
        PASSAGES, config=config, examples=[], cache=Path(sys.argv[2]), seed=13, scrub=scrub
    )
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_what_had_arrived_is_kept(server, config, write, tmp_path, ending):
    async def stalls(number, body):
        if number > 5:
            await asyncio.sleep(30)
        return obliging(number, body)

    server.answer = stalls
    cache = tmp_path / "cache"
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, server.url, str(cache)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(server.requests) < 8 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert len(server.requests) == 8  # five answered, three in flight
    child.send_signal(ending)
    out, err = child.communicate(timeout=30)
    assert child.returncode == (130 if ending == signal.SIGINT else -9), out + err
    assert "Traceback" not in err
    server.answer = obliging
    result = write(config)
    check_sums(result)
    assert result.account.from_cache == 5 and result.account.requests == 7
    assert len(result.pairs) == 12
