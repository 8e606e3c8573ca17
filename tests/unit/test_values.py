"""Value: frozen, compared by content, checked when made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.values import Value


class Point(Value):
    x: int
    y: int = 0

    def check(self) -> None:
        if self.x < 0:
            raise SpecError("x: negative")


class Named(Point):
    word: str = ""


def test_fields_come_by_place_and_by_name() -> None:
    assert (Point(1, 2).x, Point(1, 2).y) == (1, 2)
    assert Point(1, y=2) == Point(x=1, y=2)
    assert Point(1).y == 0


def test_subclasses_add_fields_after_the_inherited_ones() -> None:
    named = Named(1, 2, "a")
    assert (named.x, named.y, named.word) == (1, 2, "a")
    assert named != Point(1, 2)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing x"),
        ((1, 2, 3), {}, "takes 2 values"),
        ((1,), {"z": 1}, "unexpected argument 'z'"),
        ((1,), {"x": 1}, "unexpected argument 'x'"),
    ],
)
def test_wrong_arguments_are_type_errors(args: tuple[int, ...], kwargs: dict[str, int], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Point(*args, **kwargs)


def test_nothing_can_be_set_or_deleted() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match=r"frozen: use \.replace\(x="):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert point == Point(1)


def test_check_runs_on_every_way_to_a_value() -> None:
    with pytest.raises(SpecError, match="negative"):
        Point(-1)
    with pytest.raises(SpecError, match="negative"):
        Point(1).replace(x=-1)


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(Point(1)) == "Point(x=1)"
    assert repr(Named(1, word="a")) == "Named(x=1, word='a')"


@given(st.integers(0), st.integers(), st.text())
def test_equal_content_is_one_value(x: int, y: int, word: str) -> None:
    one, other = Named(x, y, word), Named(x, y, word)
    assert one == other
    assert hash(one) == hash(other)
    assert one.replace() == one
    assert one.replace(y=y + 1) != one
    assert eval(repr(one), {"Named": Named}) == one
