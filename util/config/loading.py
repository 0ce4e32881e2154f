"""Config files: YAML -> one validated `Config`, and back.

`base: other.yaml` (relative to the file that says it) is loaded first and overridden section by
section; `--set key.subkey=value` overrides both.
"""

import difflib
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from util.config.label_map import QUOTES
from util.config.schema import Config
from util.config.types import UNION_TAGS, Section
from util.errors import UserError
from util.paths import expand_home, find_path, nearest_hint

KEY_NAME = re.compile(r"[\w.,-]{1,40}", re.ASCII)
"""Keys that messages may quote; other text may be a line of a file that is not a config."""
MERGE = "tag:yaml.org,2002:merge"
"""Tag of `<<`. PyYAML's merging would hide equal keys and depends on the order of sections."""
A_LIST = "a list", "write it as [a, b]"
A_SECTION = "keys and values", "write them as {key: value}"
EXPECTED = {
    "string_type": ("text", QUOTES),
    "list_type": A_LIST,
    "tuple_type": A_LIST,
    "dict_type": A_SECTION,
    "model_type": A_SECTION,
    "path_type": ("a path", "put it in quotes; '.' is the working directory, '~' the home"),
}
"""Expected kind of value, and the fix, by pydantic's type of error."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses equal keys; keys such as 7 and [128, 0, 0] become text, "7" and
    "128,0,0", as those of `--set` are."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        node.value = [(_as_text(key_node), value) for key_node, value in node.value]
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                problem = "merge keys (<<) are not supported; write the keys out"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            key = _key_of_number(self.construct_object(key_node, deep=True))
            if key in seen:
                name = f"key '{key}'" if KEY_NAME.fullmatch(str(key)) else "a key"
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name} occurs twice", key_node.start_mark
                )
            seen.add(key)
        tree = super().construct_mapping(node, deep)
        return {_key_of_number(key): value for key, value in tree.items()}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Name the place of a value that is not of its type, such as !!int of a word."""
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: not a value of its type"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _key_of_number(key: Any) -> Any:
    return str(key) if type(key) is int else key


def _as_text(node: yaml.Node) -> yaml.Node:
    if not isinstance(node, yaml.SequenceNode):
        return node
    text = ",".join(str(part.value) for part in node.value)
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, node.start_mark, node.end_mark)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return keys and values of a file; raises `UserError` that names the place of the mistake.

    Messages do not quote the file: `base` in a stranger's config may name any file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{nearest_hint(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; expected a config file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    try:
        tree = yaml.load(text, _UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except Exception as error:  # PyYAML may raise any exception
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML ({_problem(error)})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, found {type(tree).__name__}")
    if not all(KEY_NAME.fullmatch(str(key)) for key in tree):
        raise UserError(
            f"{path}: not a config; expected names of settings as keys, found other text"
        )
    return tree


def _problem(error: Exception) -> str:
    """Return the problem of a text; of PyYAML's quotes, only tokens and single characters (the
    message about an equal key is our own)."""

    def shortened(quoted: re.Match[str]) -> str:
        return quoted[0] if re.fullmatch(r"<[a-z ]+>|\\?.", quoted[0][1:-1]) else ""

    text = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    return " ".join(re.sub(r"""(?<!^key )('[^']*'|"[^"]*")""", shortened, text).split())


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two trees; an empty section, `{}`, empties the section of the base."""
    filled = {k for k in over if isinstance(over[k], dict) and over[k]}
    both_sections = {k for k in filled if isinstance(base.get(k), dict)}
    try:
        return base | {k: _merge(base[k], v) if k in both_sections else v for k, v in over.items()}
    except RecursionError:
        keys = ", ".join(map(str, both_sections))
        raise UserError(
            f"config: '{keys}' contains itself, by an alias. Fix: write it out"
        ) from None


def _contradiction(one: dict[str, Any], other: dict[str, Any], section: str = "") -> str:
    """Return the first dotted key with different values in two trees; "" without one."""
    for key in (key for key in one if key in other):
        a, b = one[key], other[key]
        if isinstance(a, dict) and isinstance(b, dict):
            if found := _contradiction(a, b, f"{section}{key}."):
                return found
        elif a != b:
            return f"{section}{key}"
    return ""


def _load_tree(path: Path, children: tuple[str, ...] = ()) -> dict[str, Any]:
    tree = read_yaml(path)
    base = tree.pop("base", None)
    here = os.path.realpath(path)
    if here in children:
        raise UserError(f"{path}: base: leads back to this file; expected no cycle")
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected the path of a YAML file, found {_brief(base)}")
    try:
        below = _load_tree(path.parent / expand_home(Path(base)), (*children, here))
    except UserError as error:
        raise UserError(f"{path}: base: {error}") from None
    return _merge(below, tree)


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """Return key and value of `--set key=value`; raises `UserError` for other text."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {assignment}: expected key=value")
    try:
        return key.strip(), yaml.load(text, _UniqueKeyLoader)  # noqa: S506
    except Exception:  # PyYAML may raise any exception
        raise UserError(f"--set {assignment}: '{text}' is not a YAML value") from None


