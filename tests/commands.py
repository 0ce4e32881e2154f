"""The commands of the project and their parsers."""

import argparse
import sys
from importlib import import_module

import pytest

from tests.conftest import METHODS
from tools import __main__ as list_commands
from util.cli import arguments
from util.errors import UserError
from util.parser import Parser

TOOLS = {
    f"tools.{name}": f"tools.{name}{'.__main__' * (file.stem == '__main__')}"
    for name, file in list_commands.commands().items()
}
SCRIPTS = {f"{name}.py": name for name in (*METHODS, "evaluate", "predict", "export")}
COMMANDS = {"tools": "tools.__main__", **SCRIPTS, **TOOLS}
"""Every command, and the module of its `main`."""


class Found(Exception):
    """Ends a command with its parser."""


def parser_of(command):
    def stop(parser, *_):
        raise Found(parser)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Found) as found:
        patch.setattr(Parser, "parse_args", stop)
        patch.setattr(sys, "argv", [command])
        if command.removesuffix(".py") in METHODS:
            arguments("Name", unlabeled=command != "supervised.py")
        else:
            import_module(COMMANDS[command]).main()
    return found.value.args[0]


def parsers(command):
    """Yield the parser of a command and those of its subcommands, each after their names."""
    parser = parser_of(command)
    yield [], parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from (([name], command) for name, command in action.choices.items())


def refusal(parser, words):
    """Return the message of a parser that refuses a command line; else an empty text."""

    def error(_, message):
        raise UserError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "error", error)
        try:
            parser.parse_args(words)
        except UserError as problem:
            return str(problem)
        except SystemExit:  # after --help
            pass
    return ""
