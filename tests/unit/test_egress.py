"""Rules of egress: their text, and the disjoint boxes that they become."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import minictr as mc
from minictr.features.egress import Egress, rule_of
from minictr.parse.egress import egress
from minictr.runtime.network.egress import disjoint, merged

BOX = some.tuples(*[some.integers(0, 12)] * 4).map(lambda t: (min(t[:2]), max(t[:2]), min(t[2:]), max(t[2:])))


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("10.0.0.0/8", ("", 0, 65535)),
        ("10.0.0.0/8/tcp", ("tcp", 0, 65535)),
        ("10.0.0.0/8:443/tcp", ("tcp", 443, 443)),
        ("10.0.0.0/8:1-9", ("", 1, 9)),
        ("10.0.0.0/8:53/udp", ("udp", 53, 53)),
    ],
)
def test_text(text: str, rest: tuple[str, int, int]) -> None:
    family, first, last, *found = rule_of(text)
    assert (family, last - first, tuple(found)) == (2, (1 << 24) - 1, rest)
    if text != "10.0.0.0/8":
        six = rule_of(text.replace("10.0.0.0/8", "[fd00::/64]"))
        assert (six[0], six[2] - six[1], six[3:]) == (10, (1 << 64) - 1, rest)


@pytest.mark.parametrize(
    "text", ["", "a", "10.0.0.1:", "10.0.0.1:9-8", "10.0.0.1/tcp/udp", "[fd00::1", "[::1]80", "x:1"]
)
def test_bad_text(text: str) -> None:
    with pytest.raises(mc.SpecError):
        rule_of(text)


def test_wishes() -> None:
    assert egress(("none",)) == egress(("deny",)) == Egress()
    assert egress(("allow=10.0.0.1,10.0.0.2", "deny=10.0.0.3")) == Egress(("10.0.0.1", "10.0.0.2"), ("10.0.0.3",))
    assert Egress(deny=("10.0.0.3",)).is_open
    assert not Egress().is_open
    assert not Egress(("10.0.0.1",), ("10.0.0.3",)).is_open


@given(some.lists(BOX, max_size=8))
@settings(max_examples=200, deadline=None)
def test_boxes_cover_the_same_and_do_not_overlap(boxes: list[tuple[int, int, int, int]]) -> None:
    def points(rows: list[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
        return [(x, y) for a, b, c, d in rows for x in range(a, b + 1) for y in range(c, d + 1)]

    found = points(disjoint(boxes))
    assert len(found) == len(set(found))
    assert set(found) == set(points(boxes))


def test_merged() -> None:
    assert merged([(5, 6), (1, 2), (3, 3), (9, 9), (6, 7)]) == [(1, 3), (5, 7), (9, 9)]
