"""The supervisor: starts the parts and the services, keeps them running, stops them.

Run as `python -m ouroboros.supervise OPTIONS` (JSON) by `ouroboros up` and `demo`. What it started
dies with it, also when it is killed: see `ouroboros.guard`.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import IO

from ouroboros.exits import Exit, Trouble
from ouroboros.health import healthy, last_line
from ouroboros.home import Child, Home, Phase, State
from ouroboros.options import Options
from ouroboros.parts import free_port
from ouroboros.prepare import Broker, Ground, lay
from ouroboros.processes import Process, Spec, next_free
from ouroboros.urls import Urls

TICK_SECONDS = 0.1
READY_SECONDS = 90.0
FIRST_PORT = 8080


class Supervisor:
    """Everything that runs, and the file that says so."""

    def __init__(self, home: Home, options: Options, guard: IO[bytes]) -> None:
        self.home = home
        self.options = options
        self.state = State(phase="starting", supervisor=os.getpid())
        self.processes: list[Process] = []
        self.ground: Ground | None = None
        self.stopping = False
        self._guard = guard
        self._broker_restarts = 0

    def run(self) -> None:
        """Start, watch until told to stop, stop. Raises Trouble where it does not get ready."""
        try:
            self.ground = lay(self.home, self.options.profile, self.say, self.watched)
            self.processes = list(self.specified(self.ground.urls))
            self.say("starting the services")
            self.until_ready()
            if not self.stopping:
                self.note("ready", "")
            while not self.stopping:
                self.tick()
                time.sleep(TICK_SECONDS)
        finally:
            self.stop()

    def specified(self, urls: Urls) -> Iterator[Process]:
        """A process for each replica, each with ports of its own."""
        taken: list[int] = []
        for service, count in self.options.counts().items():
            for number in range(count):
                # The gateway says how it is on its own port, the others on one of their own.
                port = self.api_port(taken) if service == "gateway" else 0
                metrics_port = port or free_port(taken)
                taken.append(metrics_port)
                spec = Spec(
                    service=service,
                    number=number,
                    environ=self.environ(urls, service, number, port, metrics_port),
                    log=self.home.log(f"{service}-{number}"),
                    port=port,
                    metrics_port=metrics_port,
                    settings=self.home.settings,
                )
                yield Process(spec, self.watched)

    def api_port(self, taken: Sequence[int]) -> int:
        wanted = self.options.port or FIRST_PORT
        port = next_free(wanted, taken)
        first = not taken
        if self.options.port and first and port != wanted:
            raise Trouble(
                Exit.NOT_READY,
                f"port {wanted} is taken",
                "choose another with --port, or leave it out: the next free one is found",
            )
        return port

    def environ(
        self, urls: Urls, service: str, number: int, port: int, metrics_port: int
    ) -> dict[str, str]:
        """What is the same at each start of a replica: the caller's, and what is its own."""
        name = f"{service}-{number}"
        return {
            **os.environ,
            **urls.environ(),
            "OUROBOROS_REPLICA": name,
            "OUROBOROS_METRICS_PORT": str(metrics_port),
            f"{service.upper()}_JOURNAL": str(self.home.journals / name),
            "PYTHONUNBUFFERED": "1",
            **({"GATEWAY_PORT": str(port)} if port else {}),
        }

    def until_ready(self) -> None:
        until = time.monotonic() + READY_SECONDS
        waiting = list(self.processes)
        while waiting and not self.stopping:
            self.tick()
            waiting = [p for p in waiting if not healthy(p.spec.metrics_port)]
            names = ", ".join(f"{p.spec.service}-{p.spec.number}" for p in waiting)
            self.say(f"waiting for {names}" if waiting else "")
            if time.monotonic() > until:
                raise Trouble(
                    Exit.NOT_READY,
                    f"not ready after {READY_SECONDS:.0f} s: {names}",
                    f"look at {self.home.logs}",
                )
            given_up = [p for p in waiting if p.in_a_row >= 5]
            if given_up:
                log = given_up[0].spec.log
                raise Trouble(
                    Exit.NOT_READY, f"{log.stem} dies at its start: {last_line(log)}", f"see {log}"
                )
            time.sleep(TICK_SECONDS)

    def tick(self) -> None:
        """Start again what died."""
        now = time.monotonic()
        broker = self.ground.broker if self.ground else None
        changed = broker is not None and self.broker_kept(broker)
        for process in self.processes:
            changed = process.tick(now) or changed
        if changed:
            self.note(self.state.phase, self.state.doing)

    def broker_kept(self, broker: Broker) -> bool:
        """Start Kafka again on its own data and port, where it died. Whether it had."""
        if broker.alive():
            return False
        self._broker_restarts += 1
        self.note(self.state.phase, "starting Kafka again")
        try:
            broker.restart()
        except (OSError, RuntimeError) as error:  # tried again at the next tick
            print(f"Kafka does not start: {error}", flush=True)
            time.sleep(1.0)
        self.note(self.state.phase, "")
        return True

    def stop(self) -> None:
        """The services first, draining; then Kafka, for they still commit."""
        self.note("stopping", "draining the services")
        seconds = float(os.environ.get("OUROBOROS_DRAIN_SECONDS") or 20) + 5
        for process in self.processes:
            process.ask()
        until = time.monotonic() + seconds
        for process in self.processes:
            process.wait(until)
        if self.ground and self.ground.broker:
            self.note("stopping", "stopping Kafka")
            self.ground.broker.stop()

    def say(self, doing: str) -> None:
        if doing != self.state.doing:
            self.note("starting", doing)

    def note(self, phase: Phase, doing: str, trouble: Trouble | None = None) -> None:
        """Write the state file anew."""
        urls = self.ground.urls if self.ground else Urls()
        self.state = replace(
            self.state,
            phase=phase,
            doing=doing,
            error=f"{trouble.message}. {trouble.advice}".strip() if trouble else self.state.error,
            exit=int(trouble.code) if trouble else self.state.exit,
            kafka_url=urls.kafka,
            blobs_url=urls.blobs,
            records_url=urls.records,
            model_keys=urls.model_keys,
            profile=self.options.profile,
            children=tuple(self.children()),
        )
        self.home.write_state(self.state)

    def children(self) -> Iterator[Child]:
        if self.ground and self.ground.broker:
            for number, pid in enumerate(self.ground.broker.pids):
                yield Child("kafka", number, pid, self._broker_restarts)
        yield from (process.child() for process in self.processes)

    def watched(self, group: int, came: bool) -> None:
        self._guard.write(f"{'+' if came else '-'}{group}\n".encode())
        self._guard.flush()


