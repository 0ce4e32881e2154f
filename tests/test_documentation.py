"""README and docs: links have a target, and scripts accept the documented command lines."""

import re
import shlex
from functools import cache
from importlib.util import find_spec
from urllib.parse import unquote

import pytest

from tests.commands import COMMANDS, parser_of, refusal
from tests.conftest import REPOSITORY

PAGES = [
    *REPOSITORY.glob("*.md"),
    *REPOSITORY.glob("docs/**/*.md"),
    *REPOSITORY.glob("splits/*.md"),
]
every_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY))
)
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|(?:src|href)=\"([^\"]+)")
HEADING = re.compile(r"^#+ +(.*?)[ #]*$|<a (?:id|name)=\"([^\"]+)", re.MULTILINE)
START = re.compile(r"(?:^|[;|&(] *|\bdo ) *(?:\w+=\S* +)*((?:python|sh|sbatch) .*)")
parser = cache(parser_of)


@cache
def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = []
    for heading, name in HEADING.findall(FENCE.sub("", page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = name or re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


@every_page
def test_links_lead_to_files_and_headings(page):
    broken = []
    for link in map("".join, LINK.findall(FENCE.sub("", page.read_text()))):
        if re.match(r"\w+:", link):  # https:, mailto:
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    assert not broken


def command_lines(text):
    """Yield the commands in code blocks that start Python or a shell script.

    In a console block commands follow the prompt. Loop variables get their first value.
    """
    for language, block in FENCE.findall(text):
        first = dict(re.findall(r"\bfor (\w+) in ([^\s;]+)", block))
        filled = re.sub(r"\$(\w+)", lambda name, of=first: of.get(name[1], name[0]), block)
        for line in filled.replace("\\\n", " ").splitlines():
            prompted = language != "console" or line.startswith("$ ")
            if prompted and (start := START.search(line.removeprefix("$ "))):
                yield start[1]


def problem(line):
    """Return why a documented command line fails, or an empty text."""
    program, *words = shlex.split(re.split(r" [|>&]|;|&&", line)[0], comments=True)
    if program == "sbatch":
        words = [word for word in words if word.endswith(".sh")]
    if words[:1] == ["-m"]:
        words.pop(0)
    if not words or words[0].startswith("-"):  # sh -c
        return ""
    script, *arguments = words
    if script not in COMMANDS:
        exists = (REPOSITORY / script).is_file() or program == "python" and find_spec(script)
        return "" if exists else f"{script}: no such script"
    message = refusal(parser(script), [word for word in arguments if word != "..."])
    return "" if "..." in arguments and "required" in message else message


@every_page
def test_commands_are_known_to_their_scripts(page):
    found = {line: problem(line) for line in command_lines(page.read_text())}
    assert not {line: message for line, message in found.items() if message}
