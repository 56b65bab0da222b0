"""`generate`: writes the synthetic data that a config describes."""

from trainer.commands.options import ConfigFile, Overrides, read_config
from trainer.commands.screen import say


def generate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Write the synthetic data of data.generate to data.root."""
    settings = read_config(config, overrides)
    from trainer.prepare import generate_data
    from trainer.run.paths import with_absolute_paths

    generate_data(with_absolute_paths(settings), say)
