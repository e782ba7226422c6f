"""The guard on a real pair of sockets: a cancelled send keeps its rest, and the end loses nothing."""

import socket
from functools import partial

import pytest
import trio
import trio.testing

from gateway_trio.guard import GuardedStream


@pytest.fixture
async def pair():
    """The guard, and the peer's stream."""
    ours, theirs = trio.socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    peer = trio.SocketStream(theirs)
    stream = trio.SocketStream(ours)
    yield GuardedStream(stream), peer
    await trio.aclose_forcefully(stream)
    await trio.aclose_forcefully(peer)


async def receive_exactly(stream, size):
    found = bytearray()
    while len(found) < size:
        data = await stream.receive_some(size - len(found))
        assert data, f"the end, after {len(found)} of {size}"
        found += data
    return bytes(found)


async def fill(guard, data):
    """Begin to send more than the socket takes, and cancel it when it is stuck."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(guard.send_all, data)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks, "it was to be stuck"
        nursery.cancel_scope.cancel()


BIG = bytes(range(256)) * 8192  # 2 MiB


async def test_what_is_sent_arrives_both_ways(pair):
    guard, peer = pair
    with trio.fail_after(60):
        await guard.send_all(b"hello")
        await guard.send_all(bytearray(b" "))
        await guard.send_all(memoryview(b"you"))
        await guard.wait_send_all_might_not_block()
        assert await receive_exactly(peer, 9) == b"hello you"
        await peer.send_all(b"and you")
        assert await guard.receive_some() == b"and you"
        await peer.send_all(b"more")
        assert await guard.receive_some(2) == b"mo"


async def test_a_cancelled_send_keeps_its_rest_and_the_next_goes_on_there(pair):
    guard, peer = pair
    with trio.fail_after(60):
        await fill(guard, BIG)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.send_all, b"the close frame")
            assert await receive_exactly(peer, len(BIG) + 15) == BIG + b"the close frame"


async def test_cancelled_again_and_again_nothing_is_lost_or_sent_twice(pair):
    guard, peer = pair
    with trio.fail_after(60):
        for number in range(3):
            await fill(guard, BIG + bytes([number]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.send_all, b"end")
            for number in range(3):
                assert await receive_exactly(peer, len(BIG) + 1) == BIG + bytes([number])
            assert await receive_exactly(peer, 3) == b"end"


async def test_a_bare_stream_would_have_lost_it(pair):
    """What the guard is for: without it the next send lands inside the cut one."""
    guard, peer = pair
    bare = guard._stream
    with trio.fail_after(60):
        await fill(bare, BIG)
        async with trio.open_nursery() as nursery:

            async def close():
                await bare.send_all(b"the close frame")
                await bare.send_eof()

            nursery.start_soon(close)
            found = b""
            async for data in peer:
                found += data
    assert found.endswith(b"the close frame")
    assert len(found) < len(BIG)


async def test_while_corked_sends_are_collected_and_go_out_in_one(pair):
    guard, peer = pair
    with trio.fail_after(60):
        guard.cork()
        await guard.send_all(b"one ")
        await guard.send_all(b"two ")
        with trio.move_on_after(0):
            await peer.receive_some(100)
            pytest.fail("it was to be collected")
        guard.uncork()
        await guard.send_all(b"three")
        assert await peer.receive_some(100) == b"one two three"
        guard.cork()
        await guard.send_all(b"four")
        assert await guard.flush()
        assert await peer.receive_some(100) == b"four"
        await guard.send_all(b"five")
        assert await peer.receive_some(100) == b"five", "a flush takes the cork out"


async def test_what_the_socket_takes_at_once_goes_without_a_pass(pair):
    guard, peer = pair
    with trio.fail_after(60):
        guard.put(b"now")
        with trio.testing.assert_no_checkpoints():
            assert guard.send_now()
        assert not guard.unsent
        assert await receive_exactly(peer, 3) == b"now"
        guard.cork()
        await guard.send_all(b"collected ")
        guard.put(b"and more")
        assert guard.send_now(), "what was collected goes with it"
        assert await receive_exactly(peer, 18) == b"collected and more"


async def test_what_the_socket_does_not_take_at_once_is_left_for_the_flush(pair):
    guard, peer = pair
    guard.put(BIG)
    assert not guard.send_now()
    assert guard.unsent
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.flush)
            await trio.testing.wait_all_tasks_blocked()
            guard.put(b"behind it")
            assert not guard.send_now(), "another one sends, and takes it along"
            assert await receive_exactly(peer, len(BIG) + 9) == BIG + b"behind it"
        assert not guard.unsent


async def test_a_peer_that_is_gone_is_found_by_the_flush(pair):
    guard, peer = pair
    await trio.aclose_forcefully(peer)
    guard.put(b"to nobody")
    assert not guard.send_now()
    with pytest.raises(trio.BrokenResourceError):
        await guard.flush()


async def test_a_peer_that_takes_nothing_ends_the_sending(autojump_clock):
    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(100), ours, theirs:
        guard = GuardedStream(trio.SocketStream(ours), stall_seconds=20)
        start = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="no byte for 20 s"):
            await guard.send_all(BIG)
        assert trio.current_time() - start == pytest.approx(20)
        assert not await guard.flush()


async def test_a_peer_that_reads_slowly_is_waited_for(autojump_clock):
    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(100_000), ours, theirs:
        guard, peer = GuardedStream(trio.SocketStream(ours), stall_seconds=20), trio.SocketStream(theirs)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.send_all, BIG)
            found = 0
            while found < len(BIG):
                await trio.sleep(10)
                found += len(await peer.receive_some(300_000))
        assert trio.current_time() - start > 40


async def test_the_prefix_is_received_first(pair):
    guard, peer = pair
    with trio.fail_after(60):
        prefixed = GuardedStream(guard._stream, prefix=b"the head")
        await peer.send_all(b"then this")
        assert await prefixed.receive_some(4) == b"the "
        assert await prefixed.receive_some() == b"head"
        assert await prefixed.receive_some() == b"then this"


async def test_receiving_can_be_cancelled_and_loses_nothing(pair):
    guard, peer = pair
    with trio.fail_after(60):
        with trio.move_on_after(0):
            await guard.receive_some()
        await peer.send_all(b"later")
        assert await guard.receive_some() == b"later"


async def test_it_knows_when_the_peer_was_last_heard(mock_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    guard = GuardedStream(ours)
    start = guard.last_received
    mock_clock.jump(7)
    await guard.send_all(b"x")
    assert guard.last_received == start
    await theirs.send_all(b"pong")
    await guard.receive_some()
    assert guard.last_received == start + 7


async def test_closing_closes_our_half_and_the_end_reads_to_the_peers(pair):
    guard, peer = pair
    with trio.fail_after(60):
        await guard.send_all(b"last word")
        await guard.aclose()
        await guard.aclose()
        for refused in (partial(guard.send_all, b"x"), guard.receive_some):
            with pytest.raises(trio.ClosedResourceError):
                await refused()
        await peer.send_all(BIG[:8192])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.end, 30)
            await trio.testing.wait_all_tasks_blocked()
            assert guard._stream.socket.fileno() != -1, "the peer has not closed yet"
            assert await receive_exactly(peer, 9) == b"last word"
            assert await peer.receive_some(1) == b""
            await peer.aclose()
        assert guard._stream.socket.fileno() == -1


async def test_unread_bytes_of_the_peer_do_not_cost_it_our_last_word():
    """On TCP a socket that is closed with unread bytes in it sends a reset (RFC 1122 section 4.2.2.13)."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(60):
        async with listener, trio.open_nursery() as nursery:
            peer = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            guard = GuardedStream(await listener.accept())
            await peer.send_all(b"x" * 4096)
            await guard.send_all(b"goodbye")
            nursery.start_soon(guard.end, 20)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send_all(b"y" * 4096)
            found = b""
            async for data in peer:
                found += data
            assert found == b"goodbye"
            await peer.aclose()


