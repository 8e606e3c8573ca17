"""JSON without the ``json`` package, whose import costs 7 ms: the same C code, reached directly.

What is written is what :func:`json.dumps` writes with ``ensure_ascii``; lone surrogates (undecodable file names) come
back as they went in.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "loads"]


class _Context:
    """What the C scanner asks its decoder for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = parse_constant = float
    parse_int = int


_scan = make_scanner(_Context())  # type: ignore[arg-type]  # typeshed asks for a decoder


def dumps(value: Any) -> str:
    """VALUE (dict with str keys, list, tuple, str, int, float, bool, None) as JSON on one line."""
    if isinstance(value, str):
        return str(encode_basestring_ascii(value))
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dumps(key)}: {dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(dumps, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def loads(text: str) -> Any:
    """The value that TEXT spells. ValueError when it is not exactly one JSON value."""
    text = text.strip()
    try:
        value, end = _scan(text, 0)
    except StopIteration as err:
        raise ValueError(f"no JSON value at character {err.value}") from None
    except SystemError:  # the C scanner looks for json.decoder's exception, which nobody has imported
        raise ValueError("breaks off, or is no JSON value in its middle") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(text):
        raise ValueError(f"more than one JSON value: character {end}")
    return value
