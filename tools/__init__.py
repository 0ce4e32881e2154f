"""Commands of the project: `python -m tools` lists them."""

import sys

from util.interrupt import exit_on_ctrl_c

if sys.argv[0] == "-m":  # this process was started as `python -m tools.NAME`
    exit_on_ctrl_c()  # also during the imports that follow
