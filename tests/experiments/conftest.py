"""What tests of real programs share."""

import pytest

from experiments.toolchain import NoGo, Toolchain, toolchain


@pytest.fixture(scope="session")
def go() -> Toolchain:
    """A toolchain; where none is found tests that need one are skipped."""
    try:
        return toolchain()
    except NoGo as error:
        pytest.skip(str(error))
