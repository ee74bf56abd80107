"""Bodies: one image out of a request, streamed once, within a hard limit.

An image comes as the body itself, as the one file of a form, or as base64 in JSON. The declared
type of the body only chooses between these; what the image is, its bytes say.
"""

import asyncio
import binascii
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pydantic_core import from_json
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.gateway.problems import Problem

Receive = Callable[[], Awaitable[Any]]

MOST_PARTS = 16
FORM_OVERHEAD = 64 * 1024
CLOSE = {"Connection": "close"}
# What takes longer than this many bytes to unpack does so on a thread, beside the loop.
AT_ONCE = 64 * 1024


class Gone(Exception):
    """The client went away in the middle of its body: there is nobody to answer."""


@dataclass(slots=True)
class Upload:
    """The bytes of one image and their SHA-256, hex."""

    data: bytes
    sha256: str

    def drop(self) -> None:
        """Let the bytes go: a request that waits for its answer must not hold them."""
        self.data = b""


async def read(receive: Receive, headers: Mapping[bytes, bytes], max_bytes: int) -> Upload:
    """The image of a request. Raises Problem, Gone."""
    declared = headers.get(b"content-type", b"application/octet-stream")
    kind = declared.partition(b";")[0].strip().lower()
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return await _raw(receive, headers, max_bytes)
    if kind == b"multipart/form-data":
        return await _form(receive, headers, declared, max_bytes)
    if kind == b"application/json":
        return await _json(receive, headers, max_bytes)
    raise Problem(
        "body.type",
        "Send the image as image/* or application/octet-stream, as multipart/form-data with one "
        'file, or as application/json {"image": "<base64>"}.',
        CLOSE,
    )


def room_for(headers: Mapping[bytes, bytes], max_bytes: int) -> int:
    """Bytes that this body may come to hold: what it declares, else the most that is taken."""
    declared = headers.get(b"content-length", b"")
    most = max_bytes * 4 // 3 + FORM_OVERHEAD
    return min(int(declared), most) if declared.isdigit() and len(declared) <= 18 else max_bytes


async def _raw(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> Upload:
    # BytesIO gives its buffer away without a copy: a body is never held twice.
    buffer, digest = io.BytesIO(), sha256()
    async for chunk in _chunks(receive, headers, most):
        digest.update(chunk)
        buffer.write(chunk)
    return Upload(buffer.getvalue(), digest.hexdigest())


async def _chunks(
    receive: Receive, headers: Mapping[bytes, bytes], most: int
) -> AsyncIterator[bytes]:
    """The body as it comes, at most `most` bytes of it."""
    check_length(headers, most)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise too_large(most)
        yield chunk
        more = message.get("more_body", False)


def check_length(headers: Mapping[bytes, bytes], most: int) -> None:
    """Refuse by the declared length, before a byte is read."""
    declared = headers.get(b"content-length")
    if declared is None:
        return
    if not declared.isdigit():
        raise Problem("request.malformed", "Send the body's length in digits.", CLOSE)
    if len(declared) > 18 or int(declared) > most:
        raise too_large(most)


def too_large(most: int) -> Problem:
    return Problem("body.too_large", f"Send at most {most} bytes.", CLOSE)


async def _json(receive: Receive, headers: Mapping[bytes, bytes], most: int) -> Upload:
    text = bytearray()
    async for chunk in _chunks(receive, headers, most * 4 // 3 + FORM_OVERHEAD):
        text += chunk
    if not text:
        raise Problem("image.empty", "The body is empty; send the bytes of a photo.")
    if len(text) > AT_ONCE:
        return await asyncio.to_thread(_unpacked, text, most)
    return _unpacked(text, most)


def _unpacked(text: bytearray, most: int) -> Upload:
    """The image in `text`, which is emptied on the way. Raises Problem."""
    try:
        image = from_json(text, allow_inf_nan=False)["image"]
        text.clear()
        data = binascii.a2b_base64(image, strict_mode=True)
    except (ValueError, TypeError, KeyError):
        raise Problem("request.malformed", 'Send {"image": "<base64>"}.') from None
    if len(data) > most:
        raise too_large(most)
    return Upload(data, sha256(data).hexdigest())


async def _form(
    receive: Receive, headers: Mapping[bytes, bytes], declared: bytes, most: int
) -> Upload:
    """Parsed as it comes, so that a form of ten thousand parts ends at the first too many."""
    _, options = parse_options_header(declared)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise Problem("request.malformed", "The form has no usable boundary.", CLOSE)
    form = _Form(most)
    parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
    try:
        async for chunk in _chunks(receive, headers, most + FORM_OVERHEAD):
            if chunk:
                parser.write(chunk)
        parser.finalize()
    except MultipartParseError:
        raise Problem("request.malformed", "The form cannot be read.", CLOSE) from None
    return form.upload()


@dataclass
class _Form:
    """What the parser found so far."""

    most: int
    parts: int = 0
    names: list[tuple[bytes, bool]] = field(default_factory=list)
    file: io.BytesIO = field(default_factory=io.BytesIO)
    digest: Any = field(default_factory=sha256)
    ended: bool = False
    _header: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _in_file: bool = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._part,
            "on_header_field": self._field_name,
            "on_header_value": self._field_value,
            "on_header_end": self._field_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def upload(self) -> Upload:
        """The one file. Raises Problem where there are none or several, or where a plain field
        has the file's name: which was meant?"""
        files = [name for name, is_file in self.names if is_file]
        if not self.ended or len(files) != 1 or [n for n, _ in self.names].count(files[0]) != 1:
            raise Problem("request.malformed", "Send a form with exactly one file.", CLOSE)
        return Upload(self.file.getvalue(), self.digest.hexdigest())

    def _part(self) -> None:
        self.parts += 1
        self._disposition, self._in_file = b"", False
        if self.parts > MOST_PARTS:
            raise Problem("request.malformed", f"Send at most {MOST_PARTS} parts.", CLOSE)

    def _field_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _field_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _field_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._in_file = b"filename" in options
        self.names.append((options.get(b"name", b""), self._in_file))
        if sum(is_file for _, is_file in self.names) > 1:
            raise Problem("request.malformed", "Send a form with exactly one file.", CLOSE)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_file:
            return
        if self.file.tell() + end - start > self.most:
            raise too_large(self.most)
        chunk = memoryview(data)[start:end]
        self.digest.update(chunk)
        self.file.write(chunk)

    def _end(self) -> None:
        self.ended = True
