"""The Python client: send images, get species.

with Client("http://127.0.0.1:8080", key) as client:
    answer = client.submit(Path("photo.jpg"), wait=20)
    print(answer.label, answer.probability)
"""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx2

from spine.envelope import Malformed, from_record
from spine.events import ImageClassified, ImageFailed
from spine.log import Record
from spine.settings import Settings

TRIES = 8
TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}


class Refused(Exception):
    """The gateway said no, for good: `status`, the problem's stable `code`, and what to do."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        self.status = status
        self.code = str(problem.get("code") or "")
        self.problem = dict(problem)


@dataclass(frozen=True)
class Answer:
    """What the gateway said of an image; `body` is its JSON, whole."""

    id: str
    state: str  # accepted, answered, failed, expired
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return str(self.body.get("label") or "")

    @property
    def probability(self) -> float:
        return float(self.body.get("probability") or 0.0)

    @property
    def unknown(self) -> bool:
        """Whether the model does not know what the image shows; `best` is its nearest guess."""
        return bool(self.body.get("unknown"))

    @property
    def best(self) -> str:
        """The likeliest label, also where the answer is `unknown`."""
        top = self.body.get("top") or ()
        return str(top[0]["label"]) if top else ""

    @property
    def model_version(self) -> str:
        return str(self.body.get("model_version") or "")

    @property
    def ledger(self) -> Mapping[str, float]:
        """Milliseconds by step."""
        found: Mapping[str, float] = self.body.get("ledger") or {}
        return found

    @property
    def milliseconds(self) -> float:
        """From the first byte at the gateway to the answer; 0 while there is none."""
        try:
            begun = datetime.fromisoformat(self.body["received_at"])
            ended = datetime.fromisoformat(self.body["finished_at"])
        except (KeyError, ValueError, TypeError):
            return 0.0
        before = sum(self.ledger.get(f"gateway.{step}", 0.0) for step in ("receive", "store"))
        return (ended - begun).total_seconds() * 1000 + before

    @property
    def terminal(self) -> bool:
        return self.state != "accepted"


class Client:
    """One gateway. Thread-safe. Raises Refused for what will not succeed, ConnectionError where
    nothing answers; overload (429, 503) is waited out as the gateway asks."""

    def __init__(
        self, url: str, key: str = "", *, seconds: float = 90.0, connections: int = 32
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(seconds, connect=5.0),
            limits=httpx2.Limits(max_connections=connections),
            trust_env=False,
        )

    def submit(
        self,
        image: bytes | Path,
        *,
        model: str | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
        content_type: str | None = None,
    ) -> Answer:
        """Send one image; wait for its species, at most `wait` seconds (0: take a ticket).

        A key makes retries safe, ours after a lost connection and yours: one is made where none
        is given.
        """
        body = image if isinstance(image, bytes) else image.read_bytes()
        headers = {
            "Content-Type": content_type or type_of(image),
            "Idempotency-Key": idempotency_key or uuid.uuid4().hex,
        }
        if wait is not None:
            headers["Prefer"] = f"wait={wait:g}" if wait > 0 else "respond-async"
        query = {"model": model} if model else {}
        return answer(self._send("POST", "/v1/images", query, headers, body))

    def result(self, image_id: str, *, wait: float = 0.0) -> Answer:
        """What is known of an image, waiting `wait` seconds at most for its end."""
        query = {"wait": f"{wait:g}"} if wait > 0 else {}
        return answer(self._send("GET", f"/v1/images/{image_id}", query))

    def page(self, **query: str | int) -> Mapping[str, Any]:
        """A page of one's own images, newest first, as the API says it."""
        found: Mapping[str, Any] = self._send("GET", "/v1/images", query).json()
        return found

    def delete(self, image_id: str) -> None:
        """The person's right: image, features and record go."""
        self._send("DELETE", f"/v1/images/{image_id}")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> httpx2.Response:
        def once() -> httpx2.Response:
            return self._http.request(
                method, path, params=dict(query or {}), headers=dict(headers or {}), content=body
            )

        return checked(patiently(once))


async def results(
    settings: Settings, client_id: str | None = None
) -> AsyncGenerator[ImageClassified | ImageFailed]:
    """Every answer from now on, as it comes, straight from Kafka; of one client, or of all. Ends
    only when it is closed. Raises Fatal where the brokers refuse us."""
    from spine.akafka import stream

    async with aclosing(stream(settings, [ImageClassified.topic])) as records:
        async for record in records:
            event = answer_in(record)
            if event is not None and client_id in (None, event.client_id):
                yield event


def answer_in(record: Record) -> ImageClassified | ImageFailed | None:
    """The answer in a record of `results`; None where it holds none that we know."""
    try:
        event = from_record(record, (ImageClassified, ImageFailed))
    except Malformed:
        return None
    return event if isinstance(event, ImageClassified | ImageFailed) else None


async def submit_all(
    client: Client, images: Sequence[bytes | Path], *, at_once: int = 16, **options: Any
) -> list[Answer | Exception]:
    """Many images from asyncio; each has its answer or its own error, in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(image: bytes | Path) -> Answer:
        async with gate:
            return await asyncio.to_thread(client.submit, image, **options)

    done = await asyncio.gather(*(one(image) for image in images), return_exceptions=True)
    return [found if isinstance(found, Answer) else worldly(found) for found in done]


def patiently(once: Callable[[], httpx2.Response], tries: int = TRIES) -> httpx2.Response:
    """Try until it is neither overload nor a lost connection. Raises ConnectionError."""
    for turn in range(tries):
        last = turn == tries - 1
        try:
            response = once()
        except httpx2.TransportError as error:
            if last:
                raise ConnectionError(f"no answer: {type(error).__name__}") from error
            time.sleep(backoff(turn))
            continue
        if response.status_code not in (429, 503) or last:
            return response
        time.sleep(asked(response) or backoff(turn))
    raise AssertionError("unreachable")


def asked(response: httpx2.Response) -> float:
    """Seconds that the gateway asks us to wait, a little spread so that not all come at once."""
    said = response.headers.get("Retry-After", "")
    seconds = min(float(said), 30.0) if said.isdigit() else 0.0
    return seconds * random.uniform(1.0, 1.2)


def backoff(turn: int) -> float:
    return min(5.0, 0.1 * 2.0**turn) * random.uniform(0.5, 1.0)


def checked(response: httpx2.Response) -> httpx2.Response:
    """The response, where it is a good one. Raises Refused."""
    if response.is_success:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    raise Refused(response.status_code, problem if isinstance(problem, dict) else {})


def answer(response: httpx2.Response) -> Answer:
    body = response.json()
    return Answer(id=str(body["id"]), state=str(body["state"]), body=body)


def type_of(image: bytes | Path) -> str:
    """What to call it; the gateway looks at the content itself."""
    suffix = image.suffix.lower() if isinstance(image, Path) else ""
    return TYPES.get(suffix, "image/jpeg")


def worldly(error: BaseException) -> Exception:
    """An error as a value; what is none (a cancellation) still flies."""
    if isinstance(error, Exception):
        return error
    raise error
