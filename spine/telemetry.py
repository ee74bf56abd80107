"""What the outside sees of a service: logs, metrics, and its health (`spine.tracing`: traces).

Every metric stands here, with what to do when it looks wrong. Labels are bounded; ids go to logs.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)

# Events by how they ended: done, skipped, expired, dead. A rising share of `dead` is a bad deploy
# or a bad client: `ouroboros dead list` says which.
EVENTS = Counter("ouroboros_stage_events_total", "Events by outcome", ["stage", "outcome"])
# Held events wait for something that is away (store, database, a model). Look at the logs for what.
HOLDS = Counter("ouroboros_stage_holds_total", "Events offered again later", ["stage"])
# Near the window for long: the stage is the bottleneck; scale it.
IN_FLIGHT = Gauge("ouroboros_stage_in_flight_events", "Events taken, not finished", ["stage"])
PREPARE = Histogram(
    "ouroboros_stage_prepare_seconds", "Fetch and decode of one event", ["stage"], buckets=SECONDS
)
HANDLE = Histogram(
    "ouroboros_stage_handle_seconds", "Handling of one batch", ["stage"], buckets=SECONDS
)
BATCH = Histogram(
    "ouroboros_stage_batch_events", "Events in a batch", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
# Any rise: records were deleted before they were read. Retention is too short or we too slow.
GAPS = Counter(
    "ouroboros_kafka_gaps_total", "Offsets out of range, resumed at the start", ["topic"]
)
# The objective: 99 % under 2 s. The ledger of slow answers says which step took it.
ANSWER = Histogram(
    "ouroboros_gateway_answer_seconds",
    "From acceptance to the answer",
    ["outcome"],
    buckets=SECONDS,
)
REQUESTS = Counter("ouroboros_gateway_requests_total", "HTTP requests", ["route", "status"])
# Refusals by rate or backlog. Steady: scale the preclassifiers, or raise the client's rate.
REFUSED = Counter("ouroboros_gateway_refused_total", "Images refused", ["reason"])
# Features of a space that no champion here reads: a backbone changed and heads were not refitted.
PASSED_OVER = Counter(
    "ouroboros_classifier_passed_over_total", "Features of another space", ["model"]
)
# A refused model keeps the old one serving: the reason is in the log and on `model-status`.
MODEL_SWAPS = Counter(
    "ouroboros_model_swaps_total", "Model loads by outcome", ["service", "outcome"]
)
# Deaths of decoding processes, each of which cost one image.
DECODER_DEATHS = Counter("ouroboros_decoder_deaths_total", "Decoding processes lost", ["reason"])


def configure(service: str, replica: str = "", level: str = "info") -> None:
    """Log JSON lines to standard output, each with the service's and the replica's name."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    _common.update({"service.name": service, "service.instance.id": replica or f"{os.getpid()}"})


_common: dict[str, str] = {}


def logger(name: str) -> Any:
    """A structured logger; `.info("what happened", image_id=…)`. Never log bytes or keys."""
    return _Logger(name)


class _Logger:
    """Binds the service's names late, so that a module's logger may be made before `configure`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, level: str) -> Callable[..., None]:
        bound: Callable[..., None] = getattr(
            structlog.get_logger().bind(logger=self._name, **_common), level
        )
        return bound


def metrics() -> tuple[bytes, str]:
    """The page of /metrics and its content type."""
    return generate_latest(), CONTENT_TYPE_LATEST


def serve_health(
    port: int, ready: Callable[[], bool], host: str = "127.0.0.1"
) -> ThreadingHTTPServer:
    """Serve /livez, /readyz and /metrics on a thread; `server_port` says where."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                body, kind = metrics()
                self._say(200, body, kind)
            elif self.path == "/livez":
                self._say(200, b"alive\n")
            elif self.path == "/readyz":
                fine = ready()
                self._say(200 if fine else 503, b"ready\n" if fine else b"not ready\n")
            else:
                self._say(404, b"/livez /readyz /metrics\n")

        def _say(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Probes are not worth a line each."""

    server = ThreadingHTTPServer((host, port), Page)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
