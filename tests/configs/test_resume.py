"""What a resumed run may change."""

import re
from typing import Any

import pytest

from configs.errors import UserError
from configs.resume import compare, rule_of
from configs.schema import Config

VALUES: dict[str, Any] = {
    "data": {"root": "d"},
    "features": {"user": {"table": "user"}, "age": {}},
    "tables": {"user": {"num_embeddings": 8, "embedding_dim": 4}},
    "tasks": {"click": {}, "like": {"options": {"gamma": 1}, "reweight": {"by_label": {"label": "seconds"}}}},
    "training": {"run_dir": "runs/x"},
}


def changed(path: str, value: Any) -> Config:
    """The config of VALUES with one key, which may be new, at another value."""
    values: dict[str, Any] = Config.model_validate(VALUES).model_dump()
    *parents, key = path.split(".")
    section = values
    for parent in parents:
        section = section[parent]
    section[key] = value
    return Config.model_validate(values)


OLD = Config.model_validate(VALUES)


def test_no_change_is_no_difference() -> None:
    assert compare(OLD, OLD).changes == ()
    compare(OLD, OLD).refuse_impossible()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("launch.workers", 3),
        ("launch.min_workers", 1),
        ("training.epochs", 9),
        ("training.max_steps", 9),
        ("training.dense_optimizer.learning_rate", 0.5),
        ("training.sparse_optimizer.eps", 0.5),
        ("training.run_dir", "runs/y"),
        ("training.log_every", 9),
        ("training.precision", "bf16"),
        ("checkpoint.keep", 9),
        ("data.root", "moved"),
        ("data.threads", 9),
        ("data.prefetch_mib", 9),
        ("tasks.click.weight", 9.0),
        ("tasks.like.options", {"gamma": 2}),
        ("tasks.like.reweight.by_label.label", "minutes"),
        ("model.dropout", 0.5),
        ("features.user.out_of_range", "drop"),
        ("tables.user.init_scale", 0.5),
    ],
)
def test_what_may_change_at_any_time(key: str, value: Any) -> None:
    diff = compare(OLD, changed(key, value))
    diff.refuse_impossible()
    (line,) = diff.lines()
    assert line.startswith(key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tables.user.num_embeddings", 9),
        ("tables.user.embedding_dim", 8),
        ("tables.user.sharding", "row_wise"),
        ("features.user.transform", "identity"),
        ("features.user.column", "uid"),
        ("features.age.mean", 1.0),
        ("model.top", "ple"),
        ("model.expert_layers", (8,)),
        ("tasks.click.label", "clicked"),
        ("tasks.click.loss", "focal"),
        ("training.seed", 9),
        ("training.dense_optimizer.kind", "sgd"),
        ("training.task_balance", "uncertainty"),
        ("data.lanes", 16),
        ("data.shuffle_window", 9),
        ("data.order", "sequential"),
        ("data.train", "other"),
        ("model.options", {"a": 1}),
    ],
)
def test_what_never_changes(key: str, value: Any) -> None:
    diff = compare(OLD, changed(key, value))
    for mid_epoch in (True, False):
        with pytest.raises(UserError, match=re.escape(key)):
            diff.refuse_impossible(mid_epoch)


def test_the_batch_size_changes_between_epochs_only() -> None:
    diff = compare(OLD, changed("data.global_batch_size", 8192))
    diff.refuse_impossible(mid_epoch=False)
    with pytest.raises(UserError, match=r"data.global_batch_size: 4096 -> 8192 \(only at the end of an epoch\)"):
        diff.refuse_impossible()


@pytest.mark.parametrize("section", ["features", "tasks"])
def test_names_and_their_order_are_fixed(section: str) -> None:
    first, second = VALUES[section]
    fewer = {**VALUES, section: {first: VALUES[section][first]}}
    reversed_ = {**VALUES, section: dict(reversed(VALUES[section].items()))}
    for values, shown in ((fewer, f"[{first}]"), (reversed_, f"[{second}, {first}]")):
        (change,) = compare(OLD, Config.model_validate(values)).changes
        assert str(change) == f"{section}: [{first}, {second}] -> {shown}"
        assert change.rule == "fixed"


def test_the_message_lists_old_and_new_and_a_way_out() -> None:
    new = Config.model_validate(
        {
            **VALUES,
            "data": {"root": "d", "lanes": 4, "verify_checksums": False},
            "training": {"run_dir": "runs/x", "seed": 1, "max_steps": 7},
        }
    )
    with pytest.raises(UserError) as error:
        compare(OLD, new).refuse_impossible()
    assert str(error.value).splitlines() == [
        "--resume cannot change these keys of the run:",
        "  data.lanes: 8 -> 4",
        "  training.seed: 0 -> 1",
        "these can change:",
        "  data.verify_checksums: true -> false",
        "  training.max_steps: null -> 7",
        "Put the old values back, or start a new run with another training.run_dir.",
    ]


def test_exactly_these_keys_of_the_run_are_fixed() -> None:
    """A new key of the schema may change unless it is added to the rules and here."""
    keys = [f"{section}.{key}" for section in ("data", "training", "checkpoint", "launch") for key in dumped(section)]
    assert [key for key in keys if rule_of(key) != "may change"] == [
        "data.train",
        "data.global_batch_size",
        "data.lanes",
        "data.order",
        "data.follow",
        "data.shuffle_window",
        "training.seed",
        "training.task_balance",
    ]
    free = [f"model.{key}" for key in dumped("model") if rule_of(f"model.{key}") == "may change"]
    assert free == ["model.dropout", "model.gate_dropout", "model.gate_noise", "model.load_balance"]


def dumped(section: str) -> dict[str, Any]:
    return OLD.model_dump()[section]
