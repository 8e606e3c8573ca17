"""What ``import minictr`` promises is there, and is explained."""

from __future__ import annotations

import inspect

import pytest

import minictr


@pytest.mark.parametrize("name", minictr.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(minictr, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_nothing_else_is_to_be_had() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Manager'"):
        _ = minictr.Manager
    assert dir(minictr) == sorted(minictr.__all__)
