"""Classes of the methods, which tests import by way of `tests.conftest`."""

import pytest

from tools.methods import method_of, method_scripts

METHODS = {name: method_of(name) for name in method_scripts()}
"""Classes of the methods, by the name of their script."""
every_method = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