@contextmanager
def guarded() -> Iterator[IO[bytes]]:
    """The guard's pipe: it ends with us."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "ouroboros.guard"], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guard.stdin is not None
    try:
        yield guard.stdin
    finally:
        guard.stdin.close()
        guard.wait()


def heed_signals(stop: Callable[[], None]) -> None:
    def heard(_number: int, _frame: FrameType | None) -> None:
        stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, heard)


def input_ended() -> bool:
    """Whether the command that holds our standard input is gone."""
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and os.read(0, 1024) == b""


def locked(home: Home) -> IO[str]:
    """The home, for us alone. `status` may hold the lock for a blink: so a few tries."""
    for _ in range(20):
        lock = home.lock()
        if lock is not None:
            return lock
        time.sleep(0.05)
    raise Trouble(Exit.RUNNING, "a system runs there already", "see `ouroboros status`")


class Attached(Supervisor):
    """One that stops when the command that started it is gone."""

    def tick(self) -> None:
        if input_ended():
            self.stopping = True
        super().tick()


def main() -> None:
    home, options = Home.here(), Options(**json.loads(sys.argv[1]))
    home.make()
    lock = locked(home)
    with guarded() as guard:
        supervisor = (Attached if options.attached else Supervisor)(home, options, guard)

        def stop() -> None:
            supervisor.stopping = True

        heed_signals(stop)
        try:
            supervisor.run()
        except Trouble as trouble:
            supervisor.note("failed", "", trouble)
            raise SystemExit(int(trouble.code)) from None
    lock.close()


if __name__ == "__main__":
    main()
