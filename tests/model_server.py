"""A model server of ours, on a real loopback socket, that does what it is told: also what a good one never would.

    with ModelServer() as model:
        model.replies["hi"] = [stream("hel", "lo")]

A reply is a list of steps: bytes to send, `STALL` (nothing more comes until the client hangs up), `RESET` (the
connection is torn down). A prompt's replies are given one a request, the last again and again; a prompt that has
none is said again.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import struct
import threading
import time

PATIENCE = 60.0

STALL, RESET = object(), object()


def head(status: str = "200 OK", kind: str = "text/event-stream", **more: str) -> bytes:
    """Return the head of a response whose body ends with the connection."""
    fields = {"Content-Type": kind, "Connection": "close", **{k.replace("_", "-"): v for k, v in more.items()}}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items() if value), "", ""]
    return "\r\n".join(lines).encode()


def event(chunk) -> bytes:
    return f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n".encode()


def delta(finish=None, **fields) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


def usage(total: int) -> bytes:
    return event(
        {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": total}}
    )


DONE = event("[DONE]")


def stream(*texts: str, finish: str | None = "stop", total: int = 7) -> list:
    """Return a good answer."""
    role = delta(role="assistant", content="")
    return [head(), role, *(delta(content=text) for text in texts), delta(finish=finish), usage(total), DONE]


def fault(status: str, message: str, **more: str) -> list:
    """Return a refusal as OpenAI words it."""
    body = json.dumps({"error": {"message": message, "type": "t", "code": None}}).encode()
    return [head(status, "application/json", **more), body]


class ModelServer:
    """Serves until its block ends. `requests` has what came to `/chat/completions`: body, headers, and when."""

    def __init__(self):
        self.replies: dict[str, list[list]] = {}
        self.models: list = [head(kind="application/json"), b'{"object": "list", "data": []}']
        self.requests: list[dict] = []
        self.probes: list[dict] = []  #: the headers of what came to `/models`
        self.gone: queue.Queue[str] = queue.Queue()  #: prompts whose client hung up while it was stalled
        self.connections = 0
        self._came: queue.Queue[str] = queue.Queue()
        self._asked: dict[str, int] = {}
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        """Serve nobody any more: whoever connects is refused."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def config(self, **more) -> str:
        """Return `[agent]` for this server."""
        keys = {"type": "openai", "base_url": self.url, "model": "m", **more}
        return "[agent]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())

    def wait_for_request(self) -> str:
        """Wait for the next request; return its prompt."""
        return self._came.get(timeout=PATIENCE)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            client.settimeout(PATIENCE)
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            with client, client.makefile("rb") as lines, contextlib.suppress(OSError):
                while line := lines.readline():
                    headers = {}
                    while field := lines.readline().decode("latin-1").strip():
                        name, _, value = field.partition(": ")
                        headers[name.lower()] = value
                    body = lines.read(int(headers.get("content-length", 0)))
                    steps, prompt = self._reply(line.decode(), headers, body)
                    if not self._take(steps, prompt, client):
                        return
        finally:
            self._open.discard(client)

    def _reply(self, line, headers, body):
        if line.split()[1] == "/v1/models":
            self.probes.append(headers)
            return self.models, ""
        assert line.split()[:2] == ["POST", "/v1/chat/completions"], line
        asked = json.loads(body)
        prompt = asked["messages"][-1]["content"].rpartition("\n\n")[2]  # behind those that were not answered
        self.requests.append({"body": asked, "headers": headers, "at": time.monotonic()})
        self._came.put(prompt)
        replies = self.replies.get(prompt) or [stream(prompt)]
        count = self._asked[prompt] = self._asked.get(prompt, 0) + 1
        return replies[min(count, len(replies)) - 1], prompt

    def _take(self, steps, prompt, client) -> bool:
        """Carry out a reply; return whether the connection can take another request."""
        for step in steps:
            if step is STALL:
                with contextlib.suppress(ConnectionError):
                    while client.recv(4096):
                        pass
                self.gone.put(prompt)
                return False
            if step is RESET:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            try:
                client.sendall(step)
            except OSError:
                if STALL in steps:  # its client hung up before it came to that
                    self.gone.put(prompt)
                raise
        return b"Transfer-Encoding: chunked" in steps[0]
