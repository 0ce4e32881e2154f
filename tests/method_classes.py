"""Classes of the methods, which tests import by way of `tests.conftest`."""

import pytest

from engine.scripts import CLASSES
from tools.methods import method_of

METHODS = {name: method_of(name) for name in CLASSES}
"""Classes of the methods, by the name of their script."""
every_method = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
