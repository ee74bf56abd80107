"""Many images to the gateway: each has its own outcome, a bad one never stops the rest."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ouroboros.client import TYPES, Answer, Client, Refused

AT_ONCE = 16
SLICE_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """What became of one file. Where it got no answer, `code` and `message` say why."""

    path: Path
    answer: Answer | None = None
    code: str = ""
    message: str = ""
    # What its maker says it shows, where that is known.
    truth: str = ""

    @property
    def ok(self) -> bool:
        """Whether it has its species, or its ticket where none was waited for."""
        return not self.code

    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = {"path": str(self.path), "ok": self.ok}
        if self.truth:
            found["truth"] = self.truth
        if self.code:
            found |= {"code": self.code, "message": self.message}
        return found | dict(self.answer.body if self.answer else {})


@dataclass(frozen=True)
class Found:
    """The files to send, and how many files of folders were passed over: they have no image's
    name."""

    images: tuple[Path, ...]
    others: int = 0


def found_under(paths: Iterable[Path]) -> Found:
    """Files as they are given, of folders every file that is named like an image; what is hidden
    counts for nothing."""
    images: list[Path] = []
    others = 0
    for path in paths:
        if not path.is_dir():
            images.append(path)
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if hidden or not file.is_file():
                continue
            if file.suffix.lower() in TYPES:
                images.append(file)
            else:
                others += 1
    return Found(tuple(images), others)


def submit_files(
    client: Client,
    paths: Sequence[Path],
    *,
    model: str | None = None,
    seconds: float = 60.0,
    at_once: int = AT_ONCE,
) -> Iterator[Outcome]:
    """Send the files, `at_once` at a time; outcomes come as they are known, in any order."""
    queue = iter(paths)
    with ThreadPoolExecutor(at_once, thread_name_prefix="submit") as pool:
        running: set[Future[Outcome]] = set()
        try:
            while True:
                for path in islice(queue, at_once - len(running)):
                    running.add(pool.submit(one, client, path, model, seconds))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def one(client: Client, path: Path, model: str | None, seconds: float) -> Outcome:
    """Send one file and wait for its end; whatever goes wrong is this file's outcome."""
    try:
        body = path.read_bytes()
    except OSError as error:
        return Outcome(path, code="file.unreadable", message=error.strerror or "cannot be read")
    try:
        return judged(path, patiently(client, path, body, model, seconds), seconds)
    except Refused as error:
        return Outcome(path, code=error.code or f"http.{error.status}", message=str(error))
    except ConnectionError as error:
        return Outcome(path, code="gateway.away", message=str(error))


def patiently(client: Client, path: Path, body: bytes, model: str | None, seconds: float) -> Answer:
    """The image's end, or what is known of it when the time is over."""
    until = time.monotonic() + seconds
    answer = client.submit(
        body,
        model=model,
        wait=min(seconds, SLICE_SECONDS),
        content_type=TYPES.get(path.suffix.lower()),
    )
    while not answer.terminal and (left := until - time.monotonic()) > 0:
        answer = client.result(answer.id, wait=min(left, SLICE_SECONDS))
    return answer


def judged(path: Path, answer: Answer, seconds: float) -> Outcome:
    if answer.state == "answered" or (seconds <= 0 and not answer.terminal):
        return Outcome(path, answer)
    if not answer.terminal:
        later = f"later: ouroboros result {answer.id}; why: ouroboros status"
        return Outcome(path, answer, "wait.over", f"no answer in {seconds:g} s; {later}")
    reason = str(answer.body.get("reason") or answer.state)
    return Outcome(path, answer, reason, str(answer.body.get("detail") or answer.state))
