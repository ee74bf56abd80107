"""Clients: an open-loop load that behaves as phones do, and one that asks for itself.

A phone makes an Idempotency-Key for each image and sends it again, under the same key, until it is
told something: after a lost connection, after 429 and 503. What it was not told it asks for later.
"""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from services.gateway.accept import derived_id
from tests.walk.ids import Ids

GIVE_UP_SECONDS = 60.0
MOST_PAUSE_SECONDS = 1.0
CLIENT = "alice"
JPEG = {"Content-Type": "image/jpeg"}


@dataclass
class Load:
    """So many images a second for so long, over all gateways that `urls` names now."""

    urls: Callable[[], Sequence[str]]
    key: str
    pictures: Sequence[bytes]
    ids: Ids
    wait: float = 8.0
    # How each try ended: a status, or the name of a lost connection.
    statuses: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    turn: int = 0

    async def pour(self, rate: float, seconds: float) -> None:
        """Send, then wait until every client was told something or gave up."""
        async with self._http() as http:
            began, tasks = time.monotonic(), []
            for n in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + n / rate - time.monotonic()))
                tasks.append(asyncio.create_task(self.send(http, n)))
            await asyncio.gather(*tasks)

    async def settle(self, seconds: float = 60.0) -> None:
        """Ask for what was not told, until everything that was acknowledged has its end."""
        until = time.monotonic() + seconds
        async with self._http() as http:
            while (left := sorted(self.ids.open)) and time.monotonic() < until:
                await asyncio.gather(*(self._look(http, image_id) for image_id in left[:200]))
                if not self.ids.lost():
                    return
                await asyncio.sleep(0.3)

    async def send(self, http: httpx2.AsyncClient, n: int) -> None:
        """One image of one phone."""
        key = uuid.uuid4().hex
        self.ids.submit(derived_id(CLIENT, key))
        headers = {**JPEG, "Idempotency-Key": key, "Prefer": f"wait={self.wait:g}"}
        until = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < until:
            try:
                response = await http.post(
                    f"{self._next()}/v1/images",
                    content=self.pictures[n % len(self.pictures)],
                    headers=headers,
                )
            except httpx2.TransportError as error:
                self.statuses[type(error).__name__] += 1
                await asyncio.sleep(0.2)
                continue
            self.statuses[str(response.status_code)] += 1
            if response.status_code not in (429, 503):
                self._told(response)
                return
            asked = float(response.headers.get("Retry-After", "1"))
            await asyncio.sleep(min(asked, MOST_PAUSE_SECONDS))

    def unexpected(self) -> dict[str, int]:
        """What no client should ever see."""
        fine = ("200", "202", "429", "503")
        return {s: n for s, n in self.statuses.items() if s.isdigit() and s not in fine}

    def _told(self, response: httpx2.Response) -> None:
        if response.status_code not in (200, 202):
            return
        body = response.json()
        self.ids.acknowledge(body["id"])
        if response.status_code == 200:
            self.ids.tell("post", body)
            self.versions[body.get("model_version", "")] += 1

    async def _look(self, http: httpx2.AsyncClient, image_id: str) -> None:
        try:
            response = await http.get(f"{self._next()}/v1/images/{image_id}")
        except httpx2.TransportError:
            return
        if response.status_code == 200:
            body = response.json()
            self.ids.tell("get", body)
            self.versions[body.get("model_version", "")] += 1

    def _next(self) -> str:
        urls = self.urls()
        self.turn += 1
        return urls[self.turn % len(urls)]

    def _http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=httpx2.Timeout(self.wait + 15, connect=5),
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=50),
            trust_env=False,
            verify=False,  # plain HTTP: spare the reading of authorities
        )


@dataclass
class Phone:
    """One client of one gateway; every answer that it sees is told to the checker."""

    url: str
    key: str
    ids: Ids
    client: str = CLIENT

    def __post_init__(self) -> None:
        self.http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=40,
            trust_env=False,
            verify=False,  # plain HTTP: spare the reading of authorities
        )

    def post(
        self,
        image: bytes,
        *,
        prefer: str = "wait=20",
        key: str = "",
        channel: str = "post",
        kind: str = "image/jpeg",
    ) -> httpx2.Response:
        """Send an image. `channel` is `get` where the answer is asked for a second time."""
        key = key or uuid.uuid4().hex
        self.ids.submit(derived_id(self.client, key))
        headers = {"Content-Type": kind, "Idempotency-Key": key, "Prefer": prefer}
        response = self.http.post("/v1/images", content=image, headers=headers)
        if response.status_code in (200, 202):
            self.ids.acknowledge(response.json()["id"])
        if response.status_code == 200:
            self.ids.tell(channel, response.json())
        return response

    def ticket(self, image: bytes, key: str = "") -> str:
        """Send an image without waiting; its id."""
        response = self.post(image, prefer="respond-async", key=key)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def get(self, image_id: str, wait: float = 0) -> httpx2.Response:
        response = self.http.get(f"/v1/images/{image_id}", params={"wait": wait} if wait else None)
        if response.status_code == 200:
            self.ids.tell("get", response.json())
        return response

    def end_of(self, image_id: str, seconds: float = 30) -> dict[str, Any]:
        """The answer, asked for until it is there."""
        until = time.monotonic() + seconds
        while (response := self.get(image_id, wait=5)).status_code != 200:
            assert response.status_code in (202, 503), response.text
            assert time.monotonic() < until, f"no end of {image_id}: {response.text}"
        body: dict[str, Any] = response.json()
        return body

    def stream(self, image_id: str) -> list[tuple[str, dict[str, Any]]]:
        """The events of its stream until it closes."""
        seen = []
        with self.http.stream("GET", f"/v1/images/{image_id}/events") as response:
            assert response.status_code == 200
            for block in "".join(response.iter_text()).split("\n\n"):
                lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
                if "event" in lines:
                    seen.append((lines["event"], json.loads(lines["data"])))
        for name, body in seen:
            if name in ("answered", "failed", "expired"):
                self.ids.tell("sse", body)
        return seen

    def close(self) -> None:
        self.http.close()
