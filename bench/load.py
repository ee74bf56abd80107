"""The load generator, a process of its own: `python -m bench.load ORDER` (JSON).

Closed: so many connections, each with one image on its way. Open: images arrive at random moments
at a given rate whatever the system does, and a latency counts from the moment of arrival.
Prints a line when the measured time begins, and one with what was answered when it has ended.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import uvloop

MOST_CONNECTIONS = 64


@dataclass(frozen=True)
class Order:
    """What to send, where, how, for how long."""

    port: int
    key: str
    model: str
    photos: str
    warm: float
    seconds: float
    connections: int = 32
    rate: float = 0.0  # images a second; 0: closed
    count: int = 0  # of images, instead of a time


@dataclass
class Run:
    """One run of the load."""

    order: Order
    requests: Iterator[bytes]
    ended: list[tuple[float, float, bool]] = field(default_factory=list)  # when, seconds, answered
    idle: "asyncio.Queue[Wire]" = field(default_factory=asyncio.Queue)
    wires: "list[Wire]" = field(default_factory=list)
    over: bool = False

    async def go(self) -> None:
        many = MOST_CONNECTIONS if self.order.rate else self.order.connections
        for _ in range(many):
            self.wires.append(await Wire.open(self.order.port))
            self.idle.put_nowait(self.wires[-1])
        sending = self.arrive if self.order.rate else self.keep_busy
        tasks = [asyncio.ensure_future(sending())]
        await asyncio.sleep(self.order.warm)
        begin = self.say({"begin": True})
        if self.order.count:
            while len(self.ended) < self.order.count:
                await asyncio.sleep(0.05)
        else:
            await asyncio.sleep(self.order.seconds)
        end = time.monotonic()
        inside = [(took, good) for at, took, good in self.ended if begin <= at <= end]
        self.say(
            {
                "seconds": end - begin,
                "answered": sum(good for _, good in inside),
                "other": sum(not good for _, good in inside),
                "latencies_ms": [round(took * 1000, 2) for took, good in inside if good],
            }
        )
        self.over = True
        await asyncio.gather(*tasks)

    async def hang_up(self) -> None:
        """Close the connections."""
        for wire in self.wires:
            wire.writer.close()
            await wire.writer.wait_closed()

    async def keep_busy(self) -> None:
        async def one(wire: "Wire") -> None:
            while not self.over:
                await self.send(wire, time.monotonic())

        await asyncio.gather(*(one(self.idle.get_nowait()) for _ in range(self.idle.qsize())))

    async def arrive(self) -> None:
        chance, due, sent = random.Random(5), time.monotonic(), set()
        while not self.over:
            due += chance.expovariate(self.order.rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.ensure_future(self.arrived(due))
            sent.add(task)
            task.add_done_callback(sent.discard)
        await asyncio.gather(*sent)

    async def arrived(self, at: float) -> None:
        wire = await self.idle.get()
        await self.send(wire, at)
        self.idle.put_nowait(wire)

    async def send(self, wire: "Wire", began: float) -> None:
        good = await wire.ask(next(self.requests))
        now = time.monotonic()
        self.ended.append((now, now - began, good))

    def say(self, what: dict[str, object]) -> float:
        print(json.dumps(what), flush=True)
        return time.monotonic()


@dataclass
class Wire:
    """A connection that is kept."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> bool:
        """Send a request; whether it was answered with a class."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        body = await self.reader.readexactly(int(length))
        return head.startswith(b"HTTP/1.1 200") and b'"state":"answered"' in body


def requests(order: Order) -> Iterator[bytes]:
    """Requests for every photo, round and round."""
    bodies = [path.read_bytes() for path in sorted(Path(order.photos).glob("*.jpg"))]
    head = (
        f"POST /v1/images?model={order.model} HTTP/1.1\r\nHost: bench\r\n"
        f"Authorization: Bearer {order.key}\r\nPrefer: wait=30\r\nContent-Type: image/jpeg\r\n"
    )
    return cycle([f"{head}Content-Length: {len(b)}\r\n\r\n".encode() + b for b in bodies])


async def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    with suppress(BrokenPipeError):
        await Run(order, requests(order)).go()


if __name__ == "__main__":
    uvloop.run(main())
