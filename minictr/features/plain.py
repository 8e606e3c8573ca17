"""Features as plain data, for state on disk, and back. Pure; what comes back is checked as any wish is."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features import feature_class
from minictr.features.check import shown
from minictr.steps import Feature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["feature_from", "plain_feature"]


def plain_feature(feature: Feature) -> dict[str, Any]:
    """FEATURE as ``{"feature": NAME, field: value}``, without the fields that are as by default."""
    fields = {
        name: _plain(value)
        for name in feature._fields
        if (value := getattr(feature, name)) != feature._defaults.get(name, _plain)
    }
    return {"feature": feature.name, **fields}


def feature_from(data: Any) -> Feature:
    """The feature that :func:`plain_feature` described. Raises SpecError for anything else."""
    if not isinstance(data, dict) or not isinstance(data.get("feature"), str):
        raise SpecError(f"{shown(data)} is not a feature")
    fields = {name: _value(value) for name, value in data.items() if name != "feature"}
    try:
        return feature_class(data["feature"])(**fields)
    except TypeError as err:
        raise SpecError(f"feature {data['feature']}: {err}") from err


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if hasattr(value, "plain"):  # a seccomp filter: as the program it is
        return {"hex": value.program.hex()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _value(data: Any) -> Any:
    """Lists were tuples: a feature is a value, and has no lists."""
    if isinstance(data, list):
        return tuple(_value(item) for item in data)
    if isinstance(data, dict):
        try:
            return bytes.fromhex(data["hex"])
        except (KeyError, TypeError, ValueError):
            raise SpecError(f"{shown(data)} is not bytes in hexadecimal") from None
    return data
