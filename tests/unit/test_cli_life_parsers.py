"""The verbs of a container's life: their tables, and that click and the fast parser agree on all of them."""

from __future__ import annotations

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minictr.cli import entry, fastparse, options, options_life
from minictr.cli.about import ABOUT, SUBJECTS
from minictr.cli.main import COLD, VERBS, HotVerb, parsed
from minictr.errors import SpecError

LIFE = [verb for verb in entry.HOT if entry.HOT[verb][2] == entry.LIFE]


def spellings(table):
    return [(row, spelling) for row in table for flag in row[0] for spelling in flag.split("/")]


def by_click(verb, args):
    with HotVerb(verb).make_context(verb, list(args)) as ctx:
        return parsed(ctx.params)


def by_table(verb, args):
    table, refused = entry.table_of(verb)
    return fastparse.parse(args, table, mixed=entry.HOT[verb][3], refused=refused)


def test_every_verb_has_its_table_its_function_and_its_words():
    assert set(options_life.TABLES) == set(LIFE)
    assert set(options_life.REFUSALS) <= set(LIFE)
    for verb, (module, function, _, _) in entry.HOT.items():
        assert callable(getattr(__import__(module, fromlist=[function]), function)), verb
        line, _, text = ABOUT[verb]
        assert text
        assert line.endswith(".") or verb == "cleanup"
    assert sorted(VERBS) == sorted(set(entry.HOT) - {"cleanup"} | set(COLD))
    assert {verb for verbs in SUBJECTS.values() for verb in verbs} <= set(ABOUT)


@pytest.mark.parametrize("verb", LIFE)
def test_every_row_is_whole(verb):
    table, refused = entry.table_of(verb)
    for flags, dest, kind, metavar, text, _ in table:
        assert flags
        assert dest.isidentifier()
        assert kind in (options.FLAG, options.VALUE, options.MANY)
        assert bool(metavar) == (kind != options.FLAG)
        assert text.endswith((".", ";"))
    words = [spelling for _, spelling in spellings(table)] + [flag for flags, _ in refused for flag in flags]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize("verb", LIFE)
def test_help_is_lines_of_eighty(verb):
    with HotVerb(verb).make_context(verb, [], resilient_parsing=True) as ctx:
        text = ctx.get_help()
    assert max(map(len, text.splitlines())) <= 80
    for _, spelling in spellings(entry.table_of(verb)[0]):
        assert spelling in text


@st.composite
def command_lines(draw):
    """A verb, and options and names in any order."""
    verb = draw(st.sampled_from(LIFE))
    table = spellings(entry.table_of(verb)[0])
    words: list[str] = []
    for _ in range(draw(st.integers(0, 5))):
        if table and draw(st.booleans()):
            row, flag = draw(st.sampled_from(table))
            value = draw(st.sampled_from(["", "x", "-1", "--", "a=b", "-a"]))
            words += [flag] if row[2] == options.FLAG else [flag, value]
        else:
            words.append(draw(st.sampled_from(["web", "db", "--", "0123456789ab", "-"])))
    return verb, words


@settings(max_examples=400, deadline=None)
@given(command_lines())
def test_click_and_the_fast_parser_agree(drawn):
    verb, words = drawn
    try:
        fast = by_table(verb, words)
    except SpecError:
        with pytest.raises((SpecError, click.UsageError)):
            by_click(verb, words)
        return
    assert by_click(verb, words) == fast


def test_options_may_stand_after_names():
    assert by_table("stop", ["web", "-t", "3", "db", "-s", "INT"]) == ({"timeout": "3", "signal": "INT"}, ("web", "db"))
    assert by_table("stop", ["--", "-t"]) == ({}, ("-t",))
    assert by_table("top", ["web", "-o", "pid"]) == ({}, ("web", "-o", "pid"))
    assert by_table("rm", ["web", "--help"]) == ({"help": True}, ())


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("ps", ["-s"], "-s is not supported: sizes are not counted: du tells that of the root"),
        ("ps", ["--formt", "json"], "no such option: --formt; did you mean --format?"),
        ("rm", ["-v", "web"], "-v is not supported: there are no volumes: -v of run binds directories of the host"),
        ("stop", ["-t"], "-t needs a value: SECONDS"),
        ("stop", ["--memory", "1g", "web"], "no such option: --memory"),
        ("pause", ["--all=yes"], "--all takes no value, and was given 'yes'"),
    ],
)
def test_mistakes(verb, words, message):
    with pytest.raises(SpecError) as caught:
        by_table(verb, words)
    assert str(caught.value) == message
