"""What the wiring says by name is there."""

from services.gateway.__main__ import LEISURE
from services.gateway.admission import Backlog
from services.gateway.deliver import Delivery


def test_only_the_group_that_nobody_waits_for_may_take_its_time() -> None:
    nothing: object = None
    delivery = Delivery(nothing, nothing, nothing, Backlog(1))  # type: ignore[arg-type]
    assert set(LEISURE) == {delivery.pending().name}
    assert delivery.results().name not in LEISURE
