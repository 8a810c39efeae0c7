"""A server on loopback for tests."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request


@contextmanager
def serving(make, path):
    """Answer POSTs to a path by what `make(port)` gives, whose `reply` does it; stopped at the end."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = make(listening.getsockname()[1])
    app = FastAPI()

    @app.post(path)
    async def answer(request: Request):
        return await server.reply(dict(request.headers), await request.json())

    inner = uvicorn.Server(
        uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, lifespan="off")
    )
    thread = threading.Thread(target=inner.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not inner.started:
        time.sleep(0.01)
    try:
        yield server
    finally:
        inner.should_exit = True
        thread.join(10)
        listening.close()
