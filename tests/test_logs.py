"""Names of loggers."""

import pytest

from pipeline.logs import get_logger


@pytest.mark.parametrize(
    ("module", "logger"),
    [
        ("pipeline.stages.train", "lightpool.stages.train"),
        ("pipeline", "lightpool"),
        ("pipelines.other", "pipelines.other"),
        ("__main__", "__main__"),
    ],
)
def test_modules_log_under_the_name_of_the_distribution(module, logger):
    assert get_logger(module).name == logger
