"""Event streams: the end of one image as server-sent events, with a beat every 15 s."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from services.gateway import lookups
from services.gateway.desk import Desk
from services.gateway.problems import Problem
from services.gateway.waiting import Outcome

BEAT_SECONDS = 15.0
RETRY_MS = 2000
MOST_A_CLIENT = 50
BEAT = b": beat\n\n"
SHUTDOWN = f"event: shutdown\nretry: {RETRY_MS}\ndata: {{}}\n\n".encode()


async def opened(desk: Desk, found: lookups.Found, client_id: str) -> AsyncIterator[bytes]:
    """The stream of what happens to an image, counted from here on. Raises Problem `stream.limit`.

    Nothing is awaited between look and count: of many at once no more get in than may.
    """
    said = _events(desk, found, client_id)
    return _from(await anext(said), said)


async def _from(first: bytes, said: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(said):
        yield first
        async for message in said:
            yield message


async def _events(desk: Desk, found: lookups.Found, client_id: str) -> AsyncGenerator[bytes, None]:
    """Until the image's end. A client that was cut off asks again and gets the end from the
    record, whatever it sends as Last-Event-ID."""
    _check_room(desk, client_id)
    desk.streams[client_id] = desk.streams.get(client_id, 0) + 1
    try:
        if found.outcome is not None:
            yield end(found.outcome)
            return
        yield f"retry: {RETRY_MS}\nevent: accepted\ndata: ".encode() + found.ticket + b"\n\n"
        async for message in _until_end(desk, found.image_id):
            yield message
    finally:
        desk.streams[client_id] -= 1
        if desk.streams[client_id] == 0:
            del desk.streams[client_id]


def _check_room(desk: Desk, client_id: str) -> None:
    """Raises Problem `stream.limit`: idle streams of one client must not fill the house."""
    if desk.streams.get(client_id, 0) >= MOST_A_CLIENT:
        raise Problem(
            "stream.limit",
            f"Close some of your streams; {MOST_A_CLIENT} may be open.",
            {"Retry-After": "5"},
        )


def end(outcome: Outcome) -> bytes:
    """The last message of a stream; its id is the image's attempt."""
    head = f"id: {outcome.image_id}/{outcome.attempt}\nretry: {RETRY_MS}\nevent: {outcome.state}\n"
    return head.encode() + b"data: " + (outcome.answer or b"{}") + b"\n\n"


async def _until_end(desk: Desk, image_id: str) -> AsyncIterator[bytes]:
    with desk.waiting.register(image_id) as waiter:
        while not desk.pulse.draining:
            outcome = await waiter.wait(BEAT_SECONDS)
            if outcome is not None:
                yield end(outcome)
                return
            if not waiter.outcome.done():
                yield BEAT
    yield SHUTDOWN
