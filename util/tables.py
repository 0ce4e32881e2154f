"""Tables as aligned text."""

from collections.abc import Sequence
from itertools import zip_longest


def text_table(rows: Sequence[Sequence[object]], align: str = "<", indent: str = "") -> str:
    """Align the columns of a table for the terminal.

    Args:
        rows: cells, the head first if there is one; short rows end early.
        align: `<` (left) or `>` (right) for each column; the last one holds for all that follow.
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