async def test_the_end_lingers_no_longer_than_it_is_told(autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    guard = GuardedStream(ours)
    with trio.fail_after(60):
        start = trio.current_time()
        await guard.end(2)
        assert trio.current_time() - start == pytest.approx(2)
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_all(b"x")


async def test_the_end_of_no_seconds_is_at_once(pair):
    guard, _ = pair
    with trio.fail_after(60):
        await guard.end(0)
    assert guard._stream.socket.fileno() == -1


async def test_cancelling_the_end_closes_the_socket(pair):
    guard, _ = pair
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guard.end, 1000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert guard._stream.socket.fileno() == -1


async def test_a_peer_that_is_gone_breaks_the_sending_and_not_the_end(pair):
    guard, peer = pair
    with trio.fail_after(60):
        await trio.aclose_forcefully(peer)
        with pytest.raises(trio.BrokenResourceError):
            await guard.send_all(BIG)
        await guard.end(5)
    assert guard._stream.socket.fileno() == -1


async def test_a_last_frame_goes_out_only_where_no_close_frame_did():
    with trio.fail_after(60):
        for sent, last in ((b"\x88\x02\x03\xe8", b""), (b"\x81\x01x", b"\x88\x02\x03\xea")):
            ours, theirs = trio.socket.socketpair()
            guard = GuardedStream(trio.SocketStream(ours))
            guard.close_with(lambda: b"\x88\x02\x03\xea")
            await guard.send_all(sent)
            await guard.aclose()
            await guard.aclose()
            stream = trio.SocketStream(theirs)
            got = b""
            while data := await stream.receive_some():
                got += data
            assert got == sent + last
            await stream.aclose()
            await guard.end(0)
