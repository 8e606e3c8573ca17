"""The click side: the group of verbs, help made from the option table, shell completion.

Hot verbs come here for ``--help`` and completion only; parsing by these commands gives the same result as the fast
parser (tests/unit/test_cli_parsers.py).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from minictr import __version__
from minictr.cli import entry
from minictr.cli.complete import complete_command, complete_option
from minictr.cli.fastparse import scan
from minictr.cli.options import FLAG, GROUPS, MANY, OPTIONAL, Row
from minictr.errors import MinictrError

if TYPE_CHECKING:
    from collections.abc import Sequence

ABOUT = {
    "run": """Run COMMAND in a container.

    The first word that is not an option is the command; all after it is its own. Exit code: the program's own;
    125 minictr failed, 126 not executable, 127 not found, 128+N killed by signal N, 124 --timeout.""",
    "exec": """Run COMMAND in container NAME, which runs.

    It joins all that the container has, and is confined as its program is. Exit codes are those of 'minictr run'.""",
    "plan": """Print every kernel operation that 'minictr run' with the same words would do, in order. Does none.""",
}


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
    """``run`` or ``plan``: parameters and grouped help from the table."""

    def __init__(self, verb: str, table: Sequence[Row]) -> None:
        self.table = tuple(table)
        command = click.Argument(
            ["command"],
            nargs=-1,
            type=click.UNPROCESSED,
            metavar="NAME COMMAND [ARGUMENT]..." if verb == "exec" else "COMMAND [ARGUMENT]...",
            shell_complete=complete_command,
        )
        super().__init__(
            verb,
            params=[*(option(row) for row in self.table), command],
            help=ABOUT[verb],
            short_help=VERBS[verb][2],
            context_settings={"allow_interspersed_args": False},
            add_help_option=True,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """click takes the word after a bare ``--trace`` for its value; ``--trace=`` it leaves alone."""
        if not ctx.resilient_parsing and any(word.startswith("--trace") for word in args):
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
        for group in GROUPS:
            rows = [records[row[1]] for row in self.table if row[5] == group]
            shown = [record for record in rows if record is not None]
            if shown:
                with formatter.section(group):
                    formatter.write_dl(shown)

    def invoke(self, ctx: click.Context) -> int:
        opts, command = parsed(ctx.params)
        return entry.call(self.name or "", opts, command)


def parsed(params: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """click's parameters in the shape the fast parser gives: only what was said."""
    said = {name: value for name, value in params.items() if value is not None and value != ()}
    opts = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    return opts, tuple(opts.pop("command", ()))


# verb -> (module, attribute, line for the overview); imported when asked for.
VERBS = {
    "run": ("", "", "Run a command in a container."),
    "plan": ("", "", "Print what run would do."),
    "exec": ("", "", "Run a command in a running container."),
    "features": ("minictr.cli.features", "features", "List every feature, and whether it can be had here."),
    "rootfs": ("minictr.cli.rootfs", "rootfs", "Make a root file system."),
    "completion": ("", "", "Print the completion script of a shell."),
    "version": ("", "", "Print the version."),
}


class Verbs(click.Group):
    """The group: each verb's module is imported only when that verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        if cmd_name in entry.HOT:
            return HotVerb(cmd_name, entry.table(cmd_name))
        module, attribute, _ = VERBS[cmd_name]
        if not module:
            return {"completion": completion, "version": version}[cmd_name]
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, _, text) in VERBS.items()])


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


group = Verbs(
    "minictr",
    help="Run programs in containers, one kernel feature at a time.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print the version.",
        )
    ],
)


def main(args: Sequence[str]) -> int:
    """Run click over ARGS; every mistake is one line and exit code 125."""
    verb = next((word for word in args if not word.startswith("-")), "")
    verb = verb if verb in VERBS else ""
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
        entry.complain(verb, err)
        return entry.FAILED
    return result if isinstance(result, int) else 0
