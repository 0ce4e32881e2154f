"""Command lines: help with defaults and examples, mistakes answered in one line."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from util.errors import USER_ERROR, print_error


class Parser(argparse.ArgumentParser):
    """A parser whose help ends with examples, complete command lines, and whose errors suggest the
    nearest option."""

    def __init__(self, description: str | None, *examples: str, **settings: Any):
        settings.setdefault("prog", _program())
        super().__init__(description=description, formatter_class=_Help, **settings)
        self.register("type", Path, _path)  # of all options with type=Path
        self._show(examples)
        self._given: list[str] = []

    def _show(self, examples: Sequence[str]) -> None:
        self.examples = examples
        self.epilog = "\n  ".join(["examples:", *examples])

    def subcommands(self, module: str, metavar: str = "COMMAND") -> "Callable[..., Parser]":
        """Return a function that adds a subcommand by its name, its help, and examples that follow
        `python -m MODULE NAME`."""
        group = self.add_subparsers(dest=metavar.lower(), required=True, metavar=metavar)

        def add(name: str, text: str, *examples: str) -> Parser:
            command = group.add_parser(name, help=text.partition("\n")[0], description=text)
            command._show([f"python -m {module} {name} {line}".rstrip() for line in examples])
            return command

        return add

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with one line on standard error and exit code 2."""
        if message.startswith("unrecognized arguments: "):
            self._given = message.split()[2:]
        known = [*self._names()]
        for option in (word.partition("=")[0] for word in self._given):
            if option[:2] == "--" and not any(name.startswith(option) for name in known):
                near = difflib.get_close_matches(option, known, n=1, cutoff=0.7)
                message = f"unknown option {option}{did_you_mean(near)}"
                break
        print_error(f"error: {message}; see {self.prog} --help")
        sys.exit(USER_ERROR)

    def _names(self) -> Iterator[str]:
        """Options of this parser and of its subcommands."""
        yield from self._option_string_actions
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    yield from command._names()


def at_least(lowest: int) -> Callable[[str], int]:
    """Return the `type` of an option that takes whole numbers from `lowest` up."""

    def integer(text: str) -> int:
        if (number := int(text)) < lowest:
            raise argparse.ArgumentTypeError(f"found {number}, expected {lowest} or more")
        return number

    return integer


def _path(text: str) -> Path:
    """Refuse an empty path, which would be the working directory: an unset shell variable."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found an empty text")
    return Path(text)


def _program() -> str:
    """Return how this process was started: "python unimatch.py", "python -m tools.splits"."""
    spec = sys.modules["__main__"].__spec__
    module = f"-m {spec.name.removesuffix('.__main__')}" if spec else os.path.basename(sys.argv[0])
    return f"python {module}"


def did_you_mean(near: Sequence[str]) -> str:
    """Return the end of a message that suggests the first of the nearest names; none, if empty."""
    return f"; did you mean '{near[0]}'?" if near else ""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with line breaks as written, and the default of each option after its text."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, value = action.help or "", action.default
        if not action.option_strings or "default" in text or value is None or action.nargs == 0:
            return text
        words = value if isinstance(value, list | tuple) else [value]
        return f"{text} (default: {' '.join(map(str, words)) or 'none'})".replace("%", "%%")
