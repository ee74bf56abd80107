"""The way in: from a request to an accepted image, and to its answer where the client waits.

The order is what makes it safe: image and sidecar are put with create-only, then the event goes to
Kafka, and only its delivery report makes the image accepted. Whatever dies in between, the same
request with the same Idempotency-Key carries on from where the first one was.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from urllib.parse import parse_qs

from services.gateway import accept, answer, bodies
from services.gateway.accept import Sidecar
from services.gateway.admission import Held
from services.gateway.desk import Desk, Flight
from services.gateway.problems import Problem, busy
from services.gateway.waiting import Outcome, Waiter
from spine import faults, telemetry
from spine.blobs import Exists, Missing
from spine.images import Limits, Probe
from spine.records import ImageRow

# A body that takes longer than this comes from a client that only wants to hold the slot.
BODY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a POST says beside its body."""

    headers: Mapping[bytes, bytes]
    query: bytes
    trace: bytes

    def text(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(frozen=True, slots=True)
class Accepted:
    """How the request ends: with the outcome, or with a ticket where it is None."""

    sidecar: Sidecar
    outcome: Outcome | None
    fields: Mapping[str, str]


async def post(desk: Desk, request: Request, receive: bodies.Receive) -> Accepted:
    """Take in one image. Raises Problem, Gone; whatever is raised, nothing was promised."""
    began, received_at = perf_counter(), datetime.now(UTC)
    caller = await desk.callers.of(request.headers, "submit")
    key = accept.idempotency_key(request.text(b"idempotency-key"))
    settings = desk.settings
    model = accept.model_name(_query(request), settings.default_model, desk.served.champions)
    wait = accept.patience(
        request.text(b"prefer"), settings.wait_seconds, settings.patience_seconds
    )
    fields = admit(desk, caller.client_id)
    held = room(desk, request)
    try:
        upload = await _read(request, receive, settings.max_bytes)
        content_type = look(upload.data, desk).content_type
        image_id = accept.new_id() if key is None else accept.derived_id(caller.client_id, key)
        sidecar = Sidecar(
            image_id,
            caller.client_id,
            model,
            upload.sha256,
            content_type,
            len(upload.data),
            received_at.isoformat(),
        )
        ledger = {"gateway.receive": _ms(began)}
        way = _Way(desk, sidecar, upload, held, ledger, request.trace)
        outcome = await (way.once(wait) if key is None else way.keyed(wait))
    finally:
        held.give_back()
    return Accepted(sidecar, outcome, fields)


def admit(desk: Desk, client_id: str) -> dict[str, str]:
    """Both gates; the RateLimit fields of the response. Raises Problem 429 or 503."""
    now = desk.clock()
    if not desk.backlog.admits(now):
        telemetry.REFUSED.labels("backlog").inc()
        raise busy("busy.backlog", 5)
    verdict = desk.rates.take(client_id, now)
    fields = desk.rates.fields(verdict)
    if not verdict.allowed:
        telemetry.REFUSED.labels("rate").inc()
        raise Problem(
            "rate.client",
            f"Send the next image in {verdict.retry_after} s.",
            {**fields, "Retry-After": str(verdict.retry_after)},
        )
    return fields


def room(desk: Desk, request: Request) -> Held:
    """Room for the body, before a byte of it is read. Raises Problem 503."""
    held = desk.room.take(bodies.room_for(request.headers, desk.settings.max_bytes))
    if held is None:
        telemetry.REFUSED.labels("bodies").inc()
        raise busy("busy.bodies")
    return held


def look(data: bytes, desk: Desk) -> Probe:
    settings = desk.settings
    limits = Limits(settings.max_bytes, settings.max_pixels, settings.max_side)
    return accept.look(data, limits)


@dataclass(frozen=True, slots=True)
class _Way:
    """One image on its way from the body to the delivery report."""

    desk: Desk
    sidecar: Sidecar
    upload: bodies.Upload
    held: Held
    ledger: dict[str, float]
    trace: bytes

    async def once(self, wait: float) -> Outcome | None:
        """A new id: nobody else can have put it."""
        began = perf_counter()
        try:
            await asyncio.gather(_fresh(self._put_image()), _fresh(self._put_sidecar()))
        except ConnectionError:
            raise busy("busy.store") from None
        self.ledger["gateway.store"] = _ms(began)
        faults.point("gateway.after_put")
        return await self._publish_and_wait(wait)

    async def keyed(self, wait: float) -> Outcome | None:
        """An id that the key leads to: it may be on its way here, or have been through before."""
        image_id = self.sidecar.image_id
        flight = self.desk.flights.get(image_id)
        if flight is not None:
            return await self._join(flight, wait)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.desk.flights[image_id] = Flight(self.sidecar, accepted)
        try:
            return await self._carry_on(wait, accepted)
        except Exception as error:
            if not accepted.done():
                accepted.set_exception(error)
                accepted.exception()  # it may be that nobody joined
            raise
        finally:
            if not accepted.done():
                accepted.cancel()
            del self.desk.flights[image_id]

    async def _join(self, flight: Flight, wait: float) -> Outcome | None:
        if not flight.sidecar.same_request(self.sidecar):
            raise reused()
        self._drop()
        with self.desk.waiting.register(self.sidecar.image_id, handed_in=True) as waiter:
            try:
                await asyncio.shield(flight.accepted)
            except asyncio.CancelledError:
                if not flight.accepted.cancelled():
                    raise
                raise busy("busy.draining") from None  # the first one's client went away
            return await _answered(waiter, wait)

    async def _carry_on(self, wait: float, accepted: asyncio.Future[None]) -> Outcome | None:
        began = perf_counter()
        try:
            row = await self._put_once()
        except ConnectionError:
            raise busy("busy.store") from None
        if isinstance(row, Outcome):
            accepted.set_result(None)
            self.desk.waiting.wake([row])
            return row
        self.ledger["gateway.store"] = _ms(began)
        faults.point("gateway.after_put")
        return await self._publish_and_wait(wait, row, accepted)

    async def _put_once(self) -> ImageRow | Outcome | None:
        """Put what is not there; the row to publish for, or the outcome that stands already."""
        if await self._deleted():
            raise deleted()
        try:
            await self._put_image()
        except Exists:
            await self._same_as_before()
            return await self._stands()
        # A deletion may have slipped in before our put: then the tombstone is there by now.
        beside, gone = await asyncio.gather(
            self._sidecar_beside(), self._deleted(), return_exceptions=True
        )
        if gone is True:
            await self._take_back(sidecar=beside is True)
            raise deleted()
        for said in (beside, gone):
            if isinstance(said, BaseException):
                raise said
        return None

    async def _sidecar_beside(self) -> bool:
        """Whether we put the sidecar. Another replica may have been faster with the same bytes:
        then it decides which model was asked. Raises Problem."""
        try:
            await self._put_sidecar()
        except Exists:
            await self._same_as_before()
            return False
        return True

    async def _same_as_before(self) -> None:
        """Raises Problem where the key came with other bytes, or for another model, before."""
        image_id = self.sidecar.image_id
        try:
            before = Sidecar.from_json(await self.desk.blobs.aget(accept.sidecar_key(image_id)))
        except Missing:
            await self._mend_sidecar()
            return
        if not before.same_request(self.sidecar):
            raise reused()

    async def _mend_sidecar(self) -> None:
        """The first try died between image and sidecar: the image itself tells if it is ours."""
        image_id = self.sidecar.image_id
        try:
            if await self.desk.blobs.aget(accept.image_key(image_id)) != self.upload.data:
                raise reused()
        except Missing:
            raise deleted() from None
        if await self._sidecar_beside() and await self._deleted():
            await self._take_back(sidecar=True)
            raise deleted()

    async def _stands(self) -> ImageRow | Outcome | None:
        """What the record says of an image that was put before. With the database away we know
        nothing and publish again: results of one id are one."""
        try:
            row = await asyncio.to_thread(self.desk.records.get, self.sidecar.image_id)
        except (ConnectionError, TimeoutError):
            return None
        if row is None:
            return None
        if row.state == "deleted":
            raise deleted()
        return answer.outcome(row) or row

    async def _publish_and_wait(
        self,
        wait: float,
        row: ImageRow | None = None,
        accepted: "asyncio.Future[None] | None" = None,
    ) -> Outcome | None:
        """A row that stands keeps its deadline; else it counts from this request."""
        desk = self.desk
        self._drop()
        partition, here = desk.reply_partition()
        event = accept.received(
            self.sidecar,
            expires_at=self._deadline() if row is None else row.expires_at,
            reply_partition=partition,
            attempt=0 if row is None else row.attempt,
            ledger=dict(self.ledger),
        )
        lands = partition if here else None
        with desk.waiting.register(self.sidecar.image_id, lands, handed_in=True) as waiter:
            began = perf_counter()
            await desk.publisher.publish(event, self.trace)
            waiter.ledger["gateway.publish"] = _ms(began)
            desk.backlog.came(desk.clock())
            faults.point("gateway.after_publish")
            if accepted is not None:
                accepted.set_result(None)
            return await _answered(waiter, wait)

    def _deadline(self) -> datetime:
        patience = timedelta(seconds=self.desk.settings.patience_seconds)
        return datetime.fromisoformat(self.sidecar.received_at) + patience

    def _drop(self) -> None:
        """A request that waits holds no bytes and no room for them."""
        self.upload.drop()
        self.held.give_back()

    async def _deleted(self) -> bool:
        key = accept.tombstone_key(self.sidecar.image_id)
        return await self.desk.blobs.aexists(key)

    async def _put_image(self) -> None:
        key = accept.image_key(self.sidecar.image_id)
        await self.desk.blobs.aput(key, self.upload.data, create=True)

    async def _put_sidecar(self) -> None:
        key = accept.sidecar_key(self.sidecar.image_id)
        await self.desk.blobs.aput(key, self.sidecar.to_json(), create=True)

    async def _take_back(self, *, sidecar: bool) -> None:
        """Remove what we put. A sidecar of before is the deletion's to remove, as its last step."""
        image_id = self.sidecar.image_id
        await self.desk.blobs.adelete(accept.image_key(image_id))
        if sidecar:
            await self.desk.blobs.adelete(accept.sidecar_key(image_id))


def deleted() -> Problem:
    return Problem("image.deleted", "Send it under another Idempotency-Key to submit it anew.")


def reused() -> Problem:
    return Problem("idempotency.reused", "Make a new Idempotency-Key for each new image.")


async def _fresh(put: Awaitable[None]) -> None:
    """A put under a new id: where its key is taken, the store has kept a put of ours that it
    reported as failed, and the client has tried again."""
    with suppress(Exists):
        await put


async def _answered(waiter: Waiter, wait: float) -> Outcome | None:
    outcome = await waiter.wait(wait)
    if outcome is not None and outcome.state == "deleted":
        raise deleted()
    return outcome


async def _read(request: Request, receive: bodies.Receive, most: int) -> bodies.Upload:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            upload = await bodies.read(receive, request.headers, most)
    except TimeoutError:
        raise Problem(
            "body.slow", f"Send the body within {BODY_SECONDS:g} s.", bodies.CLOSE
        ) from None
    return upload


def _query(request: Request) -> str | None:
    if not request.query:
        return None
    return parse_qs(request.query.decode("latin-1")).get("model", [None])[-1]


def _ms(began: float) -> float:
    return round((perf_counter() - began) * 1000, 2)
