"""Tables, spans of time, templates, moments: what the verbs of a container's life print and read."""

from __future__ import annotations

import time

import pytest

from minictr.cli import moments, show, template
from minictr.cli.events import as_text
from minictr.cli.generate import quoted
from minictr.errors import SpecError

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "Less than a second"),
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (MINUTE, "About a minute"),
        (5 * MINUTE, "5 minutes"),
        (HOUR, "About an hour"),
        (5 * HOUR, "5 hours"),
        (2 * DAY, "2 days"),
        (15 * DAY, "2 weeks"),
        (90 * DAY, "3 months"),
        (800 * DAY, "2 years"),
    ],
)
def test_spans_are_dockers(seconds, words):
    assert show.span(seconds) == words


def test_a_table_is_aligned_and_harmless():
    text = show.table(("NAME", "STATUS"), [("a\x1b[31mb\n", "Up"), ("longer name", "Created")])
    assert text.split("\n") == ["NAME           STATUS", "a\\x1b[31mb\\n   Up", "longer name    Created"]


def test_sizes_and_stamps():
    assert [show.size(n) for n in (0, 1023, 1024, 1536, 64 << 20, 3 << 40)] == [
        "0B", "1023B", "1KiB", "1.5KiB", "64MiB", "3TiB",
    ]  # fmt: skip
    assert show.stamp(0) == ""
    assert show.stamp(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"


DATA = {"ID": "ab", "State": {"Pid": 7, "Paused": False}, "Rows": [{"A": 1}], "a.b": "dot", "None": None}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{.ID}}", "ab"),
        ("{{ .ID }}-{{.State.Pid}}", "ab-7"),
        (r"{{.ID}}\t{{.State.Paused}}\n", "ab\tfalse\n"),
        ("{{json .State}}", '{"Pid": 7, "Paused": false}'),
        ("{{.State}}", '{"Pid": 7, "Paused": false}'),
        ('{{index .State "Pid"}} {{index . "a.b"}}', "7 dot"),
        ("{{.Rows.0.A}}", "1"),
        ("{{.None}}", "<no value>"),
        ("plain", "plain"),
    ],
)
def test_templates(text, shown):
    assert template.render(template.compiled(text), DATA) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.ID", "without its"),
        ("{{range .Rows}}", "are known"),
        ("{{.ID | upper}}", "are known"),
        ("{{}}", "are known"),
        ("{{.Nope}}", "no field .Nope; there are: ID, State"),
        ("{{.State.Nope}}", "no field .State.Nope; there are: Pid, Paused"),
        ("{{.ID.x}}", "no field .ID.x; there are: none"),
        ("{{.Rows.7}}", "no field .Rows.7"),
    ],
)
def test_templates_that_are_none(text, message):
    with pytest.raises(SpecError, match=message.replace("|", r"\|")):
        template.render(template.compiled(text), DATA)


def test_moments(monkeypatch):
    now = time.time_ns()
    assert moments.moment({}, "since") is None
    assert moments.moment({"since": "1700000000.5"}, "since") == 1_700_000_000_500_000_000
    assert moments.moment({"since": "2023-11-14T22:13:20.123456789Z"}, "since") == 1_700_000_000_123_456_789
    assert moments.moment({"since": "2023-11-15T00:13:20+02:00"}, "since") == 1_700_000_000_000_000_000
    assert abs(now - moments.moment({"until": "10m"}, "until") - 600 * 10**9) < 10**9
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert moments.moment({"since": "2023-11-14"}, "since") == 1_699_920_000_000_000_000


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2023-13-01", "2023-11-14T25:00:00Z", "-5m", "10x", "9" * 40, "1-2-3"]
)
def test_moments_that_are_none(text):
    with pytest.raises(SpecError, match="^--since"):
        moments.moment({"since": text}, "since")


def test_events_as_lines():
    event = {"time": 1_700_000_000_000_000_000, "id": "ab", "name": "web", "action": "die", "status": 9}
    assert as_text(event) == "2023-11-14T22:13:20.000000000Z container die ab (name=web, exitCode=137)"


def test_words_of_a_unit_are_quoted():
    assert quoted("--name") == "--name"
    assert quoted('a "b" %c $d \\') == '"a \\"b\\" %%c $$d \\\\"'
    assert quoted("") == '""'
    assert quoted("a\nb") == '"a\\x0ab"'
