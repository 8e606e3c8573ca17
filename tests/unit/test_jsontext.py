"""JSON without the json package: what the standard library reads and writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.jsontext import dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_round_trip_and_the_standard_librarys_reading(value):
    text = dumps(value)
    assert loads(text) == value
    assert json.loads(text) == value
    assert "\n" not in text


def test_undecodable_names_come_back():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert loads(dumps(name)) == name


@pytest.mark.parametrize("text", ["", " ", "{", '{"a": }', "[1,]", "1 2", "nul", '"', "[" * 100000, '{"a": 1}x', "\0"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the standard library's own text follows
        loads(text)


def test_what_has_no_form_is_a_type_error():
    with pytest.raises(TypeError, match="bytes"):
        dumps({"a": b""})
