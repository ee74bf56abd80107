"""What was in flight when the process died: a small file that outlives it.

An event that kills the process by a native crash or by memory would come again and kill again. The
journal names what was in flight; after a restart each of these is tried alone, and one that was
alone when the process died twice is given up. Healthy events that merely were there when somebody
killed the process pass when they are tried alone.

The file is a row of slots in shared memory: what is written survives the death of the process (not
of the machine: then the broker simply delivers again).
"""

import json
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path

from spine.log import Partition

ENTRY = struct.Struct("<B47sqq")  # used, topic, partition, offset
DEATHS_ALONE = 2
KILLER = "event.crash"  # the code of the event that killed
MOST_SUSPECTS = 4096
Place = tuple[str, int, int]  # topic, partition, offset


class Journal:
    """Slots of what is in flight, and the suspects of the process's last life."""

    def __init__(self, path: Path, slots: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._suspects_path = path.with_name(path.name + ".suspects")
        self._suspects = self._read_suspects()
        if path.exists():
            for place in self._left_behind(path):
                self._suspects.setdefault(place, 0)
        self._write_suspects()
        self._memory = _mapped(path, slots * ENTRY.size)
        self._free = list(range(slots))

    def enter(self, partition: Partition, offset: int) -> int:
        """Note an event that begins; the slot to leave. The stage's lock guards it."""
        if not self._free:
            return -1
        slot = self._free.pop()
        topic = partition[0].encode()[:47]
        ENTRY.pack_into(self._memory, slot * ENTRY.size, 1, topic, partition[1], offset)
        return slot

    def leave(self, slot: int) -> None:
        if slot >= 0:
            self._memory[slot * ENTRY.size] = 0
            self._free.append(slot)

    def killer(self, place: Place) -> bool:
        """Whether the process died often enough while this event was alone."""
        return self._suspects.get(place, 0) >= DEATHS_ALONE

    def suspects(self, place: Place) -> bool:
        """Whether this event was in flight when the process died."""
        return place in self._suspects

    def untried(self, place: Place) -> None:
        """It was held, not handled: that try does not count."""
        self._suspects[place] = max(0, self._suspects.get(place, 0) - 1)
        self._write_suspects()

    def try_alone(self, place: Place) -> None:
        """Before a suspect runs alone: should we die now, this one did it."""
        self._suspects[place] = self._suspects.get(place, 0) + 1
        self._write_suspects()

    def cleared(self, place: Place) -> None:
        """The suspect reached an end."""
        if self._suspects.pop(place, None) is not None:
            self._write_suspects()

    def close(self) -> None:
        self._memory.close()

    def _left_behind(self, path: Path) -> list[Place]:
        raw = path.read_bytes()
        found = []
        for used, topic, partition, offset in ENTRY.iter_unpack(
            raw[: len(raw) // ENTRY.size * ENTRY.size]
        ):
            if used == 1:
                found.append((topic.rstrip(b"\0").decode("utf-8", "replace"), partition, offset))
        return found

    def _read_suspects(self) -> dict[Place, int]:
        try:
            rows = json.loads(self._suspects_path.read_text())
            return {(str(t), int(p), int(o)): int(deaths) for t, p, o, deaths in rows}
        except (OSError, ValueError, TypeError):
            return {}

    def _write_suspects(self) -> None:
        rows = [[*place, deaths] for place, deaths in self._suspects.items()][-MOST_SUSPECTS:]
        fresh = self._suspects_path.with_name(self._suspects_path.name + ".new")
        with suppress(OSError):  # a full disk must not stop the work that the journal guards
            fresh.write_text(json.dumps(rows))
            os.replace(fresh, self._suspects_path)


def _mapped(path: Path, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, bytes(size))  # real blocks: a hole on a full disk would kill us later
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
