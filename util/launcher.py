"""Ranks from the launcher's environment variables, before the processes join."""

import os


def launched_world_size() -> int:
    """World size; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def launched_rank() -> int:
    """Rank; 0 without a launcher."""
    return int(os.environ.get("RANK", 0))


def processes_here() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))
