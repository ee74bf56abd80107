"""A decoding process that does what the end of an image tells it to."""

import json
import os
import signal
import sys
import time

from spine.decoder import serve
from spine.images import Limits, Preprocessing
from spine.pixels import Decoded, prepare


def obey(data: bytes, preprocessing: Preprocessing, limits: Limits) -> Decoded:
    if data.endswith(b"segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if data.endswith(b"killed once"):
        killed_once(data)
    if data.endswith(b"spin"):
        while True:
            pass
    if data.endswith(b"sleep"):
        time.sleep(3600)
    if data.endswith(b"hoard"):
        hoard = [bytearray(1 << 20)]
        while True:
            hoard.append(bytearray(1 << 20))
    return prepare(data, preprocessing, limits)


def killed_once(data: bytes) -> None:
    """As the kernel kills for memory that others took; the file's name stands in the image."""
    marker = data.split(b"|")[-2].decode()
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if os.environ.get("LANG") == "C.never":
        sys.exit(3)
    serve(json.loads(sys.argv[1]), obey)
