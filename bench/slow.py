"""The preclassifier, unchanged, on an object store that answers late: `python -m bench.slow`.

SIGUSR1 makes every get take `BENCH_GET_MS` longer, SIGUSR2 ends that.
"""

import os
import signal
import time

from services.preclassifier.__main__ import main
from spine.blobs import Blobs

delay = [0.0]
quick_get = Blobs.get


def get(self: Blobs, key: str) -> bytes:
    if delay[0] and key.startswith("images/"):
        time.sleep(delay[0])
    return quick_get(self, key)


def set_delay(seconds: float) -> None:
    delay[0] = seconds


if __name__ == "__main__":
    slow = float(os.environ["BENCH_GET_MS"]) / 1000
    signal.signal(signal.SIGUSR1, lambda *_: set_delay(slow))
    signal.signal(signal.SIGUSR2, lambda *_: set_delay(0.0))
    Blobs.get = get  # type: ignore[method-assign]
    main()
