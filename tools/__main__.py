"""List the commands: python -m tools."""

import ast
from pathlib import Path

from util.parser import Parser

FOLDER = Path(__file__).parent
START = 'if __name__ == "__main__":'


def main() -> None:
    parser = Parser(
        "List the commands, each with one line.",
        "python -m tools",
        "python -m tools.check_data --help",
    )
    parser.parse_args()
    print("python -m tools.NAME --help explains a command and shows examples. NAME:\n")
    for name, file in commands().items():
        print(f"  {name:<16} {summary(file)}")


def commands() -> dict[str, Path]:
    """The file of each command, by its name."""
    files = [*FOLDER.glob("*.py"), *FOLDER.glob("*/__main__.py")]
    found = {file.parent.name if file.stem == "__main__" else file.stem: file for file in files}
    found.pop(FOLDER.name, None)
    return {name: file for name, file in sorted(found.items()) if START in file.read_text()}


def summary(file: Path) -> str:
    """The first line of a command's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
