"""Build backend that refuses `pip install .` with the reason; CONTRIBUTING.md says more."""

import sys
from typing import NoReturn

MESSAGE = (
    "This repository cannot be installed as a package: its packages (util, model, dataset, ...) "
    "would take these names in your environment. Fix: pip install -r requirements.txt, run the "
    "commands in this folder, and for `from inference import Segmenter` elsewhere add the folder "
    "to PYTHONPATH"
)


def refuse(*_: object) -> NoReturn:
    sys.exit(MESSAGE)


get_requires_for_build_wheel = get_requires_for_build_editable = refuse
get_requires_for_build_sdist = build_wheel = build_editable = build_sdist = refuse
