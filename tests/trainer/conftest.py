"""What many tests of training share."""

from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The quickstart's data, few rows of it. A test that changes them copies them first."""
    from configs.load import load_config
    from tests.trainer.workers import FEW_ROWS  # here, as most tests need no workers
    from trainer.data.generators._generate import generate

    config = load_config(QUICKSTART, [f"data.root={tmp_path_factory.mktemp('data') / 'feed'}", *FEW_ROWS]).data
    assert config.generate is not None
    generate(config.generate, config.root)
    return config.root
