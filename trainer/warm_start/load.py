"""Takes over what a run begins with: reads it from another run's checkpoint into the model, on all ranks.

Every rank reads the rows of its own shards and the whole top, whatever ranks wrote them. Nothing is marked in a row
log: this comes before the first checkpoint of a run, which holds every row.
"""

from collections.abc import Collection
from fnmatch import fnmatchcase

import torch

from configs.choices import did_you_mean
from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config, WarmStart
from models.places import blocks_of
from trainer.checkpoint.chain import State as SavedState
from trainer.checkpoint.finding import Finder
from trainer.ranks.agreement import Agreement
from trainer.run import saved_names
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory
from trainer.warm_start.report import Outcome, report
from trainer.warm_start.rows import shared_tables
from trainer.warm_start.saved import Saved
from trainer.warm_start.source import state_of
from trainer.warm_start.take import State, Taking
from trainer.warm_start.top import Match, match_top


@torch.no_grad()
def warm_start(config: Config, state: State) -> str:
    """Fills what fits of `state`, which is that of a new run, and returns what to tell the user. All ranks together.

    state: the live tensors of model and optimizers, by their saved names.

    Raises:
        UserError: sizes do not fit, a pattern names nothing, or the checkpoint is damaged; the same on all ranks.
    """
    warm, ranks = config.training.warm_start, Agreement()
    assert warm is not None, "asked for"
    there = load_config(RunDirectory(warm.run).config)
    saved = state_of(warm)
    _refuse_damage(warm, saved, ranks)
    here, known = blocks_of(config), blocks_of(there)
    tops = [f"top.{part.weight}" for part in (*here.values(), *known.values())]
    _refuse_idle_patterns(warm, [*(f"tables.{name}" for name in (*config.tables, *there.tables)), *tops, "objective"])
    matches = match_top(here, known, lambda name: warm.takes(f"top.{name}"))
    _refuse_mismatches(warm, matches)
    tables = [name for name in shared_tables(config, there) if warm.takes(f"tables.{name}")]
    with Saved(saved) as stored:
        taking = Taking(stored, state)
        for name in tables:
            taking.table(name, config.tables[name].num_embeddings, there.tables[name].num_embeddings)
        for name, match in matches.items():
            taking.weight(name, match.copies, is_whole=match.is_whole)
        if warm.takes("objective") and _same_balance(config, there):
            taking.objective()
        taking.count_of_steps()
        stored.put_links_over()
        _refuse_unsound(stored.refused(), saved, ranks)
    stateless = sorted(set().union(*ranks.gather(taking.without_state)))
    return report(Outcome(config, there, saved.step, tables, matches, stateless, taking.steps))


def _same_balance(config: Config, there: Config) -> bool:
    """What a balance has learned is about these tasks together."""
    same = list(config.tasks) == list(there.tasks)
    return same and config.training.task_balance == there.training.task_balance


def _refuse_damage(warm: WarmStart, saved: SavedState, ranks: Agreement) -> None:
    """Each rank reads a share of the files."""
    problem = Finder(Folder(RunDirectory(warm.run).checkpoints), ranks).first_problem(saved)
    if problem:
        raise UserError(
            f"training.warm_start: {problem[1]}\n"
            "Restore the file, or set training.warm_start.checkpoint to another step."
        )


def _refuse_idle_patterns(warm: WarmStart, names: list[str]) -> None:
    """names: of all that there is in this run or the other."""
    for key, patterns in (("include", warm.include), ("exclude", warm.exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                advice = did_you_mean(pattern, list(dict.fromkeys(names)))
                raise UserError(
                    f"training.warm_start.{key}: no table or weight of the two runs is named {pattern!r}\n"
                    f"Names are tables.NAME and top.LAYER.weight, with * for any text; {advice}."
                )


def _refuse_mismatches(warm: WarmStart, matches: dict[str, Match]) -> None:
    lines = {f"top.{name}": match.mismatches for name, match in matches.items() if match.mismatches}
    if lines:
        shown = [f"  {name}: {found[0]}" for name, found in lines.items()][:10]
        more = [f"  and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
        raise UserError(
            "\n".join(
                [
                    f"training.warm_start: sizes of the top differ from those of {warm.run}:",
                    *(shown + more),
                    f"Give the layers their old widths, or let them begin fresh: training.warm_start.exclude="
                    f"[{','.join(lines)}]",
                ]
            )
        )


def _refuse_unsound(mine: Collection[str], saved: SavedState, ranks: Agreement) -> None:
    """NaN has a meaning in what a balance has not seen yet, and nowhere else."""
    names = sorted(set().union(*ranks.gather(set(mine))))
    wrong = [name for name in names if not name.startswith(saved_names.model(saved_names.OBJECTIVE))]
    if wrong:
        raise UserError(
            f"training.warm_start: {saved} has NaN or far too large numbers in {wrong[0]}\n"
            "Set training.warm_start.checkpoint to an older step: that run had diverged."
        )
