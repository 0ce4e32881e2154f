"""Short version of `python -m tests.soak kill`."""

import re

from tests.conftest import needs_forks
from tests.forked import Forked


@needs_forks
def test_killed_anywhere():
    """Run in a separate process, because its children are forked and must inherit no threads."""
    done = Forked(
        "-m", "tests.soak", "kill", "--kills", 3, "--seed", 1,
        "--methods", "corrmatch", "unimatch_v2",
    ).end()  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^(\w[\w ]*?)  +(\d+)  yes", done.stdout, re.MULTILINE)
    kills = {name: int(count) for name, count in lines}
    assert kills.keys() == {"corrmatch", "unimatch_v2", "at each file"}, done.stdout
    assert kills["corrmatch"] + kills["unimatch_v2"] >= 3 and kills["at each file"] >= 8
