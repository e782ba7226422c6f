"""What waits for one connection: in order, bounded, and of phase notices only the newest."""

from gateway_trio.outbox import OUTBOX_BYTES, OUTBOX_FRAMES, Outbox


def taken(outbox):
    found = []
    while (pair := outbox.take())[0] is not None:
        found.append(pair)
    return found


def test_frames_come_out_as_they_went_in():
    outbox = Outbox()
    assert outbox.take() == (None, False)
    assert outbox.put("a", "b")
    assert outbox.put("c")
    assert outbox.put()
    assert taken(outbox) == [("a", False), ("b", False), ("c", False)]


def test_only_the_newest_notice_waits_and_it_goes_first():
    outbox = Outbox()
    outbox.put("answer")
    outbox.notice("draining")
    outbox.notice("cancelling")
    outbox.notice(None)
    assert taken(outbox) == [("cancelling", True), ("answer", False)]
    outbox.notice("closing")
    assert outbox.take() == ("closing", True)
    assert outbox.take() == (None, False)


def test_it_is_full_at_so_many_frames():
    outbox = Outbox()
    assert all(outbox.put("x") for _ in range(OUTBOX_FRAMES))
    assert not outbox.put("one more")
    outbox = Outbox()
    assert not outbox.put(*["x"] * (OUTBOX_FRAMES + 1))


def test_it_is_full_at_so_many_bytes_and_has_room_again_when_some_were_taken():
    outbox = Outbox()
    half = "x" * (OUTBOX_BYTES // 2)
    assert outbox.put(half, half)
    assert not outbox.put("x")
    assert outbox.take()[0] == half
    assert outbox.put("y")
    assert [len(frame) for frame, _ in taken(outbox)] == [len(half), 1, 1]
    assert outbox.put(half, half), "what was taken does not count any more"


def test_one_frame_alone_always_fits():
    outbox = Outbox()
    assert outbox.put("x" * (OUTBOX_BYTES + 1))
    assert not outbox.put("y")


def test_a_notice_does_not_count():
    outbox = Outbox()
    outbox.put(*["x"] * OUTBOX_FRAMES)
    outbox.notice("n" * OUTBOX_BYTES)
    assert outbox.take() == ("n" * OUTBOX_BYTES, True)
    assert outbox.take() == ("x", False)
    assert outbox.put("x")


def test_a_count_behind_a_phase_still_tells_of_the_phase():
    outbox = Outbox()
    outbox.notice("draining")
    outbox.notice("draining, one turn less", phase=False)
    assert outbox.take() == ("draining, one turn less", True)
    outbox.notice("draining, no turn", phase=False)
    assert outbox.take() == ("draining, no turn", False)