def _override(assignment: str) -> dict[str, Any]:
    """'a.b=1' -> {'a': {'b': 1}}."""
    key, value = parse_assignment(assignment)
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _suggestion(model: type[BaseModel], location: tuple[int | str, ...], prefix: str) -> str:
    """Return the end of a message about an unknown key: the nearest key of its own section and keys
    of its name in others, else all of its own section."""
    name, known = str(location[-1]), _known_keys(model, location)
    elsewhere = [key for key in _dotted_keys(model, prefix) if key.rpartition(".")[2] == name]
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.7) + elsewhere:
        names = "' or '".join(near)
        return f"did you mean '{names}'?"
    return f"known: {', '.join(known) or 'none'}"


def _dotted_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the dotted keys of a section; keys inside a union (such as `data.val`) are left out."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        section: Any = field.annotation
        if is_section(section):
            yield from _dotted_keys(section, f"{prefix}{name}.")


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section of an unknown key: the last part of `location`."""
    sections = [model]
    for part in location[:-1]:
        if isinstance(part, str):  # an integer is a position in a list
            fields = [s.model_fields[part] for s in sections if part in s.model_fields]
            sections = [s for field in fields for s in sections_of(field.annotation)]
    forms = [list(s.model_fields) for s in sections if location[-1] not in s.model_fields]
    return list(dict.fromkeys(key for keys in forms for key in keys))


def is_section(annotation: Any) -> bool:
    """Return True if a key holds a section, and no other form of value."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a key may hold."""
    if parts := get_args(annotation):
        return [section for part in parts for section in sections_of(part)]
    return [annotation] if is_section(annotation) else []


def parse(model: type[Section], tree: dict[str, Any], source: str, prefix: str = "") -> Any:
    """Validate `tree` as a `model`; raises `UserError` that names source and key of a mistake."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        # An unknown key first: it may be a required one, misspelt.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = tuple(part for part in first["loc"] if part not in UNION_TAGS)
    key = prefix + ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        raise UserError(f"{source}: unknown key '{key}'; {_suggestion(model, location, prefix)}")
    if first["type"] == "missing":
        raise UserError(f"{source}: key '{key}' is missing")
    found = f", found {_brief(first['input'])}" if not isinstance(first["input"], dict) else ""
    raised = first.get("ctx", {}).get("error")  # from a validator of the config
    message = str(raised) if isinstance(raised, ValueError) else first["msg"]
    is_scalar = not isinstance(first["input"], dict | list)
    if first["type"] in EXPECTED and (is_scalar or first["type"] != "string_type"):
        wanted, fix = EXPECTED[first["type"]]
        message = f"expected {wanted}{found}. Fix: {fix}"
        found = ""
    raise UserError(f"{source}: {key or 'config'}: {message}{found}")


def _brief(value: Any) -> str:
    """Shorten a value for a message: aliases can expand a short file until memory is full."""
    try:
        return _BRIEF.repr(value)
    except ValueError:
        return "an integer of thousands of digits"


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 2, 200, 200


def load_config(
    path: str | Path, overrides: Sequence[str] = (), tree_on_top: dict[str, Any] | None = None
) -> Config:
    """Load the config of a YAML file, its bases, `key=value` overrides and a last tree.

    Raises `UserError` for a missing file, bad YAML, an unknown key or a value out of range.
    """
    path = find_path(Path(path))
    return resolve(_load_tree(path), str(path), overrides, tree_on_top)


def resolve(
    tree: dict[str, Any],
    source: str,
    overrides: Sequence[str] = (),
    tree_on_top: dict[str, Any] | None = None,
) -> Config:
    """Build a config from a tree as `load_config` does; `source`: its name in messages."""
    on_top = tree_on_top or {}
    for assignment in overrides:
        given = _override(assignment)
        if key := _contradiction(given, on_top):
            raise UserError(
                f"--set {assignment}: {key} has another value by its own option or key, or by this "
                "command. Fix: leave it out of --set"
            )
        tree = _merge(tree, given)
    tree = _merge(tree, on_top)
    source = f"{source} with --set {' '.join(overrides)}" if overrides else source
    config: Config = parse(Config, tree, source)
    return config


def dump_config(config: Config) -> str:
    """Return the config as YAML; loading it gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def portable(config: Config) -> Config:
    """Return the config with absolute paths reduced to their names."""
    tree = _names_of_paths(config.model_dump())
    if os.path.isabs(config.model.pretrained):
        tree["model"]["pretrained"] = Path(config.model.pretrained).name
    return Config.model_validate(tree)


def _names_of_paths(tree: Any) -> Any:
    """Reduce the absolute paths in a tree; text that begins with / may be a pattern or a name."""
    if isinstance(tree, dict):
        return {key: _names_of_paths(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_names_of_paths(value) for value in tree]
    return Path(tree.name) if isinstance(tree, Path) and tree.is_absolute() else tree
