"""gpu.json as the Markdown of docs/performance.md: goals, then what every part found."""

from typing import Any

from tools.benchmark.options import METHODS

GOALS = (
    ("UniMatch, ResNet-101, crop 321, 8 + 8: a tuned step, ms", "at most 60", "tuned, ms"),
    ("... how many times as fast as a plain one", "at least 4", "times as fast"),
    ("... its memory, of a plain one's", "at most 0.6", "of plain's memory"),
    ("CorrMatch: region propagation, share of a step", "at most 0.05", "propagation"),
    ("RankMatch: ranking losses, share of a step", "at most 0.15", "ranking"),
)
TABLES = {
    "Steps at the published settings for Pascal": METHODS,
    "Parts of a tuned step": ["shares"],
    "Compiled": ["compile"],
    "Evaluation of 1024x2048 in windows of 801, ResNet-101": ["windows"],
    "Start-up": ["start"],
    "UniMatch trained for 100 steps": ["training"],
    "Tests": ["tests"],
}
NONE = "not measured"


def markdown(record: dict[str, Any]) -> str:
    """Every table, with "not measured" where there is no figure, and what failed."""
    where, parts = record["where"], record["parts"]
    found = {name: part.get("found", {}) for name, part in parts.items()}
    seen = {name: row["share"] for name, row in found.get("shares", {}).items()}
    seen |= found.get("unimatch", {}).get("unimatch", {})
    goals = {text: {"goal": goal, "found": seen.get(key)} for text, goal, key in GOALS}
    blocks = [_where(where) if where else f"Card: {NONE}.", _table("Goals", goals)]
    for title, names in TABLES.items():
        rows = {k: row for name in names for k, row in found.get(name, {}).items()}
        blocks.append(_table(title, rows) if rows else f"{title}: {NONE}.")
    blocks += [f"{name}: {part['failure']}." for name, part in parts.items() if "failure" in part]
    return "\n\n".join(blocks)


def _where(where: dict[str, Any]) -> str:
    text = ", ".join(f"{key} {where[key]}" for key in ("device", "python", "torch", "commit"))
    return text + (" (in miniature: these figures say nothing)." if where["miniature"] else ".")


def _table(title: str, rows: dict[str, dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [[name, *(_cell(row.get(column)) for column in columns)] for name, row in rows.items()]
    lines = [[title, *columns], ["---", *["--:"] * len(columns)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return format(value, ".3g") if isinstance(value, float) else str(value)
