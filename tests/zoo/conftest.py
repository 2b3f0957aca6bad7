"""What the tests of the networks share."""

import pytest
import torch


@pytest.fixture
def fresh_compiler():
    """Forget what torch.compile saw before: tiles of a second size make it take all sizes for unknowns."""
    torch.compiler.reset()
