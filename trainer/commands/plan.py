"""`plan`: shows how the tables of a config would be sharded, on a cluster that need not be here."""

from trainer.commands.options import AsJson, ConfigFile, Overrides, read_config
from trainer.commands.screen import report


def plan(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show how the tables would be sharded over launch.workers; needs no GPU and no cluster."""
    settings = read_config(config, overrides)
    from embeddings.planning.plan_report import plan_report

    shown = plan_report(settings)
    report(shown.text, shown.to_json(), as_json)
