"""What is said of a failure, held to one line."""

import pytest


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)
