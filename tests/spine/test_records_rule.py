"""The rule of the records, walked at random beside a small model of it."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from spine.records import AcceptedRow, Records, Terminal, TerminalRow

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IMAGES = st.sampled_from(["a", "b", "c"])
ENDS = st.tuples(IMAGES, st.sampled_from(["answered", "failed", "expired"]), st.integers(0, 3))

# State, attempt and answer of an image.
Known = tuple[str, int, str | None]


def after(known: Known | None, state: str, attempt: int, answer: str) -> Known:
    """What stands when an end comes to what is known."""
    if known is not None:
        if known[0] == "deleted" or attempt < known[1]:
            return known
        if attempt == known[1] and known[0] != "accepted":
            return known
    return state, attempt, answer


class Rule(RuleBasedStateMachine):
    records: Records

    def __init__(self) -> None:
        super().__init__()
        self.run_id = uuid.uuid4().hex
        self.known: dict[str, Known] = {}
        self.count = 0

    def id_of(self, image: str) -> str:
        return f"{self.run_id}-{image}"

    @rule(image=IMAGES, attempt=st.integers(0, 1))
    def accept(self, image: str, attempt: int) -> None:
        row = AcceptedRow(self.id_of(image), "ann", "snakes", NOW, NOW, "image/png", 1, attempt)
        self.records.accept([row])
        self.known.setdefault(image, ("accepted", attempt, None))

    @rule(ends=st.lists(ENDS, min_size=1, max_size=5))
    def finish(self, ends: list[tuple[str, Terminal, int]]) -> None:
        row = TerminalRow("", "ann", "snakes", "failed", 0, NOW, NOW, NOW, "")
        rows = []
        for image, state, attempt in ends:
            self.count += 1
            answer = f"answer {self.count}"
            rows.append(
                replace(
                    row, image_id=self.id_of(image), state=state, attempt=attempt, answer=answer
                )
            )
            self.known[image] = after(self.known.get(image), state, attempt, answer)
        told = self.records.finish(rows)
        assert [(r.state, r.attempt, r.answer) for r in told] == [self.known[e[0]] for e in ends]

    @rule(image=IMAGES)
    def delete(self, image: str) -> None:
        assert self.records.delete(self.id_of(image), "ann", NOW) is not None
        self.known[image] = ("deleted", 0, None)

    @rule(image=IMAGES)
    def replay(self, image: str) -> None:
        state, attempt, _ = self.known.get(image, ("none", 0, None))
        opened = self.records.replay(self.id_of(image), NOW + timedelta(seconds=5))
        assert (opened is not None) == (state in ("failed", "expired"))
        if opened is not None:
            self.known[image] = ("accepted", attempt + 1, None)

    @invariant()
    def the_records_say_what_the_rule_says(self) -> None:
        rows = self.records.get_many(self.id_of(i) for i in "abc")
        said = {i: rows[self.id_of(i)] for i in "abc" if self.id_of(i) in rows}
        assert {i: (r.state, r.attempt, r.answer) for i, r in said.items()} == self.known


def test_whatever_comes_in_whatever_order_the_rule_holds(records: Records) -> None:
    machine = type("RuleOfOneDatabase", (Rule,), {"records": records})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=15,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
