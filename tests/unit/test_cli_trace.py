"""The time line as a chart and as a Chrome trace."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.cli.trace import chart, chrome, show, write_chrome
from minictr.runtime.timeline import Row, Timeline

LINE = Timeline(
    (
        Row(1, "clone3", "net pid", "clone", 5.0, 780.0),
        Row(4, "mount", "proc on /proc", "proc", 785.0, 40.0),
        Row(5, "mount", "tmpfs on /dev", "dev", 825.0, 30.0),
        Row(6, "mknod", "/dev/null 1:3", "dev", 855.0, 2.5),
        Row(7, "exec", "/bin/true", "exec", 857.5, 1100.0),
    )
)


def test_the_chart_adds_up_features_and_names_the_slowest_steps():
    lines = chart(LINE).splitlines()
    assert lines[0] == "start: 1,952 us in 5 steps of 4 features"
    assert lines[1].split() == ["feature", "us", "share", "steps"]
    assert [line.split()[:4] for line in lines[2:6]] == [
        ["exec", "1,100", "56.3%", "1"],
        ["clone", "780", "39.9%", "1"],
        ["proc", "40", "2.0%", "1"],
        ["dev", "32", "1.7%", "2"],
    ]
    assert lines[6] == "slowest steps, us:"
    assert lines[7] == "     1,100    7 exec: exec /bin/true"
    bars = [line.count("\u2588") for line in lines[2:6]]
    assert bars == sorted(bars, reverse=True)
    assert bars[1] == pytest.approx(bars[0] * 780 / 1100, abs=1)


@given(
    st.lists(st.tuples(st.text(max_size=90), st.text("abc_", max_size=40), st.floats(0, 1e7))),
    st.integers(0, 300),
    st.booleans(),
)
def test_no_line_is_wider_than_the_terminal(rows, width, blocks):
    line = Timeline(tuple(Row(i, "mount", text, feature, 0.0, us) for i, (text, feature, us) in enumerate(rows)))
    lines = chart(line, width, blocks=blocks).splitlines()
    assert "".join(lines).isprintable()
    for text in lines:
        assert len(text) <= max(width, 48)


def test_an_empty_time_line_is_told():
    assert chart(Timeline(())) == "start: no steps were timed\n"


def test_colour_only_where_it_was_asked_for():
    assert "\x1b" not in chart(LINE)
    assert "\x1b[36m" in chart(LINE, colour=True)


def test_a_stream_without_utf8_gets_plain_bars():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show(LINE, stream)
    stream.seek(0)
    assert "####" in stream.read()


def test_a_pipe_gets_79_columns_and_no_colour():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    show(LINE, stream)
    stream.seek(0)
    text = stream.read()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 79


def test_chrome_events_are_complete_and_in_microseconds():
    trace = chrome(LINE, pid=7, name="box")
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(event["name"], event["cat"], event["ts"], event["dur"]) for event in events] == [
        ("clone3 net pid", "clone", 0.0, 780.0),
        ("mount proc on /proc", "proc", 780.0, 40.0),
        ("mount tmpfs on /dev", "dev", 820.0, 30.0),
        ("mknod /dev/null 1:3", "dev", 850.0, 2.5),
        ("exec /bin/true", "exec", 852.5, 1100.0),
    ]
    assert {event["pid"] for event in trace["traceEvents"]} == {7}
    assert trace["traceEvents"][0] == {"ph": "M", "name": "process_name", "pid": 7, "tid": 7, "args": {"name": "box"}}


def test_the_file_is_json():
    file = io.StringIO()
    write_chrome(LINE, file, 7, "box")
    assert json.loads(file.getvalue()) == chrome(LINE, 7, "box")
