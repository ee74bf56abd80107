"""Small pictures, made byte by byte."""

import struct
import zlib


def png(width: int, height: int, shade: int = 0, bits: int = 8) -> bytes:
    """A grey PNG; `shade` makes different bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = bytes([0]) + bytes([shade]) * ((width * bits + 7) // 8)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    packed = zlib.compressobj(9)
    pixels = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
