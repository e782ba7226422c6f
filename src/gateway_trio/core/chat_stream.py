"""The stream of an OpenAI-compatible chat completion: bytes in, parts of an answer out. And what is sent for one.

`EventStream` takes bytes apart into the data of server-sent events, after the HTML standard, section 9.2.6.
`Answer` reads those as chunks of a completion, after the OpenAI API reference, "The chat completion chunk object".
Local servers call what the model thinks aloud `reasoning_content` (llama.cpp, vLLM, sglang) or `reasoning`
(Ollama, OpenRouter).

All that a provider can do wrong in a stream is a `StreamFault`, whose text follows "the model ".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve, frozen

from gateway_trio.core.sentence import sentence
from gateway_trio.core.text import clean

__all__ = ["INTERRUPTED", "Answer", "EventStream", "Part", "Said", "StreamFault", "messages"]

#: Of one event, which is read in one go. A chunk of an answer has a few hundred bytes.
MOST_EVENT_BYTES = 1024 * 1024

#: What an answer that was cut ends with, when the model is shown it.
INTERRUPTED = "[this answer was interrupted]"

_MOST_TOKENS = 2**53  # beyond which a number of JSON may be another one (RFC 8259, 6)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class StreamFault(Exception):
    """The stream is none, or broke its rules, or broke off."""


class EventStream:
    """Takes bytes apart into the data of events. Holds at most `MOST_EVENT_BYTES` of one that has not ended.

    Each byte is looked at once, however long the line is in which it stands.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line that has not ended
        self._after_cr = False
        self._begun = False
        self._data: list[str] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of each event that ends in this chunk, cut anywhere. Raises `StreamFault`."""
        if self._after_cr and chunk:  # it ended the line, and may be half of a CRLF
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        first, *others = _LINE_END.split(chunk)
        self._rest += first
        for other in others:
            line, self._rest = self._rest, bytearray(other)
            yield from self._line(bytes(line))
        if self._held + len(self._rest) > MOST_EVENT_BYTES:
            raise StreamFault(f"sent an event of more than {MOST_EVENT_BYTES} bytes")

    def end(self) -> Iterator[str]:
        """Yield the data of an event that no empty line ended: some servers leave out the last one."""
        yield from self._line(bytes(self._rest))
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[str]:
        if not self._begun:
            line, self._begun = line.removeprefix(_BYTE_ORDER_MARK), True
        if not line:
            data, self._data, self._held = self._data, [], 0
            if data:
                yield "\n".join(data)
            return
        name, _, value = line.partition(b":")  # a comment has no name
        if name == b"data":
            self._held += len(line) + 1
            self._data.append(value.removeprefix(b" ").decode(errors="replace"))


@frozen
class Part:
    """More text: of the answer, or of what the model thinks aloud."""

    text: str
    thought: bool = False


class Answer:
    """One answer as its chunks come.

    `hidden` is what no fault may repeat, the key; None for nothing. `finish` is the reason for its end, `used` the
    number of tokens of prompt and answer; both None until told.

    A character outside the BMP may come in two halves, one at the end of a part: it waits there for what follows,
    and what does not make it whole replaces it (`rest` at the end).
    """

    def __init__(self, hidden: str | None = None) -> None:
        self._hidden = hidden
        self.finish: str | None = None
        self.used: int | None = None
        self.done = False  #: [DONE] has come: nothing follows
        self.said = False  #: some part of it has come
        self._half: Part | None = None  #: a surrogate that waits for its other half

    def take(self, data: str) -> list[Part]:
        """Return what an event's data adds to the answer. Raises `StreamFault`."""
        if data.startswith("[DONE]"):
            self.done = True
            return []
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise StreamFault("sent an event that is no JSON") from None
        if isinstance(chunk, dict) and chunk.get("error"):
            raise StreamFault(f"broke off: {sentence(chunk, self._hidden) or 'an error without a message'}")
        try:
            parts = [whole for part in self._chunk(chunk) for whole in self._join(part)]
        except (TypeError, ValueError, AttributeError, LookupError):
            raise StreamFault("sent an event that is no chunk of an answer") from None
        self.said = self.said or bool(parts)
        return parts

    def end(self) -> None:
        """Say that the stream has ended. Raises `StreamFault` where the answer had not."""
        if self.finish is None and not (self.done and self.said):
            raise StreamFault("ended in the middle of its answer" if self.said else "ended without an answer")

    def rest(self) -> list[Part]:
        """Return, once, what waits for more that will not come."""
        half, self._half = self._half, None
        return [evolve(half, text=clean(half.text))] if half else []

    def _join(self, part: Part) -> Iterator[Part]:
        """Yield what there is now of the answer, in its order, every character whole."""
        text = part.text
        if self._half and self._half.thought is part.thought:
            text, self._half = self._half.text + text, None
        yield from self.rest()
        if "\ud800" <= text[-1] <= "\udbff":
            self._half, text = evolve(part, text=text[-1]), text[:-1]
        if text:
            yield evolve(part, text=clean(text))

    def _chunk(self, chunk: Any) -> Iterator[Part]:
        match chunk.get("usage"):
            case {"total_tokens": bool()}:
                pass
            case {"total_tokens": int() | float() as used} if 0 <= used <= _MOST_TOKENS and used == int(used):
                self.used = int(used)  # anything else tells nothing, and the answer is none the worse
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            for key, thought in _TEXTS.items():
                if text := delta.get(key):
                    yield Part(text + "", thought)  # a TypeError for what is no text
                    if thought:
                        break  # some servers send it under both names
            if finish := choice.get("finish_reason"):
                self.finish = str(finish)


#: The keys of a delta that hold text, thoughts last: whether it is a thought.
_TEXTS: Mapping[str, bool] = {"content": False, "refusal": False, "reasoning_content": True, "reasoning": True}


class Said(Protocol):
    """An earlier prompt or answer."""

    @property
    def role(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def interrupted(self) -> bool: ...


def messages(system: str, history: Sequence[Said], text: str, *, most: int) -> list[dict[str, str]]:
    """Return what the model is sent.

    Args:
        system: what it is told first; empty for nothing.
        history: earlier prompts and answers. Those that were interrupted are marked.
        text: the prompt.
        most: how many messages of the history are sent, the newest.

    Roles alternate, from `user` on, as the templates of many models demand: prompts without an answer between them
    are one message, and an answer whose prompt was cut off is left out.

    """
    made = _newest(history, most)
    if made and made[0]["role"] != "user":
        del made[0]
    _add(made, "user", text)
    return [{"role": "system", "content": system}, *made] if system else made


def _newest(history: Sequence[Said], most: int) -> list[dict[str, str]]:
    """Return the newest messages of a history, `most` of them, without reading all of it."""
    count = most
    while count:
        items = history[-count:]
        made: list[dict[str, str]] = []
        for item in items:
            said = f"{item.text}\n\n{INTERRUPTED}" if item.interrupted else item.text
            _add(made, item.role, said)
        if len(made) > most or len(items) < count:  # the first may be the end of a longer one
            return made[-most:]
        count *= 2
    return []


def _add(made: list[dict[str, str]], role: str, text: str) -> None:
    if made and made[-1]["role"] == role:
        made[-1]["content"] += f"\n\n{text}"
    else:
        made.append({"role": role, "content": text})
