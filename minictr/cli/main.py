"""The click side: the group of verbs, help made from the option tables, shell completion.

Hot verbs come here for ``--help`` and completion only; parsing by these commands gives the same result as the fast
parser (tests/unit/test_cli_parsers.py).
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from minictr import __version__
from minictr.cli import entry
from minictr.cli.about import ABOUT, SUBJECTS
from minictr.cli.complete import complete_command, complete_container, complete_option
from minictr.cli.fastparse import scan
from minictr.cli.options import FLAG, GROUPS, MANY, OPTIONAL, Row
from minictr.errors import MinictrError
from minictr.runtime.store import choose_root

if TYPE_CHECKING:
    from collections.abc import Sequence


def option(row: Row) -> click.Option:
    """A row of the table as click knows it."""
    flags, dest, kind, metavar, text, _ = row
    decls = (dest, *flags)
    if kind == FLAG:
        return click.Option(decls, is_flag=True, default=None, help=text)
    common: dict[str, Any] = {
        "help": text,
        "type": click.UNPROCESSED,
        "shell_complete": lambda ctx, param, incomplete: complete_option(dest, incomplete),
    }
    if kind == OPTIONAL:
        return OptionalValue(decls, metavar=f"[={metavar}]", is_flag=False, flag_value="", **common)
    return click.Option(decls, metavar=metavar, multiple=kind == MANY, **common)


class OptionalValue(click.Option):
    """``--opt`` or ``--opt=VALUE``; help shows it so."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        return f"{', '.join(self.opts)}{self.metavar}", self.help or ""


class HotVerb(click.Command):
    """A verb of the option tables: parameters and grouped help from there."""

    def __init__(self, verb: str) -> None:
        self.table, _ = entry.table_of(verb)
        line, words, text = ABOUT[verb]
        names = entry.HOT[verb][3] == entry.NAMES or verb in ("top", "exec")
        command = click.Argument(
            ["command"],
            nargs=-1,
            type=click.UNPROCESSED,
            metavar=words,
            shell_complete=complete_container if names else complete_command,
        )
        super().__init__(
            verb,
            params=[*map(option, self.table), command],
            help=inspect.cleandoc(text),
            short_help=line,
            context_settings={"allow_interspersed_args": entry.HOT[verb][3] == entry.NAMES},
            add_help_option=True,
            hidden=not line,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """click takes the word after a bare ``--trace`` for its value; ``--trace=`` it leaves alone."""
        optional = tuple(flag for row in self.table if row[2] == OPTIONAL for flag in row[0])
        if optional and not ctx.resilient_parsing and any(word.startswith(optional) for word in args):
            args = self._explicit(args)
        return super().parse_args(ctx, args)

    def _explicit(self, args: list[str]) -> list[str]:
        plain: list[str] = []
        for row, flag, value in scan(args, self.table):
            if row is None:
                plain += [flag] if value is None else ["--", *value]
            elif row[2] == FLAG:
                plain.append(flag)
            else:
                plain += [f"{flag}={value}"] if row[2] == OPTIONAL else [flag, value]
        return plain

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = {param.name: param.get_help_record(ctx) for param in self.get_params(ctx)}
        for group in dict.fromkeys((*GROUPS, *(row[5] for row in self.table))):
            rows = [records[row[1]] for row in self.table if row[5] == group]
            shown = [record for record in rows if record is not None]
            if shown:
                with formatter.section(group):
                    formatter.write_dl(shown)
        if not self.table:
            super().format_options(ctx, formatter)

    def invoke(self, ctx: click.Context) -> int:
        opts, command = parsed(ctx.params)
        return entry.call(self.name or "", opts, command)


def parsed(params: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """click's parameters in the shape the fast parser gives: only what was said."""
    said = {name: value for name, value in params.items() if value is not None and value != ()}
    opts = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    return opts, tuple(opts.pop("command", ()))


# Verbs that click reads itself: verb -> (module, attribute), imported when asked for.
COLD = {
    "features": ("minictr.cli.features", "features"),
    "doctor": ("minictr.cli.doctor", "doctor"),
    "rootfs": ("minictr.cli.rootfs", "rootfs"),
    "cp": ("minictr.cli.cp", "cp"),
    "diff": ("minictr.cli.diff", "diff"),
    "commit": ("minictr.cli.commit", "commit"),
    "network": ("minictr.cli.networks", "network"),
    "completion": ("minictr.cli.main", "completion"),
    "version": ("minictr.cli.main", "version"),
}
VERBS = [verb for verbs in SUBJECTS.values() for verb in verbs if verb in entry.HOT or verb in COLD]


class Verbs(click.Group):
    """The group: each verb's module is imported only when that verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return VERBS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in entry.HOT:
            return HotVerb(cmd_name)
        if cmd_name not in COLD:
            return None
        module, attribute = COLD[cmd_name]
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))
        for subject, verbs in SUBJECTS.items():
            with formatter.section(subject):
                formatter.write_dl([(verb.ljust(width), ABOUT[verb][0]) for verb in verbs if verb in VERBS])


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: eval "$(minictr completion bash)" in ~/.bashrc.
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(group, {}, "minictr", "_MINICTR_COMPLETE").source())


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"minictr {__version__}")


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"minictr {__version__}")
        ctx.exit()


def _choose_root(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    if path is not None:
        choose_root(path)


group = Verbs(
    "minictr",
    help="Run programs in containers, one kernel feature at a time.",
    params=[
        click.Option(
            ["--root"],
            metavar="DIR",
            expose_value=False,
            is_eager=True,
            callback=_choose_root,
            help="Where containers are written down; MINICTR_ROOT says it too.",
            shell_complete=lambda ctx, param, incomplete: complete_option("root", incomplete),
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        ),
    ],
)


def main(args: Sequence[str]) -> int:
    """Run click over ARGS; every mistake is one line and exit code 125."""
    verb = next((word for word in args if not word.startswith("-")), "")
    verb = verb if verb in VERBS or verb in entry.HOT else ""
    try:
        result = group.main(list(args), prog_name="minictr", complete_var="_MINICTR_COMPLETE", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.ctx.get_help() if err.ctx else "")
        return 0
    except click.ClickException as err:
        entry.complain(verb, err.format_message())
        return entry.FAILED
    except click.Abort:
        return 130
    except BrokenPipeError:
        return entry.broken_pipe()
    except MinictrError as err:
        entry.complain(verb, err)
        return err.exit_code
    except OSError as err:
        entry.complain(verb, entry.told(err))
        return entry.FAILED
    return result if isinstance(result, int) else 0
