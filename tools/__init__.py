"""Commands of the project: `python -m tools` lists them."""

import sys

from util.interrupt import quit_on_interrupt

if sys.argv[0] == "-m":  # this process was started as `python -m tools.NAME`
    quit_on_interrupt()  # also during the imports that follow
