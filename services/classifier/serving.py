"""The classifier as a whole: promotions and beats beside the stage, until it is stopped."""

import threading
from collections.abc import Callable
from typing import Any

from services.classifier.reload import Follower
from spine import telemetry
from spine.stage import Stage

JOIN_SECONDS = 5.0
log = telemetry.logger(__name__)


class Serving:
    """Follows the promotions on threads while the stage runs on the caller's."""

    def __init__(self, follower: Follower, stage: Stage[Any, Any]) -> None:
        self._follower, self._stage = follower, stage
        self._stopping = threading.Event()
        self._failure: Exception | None = None

    @property
    def ready(self) -> bool:
        return self._stage.ready

    def run(self) -> None:
        """Catch up with what was promoted, then consume until `stop`. Raises what stopped it."""
        threads = [self._beside("beats", self._follower.beats)]
        try:
            self._follower.catch_up(self._stopping)
            threads.append(self._beside("models", self._follower.follow))
            self._stage.run()
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join(JOIN_SECONDS)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """From any thread or signal."""
        self._stopping.set()
        self._stage.stop()

    def _beside(self, name: str, life: Callable[[threading.Event], None]) -> threading.Thread:
        def lived() -> None:
            try:
                life(self._stopping)
            except Exception as error:
                # Deaf to promotions it would serve an old model for ever: better seen than hidden.
                log.error("the follower of promotions failed", error=type(error).__name__)
                self._failure = error
                self.stop()

        thread = threading.Thread(target=lived, name=name, daemon=True)
        thread.start()
        return thread
