"""Settings that must fit together."""

from spine.images import Limits
from spine.settings import GatewaySettings, PreclassifierSettings


def test_what_the_gateway_accepts_by_default_is_decoded_by_default() -> None:
    gateway = GatewaySettings.load({})
    accepted = Limits(gateway.max_bytes, gateway.max_pixels, gateway.max_side)
    assert PreclassifierSettings.load({}).limits == accepted == Limits()


def test_every_limit_of_the_preclassifier_can_be_raised() -> None:
    limits = PreclassifierSettings.load(
        {
            "PRECLASSIFIER_MAX_BYTES": "99000000",
            "PRECLASSIFIER_MAX_PIXELS": "88000000",
            "PRECLASSIFIER_MAX_SIDE": "77000",
        }
    ).limits
    assert limits == Limits(99_000_000, 88_000_000, 77_000)
