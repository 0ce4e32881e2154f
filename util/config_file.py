"""Config files: YAML -> one validated `Config`, and back.

`base: other.yaml` (relative to the file that says it) is loaded first and overridden section by
section; `--set key.subkey=value` overrides both.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from util.config import Config, Section
from util.errors import UserError


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{path}{where}: not valid YAML ({problem})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected keys and values, found {type(tree).__name__}")
    return tree


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both_sections = {k for k in over if isinstance(over[k], dict) and isinstance(base.get(k), dict)}
    return base | {k: _merge(base[k], v) if k in both_sections else v for k, v in over.items()}


def _load_tree(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in children:
        raise UserError(f"{path}: 'base' leads back to this file")
    tree = _read_yaml(path)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: 'base' must be the path of a YAML file, found {base!r}")
    if not (path.parent / base).is_file():
        raise UserError(f"{path}: base: {path.parent / base}: no such config file")
    return _merge(_load_tree(path.parent / base, (*children, path.resolve())), tree)


def _override(assignment: str) -> dict[str, Any]:
    """'a.b=1' -> {'a': {'b': 1}}."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {assignment}: expected key=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"--set {assignment}: '{text}' is not a YAML value") from None
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return value


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys of the section in which the last part of `location` stands."""
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def parse(model: type[Section], tree: dict[str, Any], source: str, prefix: str = "") -> Any:
    """`tree` as a `model`; the first mistake becomes a `UserError` that names source and key."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
    location = first["loc"]
    key = prefix + ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
        raise UserError(f"{source}: unknown key '{key}'; {hint}")
    if first["type"] == "missing":
        raise UserError(f"{source}: key '{key}' is missing")
    found = f", found {first['input']!r}" if not isinstance(first["input"], dict) else ""
    raise UserError(f"{source}: {key or 'config'}: {first['msg']}{found}")


def load_config(
    path: str | Path, overrides: Sequence[str] = (), tree_on_top: dict[str, Any] | None = None
) -> Config:
    """The validated config of a YAML file, its bases, `key=value` overrides and a last tree.

    Raises `UserError` for a missing file, bad YAML, an unknown key or a value out of range.
    """
    tree = _load_tree(Path(path))
    for assignment in overrides:
        tree = _merge(tree, _override(assignment))
    tree = _merge(tree, tree_on_top or {})
    source = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    config: Config = parse(Config, tree, source)
    return config


# What may change while a run is interrupted.
_MOVABLE = {"data.root", "data.test", "data.workers", "data.check_samples"}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """'key (old -> new)' for each key that would make a resumed run another run."""
    found = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b and prefix + key not in _MOVABLE:
            found.append(f"{prefix}{key} ({a} -> {b})")
    return found


def dump_config(config: Config) -> str:
    """The resolved config as YAML; loading it again gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
