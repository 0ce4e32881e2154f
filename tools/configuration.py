"""Write docs/configuration.md: all keys of a config."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from engine.scripts import CLASSES
from tools.methods import method_of
from util.cli import exit_with_one_line, importing
from util.config.loading import is_section, sections_of
from util.config.schema import Config
from util.config.types import Section
from util.io import write_text
from util.parser import Parser
from util.paths import REPOSITORY

PAGE = REPOSITORY / "docs/configuration.md"
HEAD = """# Configuration

A config is a YAML file with the keys below; `--set` changes any key for one command:

```sh
python unimatch.py --config configs/pascal.yaml --save-path runs/mine \\
    --set optimizer.lr=0.002 epochs=40
```

- An unknown key or a value out of range is refused in one line before anything starts;
  a key that the chosen network, loss or optimizer does not use gives a warning.
- `base: other.yaml`, a path relative to the config, starts from another config and overrides it key
  by key. `{}` empties a section of it (`--set 'method={}'`).
- All other relative paths are looked up in the working directory, then in the repository; `~` is
  the home folder; environment variables are not expanded.
- An empty default means: not set, or chosen automatically. "Published": in the papers or their
  code.

This page is generated from [util/config/schema.py](../util/config/schema.py),
[util/config/data.py](../util/config/data.py) and the methods' scripts by
`python -m tools.configuration`.
"""
TOP = "| key | default | meaning |\n|---|---|---|\n"


def page() -> str:
    """Return the page as Markdown."""
    from engine.method import TeacherMethod

    parts = [HEAD, *_tables("The run", Config)]
    for name, field in Config.model_fields.items():
        if is_section(field.annotation):
            section: Any = field.annotation
            parts += _tables(_title(section), section, f"{name}.")
    shared = _rows(TeacherMethod.Options, "method.")
    parts.append(_table("Methods: all but SupOnly", shared))
    for script in CLASSES:
        method = method_of(script)
        if own := [row for row in _rows(method.Options, "method.") if row not in shared]:
            parts.append(_table(f"Method: {method.__name__}", own))
    return "\n".join(parts)


def _title(section: Any) -> str:
    return str(section.__doc__).partition("\n")[0].rstrip(".")


def _tables(title: str, section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield tables of a section's keys and of the sections that its values may be."""
    yield _table(title, _rows(section, prefix))
    places: dict[Any, list[str]] = {}
    for name, field in section.model_fields.items():
        forms = [] if is_section(field.annotation) else sections_of(field.annotation)
        for form in dict.fromkeys(forms):
            places.setdefault(form, []).append(f"`{prefix}{name}`")
    for form, keys in places.items():
        yield f"### {_title(form)}\n\nA value of {_either(keys)}:\n\n{TOP}{''.join(_rows(form))}"


def _table(title: str, rows: Iterable[str]) -> str:
    return f"## {title}\n\n{TOP}{''.join(rows)}"


def _rows(section: type[Section], prefix: str = "") -> list[str]:
    """Return a row per key, and of nested sections of a method's options."""
    rows: list[str] = []
    for name, field in section.model_fields.items():
        if not is_section(field.annotation):
            meaning = " ".join((field.description or "").split()).replace("<", "&lt;")
            choices = _choices(field.annotation)
            if any(choice not in meaning for choice in choices):
                meaning = f"{_either(choices)}. {meaning}"
            rows.append(f"| `{prefix}{name}` | {_default(field)} | {meaning} |\n")
        elif section is not Config:
            part: Any = field.annotation
            rows += _rows(part, f"{prefix}{name}.")
    return rows


def _choices(annotation: Any) -> list[str]:
    """Return the values of a `Literal` with several values, also as a part of a union."""
    if get_origin(annotation) in (Union, UnionType):
        return next(filter(None, map(_choices, get_args(annotation))), [])
    if get_origin(annotation) is not Literal:
        return []
    values = [f"`{value}`" for value in get_args(annotation)]
    return values if values[1:] else []


def _either(words: list[str]) -> str:
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def main() -> None:
    parser = Parser(
        __doc__,
        "python -m tools.configuration",
        "python -m tools.configuration --out /tmp/configuration.md",
    )
    parser.add_argument("--out", type=Path, default=PAGE, help="file to write")
    args = parser.parse_args()
    with exit_with_one_line():
        with importing():
            text = page()  # which imports the methods
        write_text(args.out, text)
        print(f"written  {args.out}")


if __name__ == "__main__":
    main()
