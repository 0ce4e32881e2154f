"""Scripts of the methods."""

CLASSES = {
    "corrmatch": "CorrMatch",
    "fixmatch": "FixMatch",
    "prevmatch": "PrevMatch",
    "rankmatch": "RankMatch",
    "supervised": "SupOnly",
    "unimatch": "UniMatch",
    "unimatch_v2": "UniMatchV2",
}
"""The class in each method's script, named without .py."""
