"""Tables as aligned text and as Markdown."""

from collections.abc import Sequence
from itertools import zip_longest

Rows = Sequence[Sequence[object]]
"""Cells, the head first if there is one."""


def text_table(rows: Rows, align: str = "<", indent: str = "") -> str:
    """Align the columns of a table for the terminal; short rows end early.

    `align`: `<` (left) or `>` (right) for each column; the last one holds for all that follow.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    sides = align + align[-1] * (len(widths) - len(align))
    lines = (
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False)
        )
        for row in cells
    )
    return "\n".join(indent + line.rstrip() for line in lines)


def markdown_table(rows: Rows, align: str = "<") -> str:
    """Return a table in Markdown; `align` as in `text_table`."""
    head, *rest = map(markdown_row, rows)
    sides = align + align[-1] * (len(rows[0]) - len(align))
    rule = "|".join("--:" if side == ">" else "---" for side in sides[: len(rows[0])])
    return "\n".join([head, f"|{rule}|", *rest])


def markdown_row(cells: Sequence[object]) -> str:
    """Return one row, for tables that are printed as they grow."""
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
