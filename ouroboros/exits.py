"""How a command ends: one table of exit codes, and the one exception that carries them."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit code of every command; the README's table is compared with it by a test."""

    OK = 0
    BUG = 1
    USAGE = 2
    NOT_RUNNING = 3
    RUNNING = 4
    PART_MISSING = 5
    NOT_READY = 6
    SOME_FAILED = 7
    AWAY = 8
    NOT_FOUND = 9
    DIFFERS = 10
    UNUSABLE = 11
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.BUG: "a defect of ours; the message says where the log is",
    Exit.USAGE: "the command line or a setting is wrong",
    Exit.NOT_RUNNING: "no system runs under OUROBOROS_HOME",
    Exit.RUNNING: "a system runs there already",
    Exit.PART_MISSING: "Java, the Kafka jars or an extra is missing",
    Exit.NOT_READY: "the system did not become ready; the logs say why",
    Exit.SOME_FAILED: "an image got no species, or not in time; also `result` of one that failed",
    Exit.AWAY: "the gateway, Kafka, the store or the records do not answer, or refuse the key",
    Exit.NOT_FOUND: "no such image, key or dead letter",
    Exit.DIFFERS: "Kafka's topics differ from the table",
    Exit.UNUSABLE: "the file or folder cannot be used",
    Exit.INTERRUPTED: "stopped by Ctrl-C",
}


class Trouble(Exception):
    """What a command cannot do, told to a person: what is wrong and what to do about it."""

    def __init__(self, code: Exit, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = advice
