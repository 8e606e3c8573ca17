"""The fast parser, and that click's commands made from the same table agree with it on every option."""

from __future__ import annotations

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minictr.cli import fastparse, options
from minictr.cli.main import HotVerb, parsed
from minictr.errors import SpecError

RUN, PLAN = options.TABLES["run"], options.TABLES["plan"]
KERNEL_MEMORY = "the kernel's memory counts in --memory; a limit of its own is gone since Linux 5.16"


def spellings(table):
    """(row, spelling, negative) for every way an option can be written."""
    return [
        (row, spelling, place > 0) for row in table for flag in row[0] for place, spelling in enumerate(flag.split("/"))
    ]


def by_click(args, verb="run"):
    with HotVerb(verb).make_context(verb, list(args)) as ctx:
        return parsed(ctx.params)


@pytest.mark.parametrize("verb", options.TABLES)
def test_the_table_has_no_spelling_twice(verb):
    words = [spelling for _, spelling, _ in spellings(options.TABLES[verb])]
    words += [flag for flags, _ in options.REFUSALS[verb] for flag in flags]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize("verb", options.TABLES)
def test_every_row_is_whole(verb):
    table = options.TABLES[verb]
    for flags, dest, kind, metavar, text, group in table:
        assert flags
        assert all(flag.startswith("-") for flag in flags)
        assert dest.isidentifier()
        assert kind in (options.FLAG, options.VALUE, options.OPTIONAL, options.MANY)
        assert bool(metavar) == (kind != options.FLAG)
        assert text.endswith(".")
        assert group in options.GROUPS
    assert len({row[1] for row in table}) == len(table)


EACH = [("run", *spelling) for spelling in spellings(RUN)] + [("plan", *spelling) for spelling in spellings(PLAN)]


@pytest.mark.parametrize(("verb", "row", "flag", "negative"), EACH, ids=lambda item: str(item)[:20])
def test_each_option_both_ways(verb, row, flag, negative):
    if row[2] == options.FLAG:
        forms = {(flag,): not negative}
    elif row[2] == options.OPTIONAL:
        forms = {(flag,): "", (f"{flag}=x",): "x"}
    elif flag.startswith("--"):
        forms = {(flag, "x"): "x", (f"{flag}=x",): "x", (flag, "-x"): "-x", (f"{flag}=",): ""}
    else:
        forms = {(flag, "x"): "x", (f"{flag}x",): "x", (f"{flag}k=v",): "k=v", (flag, "--"): "--"}
    for form, value in forms.items():
        wanted = ({row[1]: [value] if row[2] == options.MANY else value}, ("cmd", "--net", "-e"))
        assert fastparse.parse([*form, "cmd", "--net", "-e"], options.TABLES[verb]) == wanted
        assert by_click([*form, "cmd", "--net", "-e"], verb) == wanted


VALUES = st.one_of(st.sampled_from(["", "-", "--", "-x", "a=b", "--net=host", "cmd"]), st.text("ab=-:/ ", max_size=6))


@st.composite
def command_lines(draw):
    """Words of options from the table, spelled in every way, then perhaps ``--``, then a command."""
    words: list[str] = []
    for row, flag, _ in draw(st.lists(st.sampled_from(spellings(RUN)), max_size=6)):
        if row[2] == options.FLAG:
            words.append(flag)
        elif row[2] == options.OPTIONAL:
            words.append(draw(st.sampled_from([flag, f"{flag}=f", f"{flag}="])))
        else:
            value = draw(VALUES)
            glue = draw(st.booleans())
            together = flag + ("=" if flag.startswith("--") else "") + value
            words += [together] if glue and (value or flag.startswith("--")) else [flag, value]
    if draw(st.booleans()):
        words.append("--")
    return words + draw(st.lists(st.sampled_from(["cmd", "-x", "--rm", "--", "--trace", "--help"]), max_size=3))


@settings(max_examples=400, deadline=None)
@given(command_lines())
def test_click_and_the_fast_parser_agree(words):
    try:
        fast = fastparse.parse(words, RUN)
    except SpecError:
        with pytest.raises((SpecError, click.UsageError)):
            by_click(words)
        return
    if fast == ({"help": True}, ()):
        with pytest.raises((click.exceptions.Exit, click.UsageError)):  # click looks at what follows first
            by_click(words)
        return
    assert by_click(words) == fast


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("-=abehituvwx/ ", max_size=8), max_size=5))
def test_any_words_parse_or_are_refused(words):
    try:
        opts, command = fastparse.parse(words, RUN)
    except SpecError as err:
        message = str(err)
        assert len(message.splitlines()) == 1
    else:
        assert isinstance(opts, dict)
        assert list(command) == words[len(words) - len(command) :]


@pytest.mark.parametrize(
    ("words", "opts", "command"),
    [
        (["-it", "sh"], {"interactive": True, "tty": True}, ("sh",)),
        (["-itw/tmp", "sh", "-c", "x"], {"interactive": True, "tty": True, "workdir": "/tmp"}, ("sh", "-c", "x")),
        (["-t", "--no-tty", "sh"], {"tty": False}, ("sh",)),
        (["--no-init", "--init", "sh"], {"init": True}, ("sh",)),
        (["-eA=1", "-e", "B=2", "--env=C", "sh"], {"env": ["A=1", "B=2", "C"]}, ("sh",)),
        (["--rootfs", "a", "--rootfs=b", "sh"], {"rootfs": "b"}, ("sh",)),
        (["--", "--rm"], {}, ("--rm",)),
        (["-", "x"], {}, ("-", "x")),
        (["sh", "--", "--rm"], {}, ("sh", "--", "--rm")),
        (["--trace", "f", "x"], {"trace": ""}, ("f", "x")),
        (["--rm", "ls", "--help"], {"rm": True}, ("ls", "--help")),
        (["--rm", "--help"], {"help": True}, ()),
        ([], {}, ()),
    ],
)
def test_forms(words, opts, command):
    assert fastparse.parse(words, RUN) == (opts, command)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rootf", "x"], "no such option: --rootf; did you mean --rootfs?"),
        (["--envfile", "x"], "no such option: --envfile; did you mean --env-file?"),
        (["--zzzzzz"], "no such option: --zzzzzz"),
        (["-Z"], "no such option: -Z"),
        (["-iZ"], "no such option: -Z"),
        (["--rm=true"], "--rm takes no value, and was given 'true'"),
        (["--rootfs"], "--rootfs needs a value: DIR"),
        (["-ie"], "-e needs a value: KEY[=VALUE]"),
        (["--kernel-memory=5g"], f"--kernel-memory is not supported: {KERNEL_MEMORY}"),
        (["--runtime", "x"], "--runtime is not supported: there is no daemon, and one runtime"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(SpecError) as caught:
        fastparse.parse(words, RUN, refused=options.REFUSED)
    assert str(caught.value) == message


@pytest.mark.parametrize("flag", [flag for flags, _ in options.REFUSED for flag in flags])
def test_options_of_docker_are_refused_by_name(flag):
    with pytest.raises(SpecError, match=rf"^{flag} is not supported: \w.*[^.]$"):
        fastparse.parse([flag, "x", "sh"], RUN, refused=options.REFUSED)
