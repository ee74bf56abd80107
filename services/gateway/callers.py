"""Callers: whose request it is, and whether their key allows it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from services.gateway.problems import Problem, busy
from spine.keys import SCOPES, Client

ANYBODY = Client("anonymous", frozenset(SCOPES))
# Within these seconds a key is not looked at again: the hot path stays on the loop.
SECONDS = 2.0
MOST = 10_000


@dataclass
class Callers:
    """`verify` may block on the database, so it runs on a thread of its own kind: where the
    database is slow, nothing else waits for it. Its answer is kept a moment.

    With `required` False every request is the same client's and may do everything.
    """

    verify: Callable[[str], Client | None]
    required: bool = True
    clock: Callable[[], float] = time.monotonic
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "keys"))
    _seen: dict[str, tuple[float, Client]] = field(default_factory=dict)

    async def of(self, headers: Mapping[bytes, bytes], scope: str | None) -> Client:
        """Raises Problem: 401 without a good key, 403 where it lacks the scope, 503 where the
        database is away and the key was not seen lately."""
        if not self.required:
            return ANYBODY
        key = presented(headers)
        now = self.clock()
        seen = self._seen.get(key)
        client = seen[1] if seen and now - seen[0] < SECONDS else await self._ask(key, now)
        if scope is not None and scope not in client.scopes:
            raise Problem("key.scope", f"Use a key with the scope {scope!r}.")
        return client

    async def _ask(self, key: str, now: float) -> Client:
        try:
            loop = asyncio.get_running_loop()
            client = await loop.run_in_executor(self._threads, self.verify, key)
        except (ConnectionError, TimeoutError):
            raise busy("busy.records") from None
        if client is None:
            self._seen.pop(key, None)
            raise Problem("key.unknown", "Make a new key: ouroboros keys create.", CHALLENGE)
        if len(self._seen) >= MOST:
            self._seen.clear()
        self._seen[key] = (now, client)
        return client


CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ouroboros"'}


def presented(headers: Mapping[bytes, bytes]) -> str:
    """The key in `Authorization: Bearer …` or `X-API-Key`. Raises Problem `key.missing`."""
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    key = token.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    if not key:
        raise Problem("key.missing", "Send Authorization: Bearer <key>, or X-API-Key.", CHALLENGE)
    return key.decode("latin-1")[:200]


def address(headers: Mapping[bytes, bytes], peer: str, trusted_hops: int) -> str:
    """Where the request comes from: the peer, or with n trusted proxies the address that the
    outermost of them saw. What a client wrote there itself is never believed."""
    if trusted_hops == 0:
        return peer
    hops = [h.strip() for h in headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")]
    hops = [h for h in hops if h]
    return hops[-trusted_hops] if len(hops) >= trusted_hops else peer
