"""The output's way from the pipe to `emit`."""

import os

import pytest
import trio

from gateway_trio.exec_output import Output


class Fixture:
    def __init__(self, limit=2**20, secrets=()):
        self.read_end, self.write_end = os.pipe()
        self.pipe = trio.lowlevel.FdStream(self.read_end)
        self.over = 0
        self.texts = []
        self.output = Output(self.pipe, secrets, limit, self._on_over, self._emit)

    def _on_over(self):
        self.over += 1

    async def _emit(self, text):
        self.texts.append(text)

    def write(self, data):
        os.write(self.write_end, data)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.pipe.close()
        os.close(self.write_end)


async def test_what_stands_in_the_pipe_at_the_end_is_delivered():
    with Fixture() as f, trio.fail_after(60):
        f.write(b"x" * 60_000)  # and nobody read it, as the loop was held up
        f.output.close()
        await f.output.deliver()
        assert "".join(f.texts) == "x" * 60_000
        assert f.output.bytes == 60_000


async def test_what_was_held_back_comes_at_the_end():
    with Fixture(secrets=("hunter2hunter2",)) as f, trio.fail_after(60):
        f.write(b"a hunter2\xe2\x82")
        f.output.close()
        await f.output.deliver()
        assert f.texts == ["a hunter2\ufffd"]


async def test_nothing_written_is_nothing_emitted():
    with Fixture() as f, trio.fail_after(60):
        f.output.close()
        await f.output.deliver()
        assert f.texts == []


async def test_reading_ends_with_the_pipe_or_past_the_limit():
    with Fixture(limit=10) as f, trio.fail_after(60):
        f.write(b"x" * 11)
        await f.output.read()
        assert f.over == 1
        await f.output.wait_end()
        f.write(b"y")
        f.output.close()
        await f.output.deliver()
        assert "".join(f.texts) == "x" * 11


@pytest.mark.parametrize("size", [10, 0])
async def test_up_to_the_limit_is_not_past_it(size):
    with Fixture(limit=10) as f, trio.fail_after(60):
        f.write(b"x" * size)
        os.close(f.write_end)
        f.write_end = os.dup(f.read_end)
        await f.output.read()
        assert f.over == 0
        assert f.output.bytes == size
