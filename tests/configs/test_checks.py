"""Every check across sections, each by a config that breaks it alone."""

from typing import Any

import pytest
from omegaconf import OmegaConf
from torch import nn

from configs import feature_checks
from configs.checks import RUN_CHECKS, check
from configs.choices import available, read
from configs.feature_checks import FEATURE_CHECKS
from configs.schema import Config
from configs.task_checks import TASK_CHECKS
from models.build import build_balance, top_of
from models.fork import Fork

VALID = """
data: {root: data/x, global_batch_size: 64, lanes: 8}
features:
  user: {table: user}
  items: {table: item, weights: item_weights}
  age: {}
  hour: {table: hour, transform: bucketize, boundaries: [6, 12, 18]}
tables:
  user: {num_embeddings: 10, embedding_dim: 4}
  item: {num_embeddings: 10, embedding_dim: 4}
  hour: {num_embeddings: 4, embedding_dim: 4}
tasks:
  click: {}
  like: {label: liked}
training: {run_dir: runs/x}
launch: {workers: 4}
"""

CHECKS = (*FEATURE_CHECKS, *TASK_CHECKS, *RUN_CHECKS)

CASES = [  # check, overrides, where, words
    ("choices_exist", ["model.top=mmoo"], "model.top", "not in models/tops; did you mean mmoe?"),
    ("choices_exist", ["tasks.like.loss=mce"], "tasks.like.loss", "did you mean mse?"),
    ("choices_exist", ["training.task_balance=fix"], "training.task_balance", "did you mean fixed?"),
    ("choices_exist", ["features.user.transform=hsh"], "features.user.transform", "did you mean hash?"),
    ("followed_data_is_in_order", ["data.follow=true"], "data.order", "use by_partition"),
    (
        "followed_data_is_in_order",
        ["data.follow=true", "data.order=by_partition", "training.epochs=2"],
        "training.epochs",
        "once",
    ),
    (
        "followed_data_is_in_order",
        ["data.follow=true", "data.order=by_partition", "training.decay=linear"],
        "training.decay",
        "max_steps",
    ),
    ("choices_exist", ["tasks.like.reweight.by_lable={}"], "tasks.like.reweight.by_lable", "did you mean by_label?"),
    ("choices_exist", ["data.generate.kind=feeds"], "data.generate.kind", "did you mean feed?"),
    (
        "names_can_be_modules",
        ["tables={'items': {num_embeddings: 1, embedding_dim: 4}}", "features.x.table=items"],
        "tables.items",
        "use another name, such as items_table",
    ),
    (
        "names_can_be_modules",
        ["tables={'_t': {num_embeddings: 1, embedding_dim: 4}}", "features.x.table=_t"],
        "tables._t",
        "such as t_table",
    ),
    ("best_is_measured", ["checkpoint.keep_best=click"], "checkpoint.keep_best", "use METRIC/TASK with one of auc"),
    ("best_is_measured", ["checkpoint.keep_best=auc/clik"], "checkpoint.keep_best", "clik is no task; did you mean"),
    ("names_can_be_modules", ["tasks.keys.tower_features=[age]"], "tasks.keys", "keeps this name for itself"),
    ("funnels_have_a_first_event", ["tasks.like.parent=clik"], "tasks.like.parent", "is no task; did you mean click?"),
    (
        "funnels_have_a_first_event",
        ["tasks.like.parent=like"],
        "tasks.like.parent",
        "leads back to like (like -> like)",
    ),
    (
        "funnels_have_a_first_event",
        ["tasks.like.parent=click", "tasks.click.parent=like"],
        "tasks.click.parent",
        "leads back to click (click -> like -> click)",
    ),
    (
        "funnels_are_of_events",
        ["tasks.like.parent=click", "tasks.click.loss=mse"],
        "tasks.like.parent",
        "click with loss mse predicts no probability",
    ),
    (
        "funnels_are_of_events",
        ["tasks.like.parent=click", "tasks.like.loss=huber"],
        "tasks.like.parent",
        "like with loss",
    ),
    (
        "funnels_are_of_events",
        ["tasks.like={parent: click, relation: aitm, tower_layers: [8]}"],
        "tasks.like.relation",
        "that of like has 8 numbers and that of click 16",
    ),
    (
        "funnels_are_of_events",
        ["tasks.like={parent: click, relation: aitm}", "model.tower_layers=[]"],
        "tasks.like.relation",
        "make them equal",
    ),
    (
        "labels_mean_one_thing",
        ["tasks.watch={label: liked, loss: huber}"],
        "tasks.watch.label",
        "liked is the label of tasks.like (loss bce) too: watch takes it for an amount",
    ),
    (
        "balances_have_something_to_balance",
        ["model.top=single_task", "training.task_balance=pcgrad"],
        "training.task_balance",
        "single_task shares nothing; use fixed",
    ),
    ("names_are_plain", ["tasks={'a/b': {}}"], "tasks.a/b", "letters"),
    (
        "names_are_plain",
        ["tables={'1': {num_embeddings: 1, embedding_dim: 4}}", "features.x.table='1'"],
        "tables.1",
        "digit",
    ),
    ("tables_are_found", ["features.user.table=users"], "features.user.table", "did you mean user?"),
    ("tables_are_used", ["tables.old={num_embeddings: 9, embedding_dim: 4}"], "tables.old", "no feature uses"),
    ("labels_are_no_inputs", ["features.click={}"], "tasks.click.label", "label leak"),
    ("labels_are_no_inputs", ["features.taste={column: liked}"], "tasks.like.label", "remove features.taste"),
    ("labels_are_no_inputs", ["features.items.weights=click"], "tasks.click.label", "label leak"),
    ("labels_are_no_inputs", ["tasks.like.weight_column=liked"], "tasks.like.weight_column", "positive_weight"),
    ("weights_are_no_inputs", ["data.weight_column=age"], "data.weight_column", "features.age"),
    ("weights_are_no_inputs", ["tasks.like.weight_column=age"], "tasks.like.weight_column", "features.age"),
    ("transforms_are_whole", ["features.user.transform=vocabulary"], "features.user.vocabulary", "is missing"),
    ("transforms_are_whole", ["features.user.transform=bucketize"], "features.user.boundaries", "is missing"),
    ("transforms_are_whole", ["features.user.vocabulary=x.txt"], "features.user.vocabulary", "no effect"),
    ("transforms_are_whole", ["features.user.out_of_range=drop"], "features.user.out_of_range", "identity"),
    ("boundaries_fit", ["features.hour.boundaries=[6, 6]"], "features.hour.boundaries", "must increase"),
    ("boundaries_fit", ["tables.hour.num_embeddings=3"], "features.hour.boundaries", "4 buckets"),
    ("standardize_is_whole", ["features.age.transform=standardize"], "features.age.transform", "`mean` and `std`"),
    ("standardize_is_whole", ["features.age.mean=3"], "features.age.mean", "no effect"),
    ("standardize_is_whole", ["features.age.std=3"], "features.age.std", "no effect"),
    ("bags_are_sound", ["features.items.weights=items"], "features.items.weights", "IDs themselves"),
    ("bags_are_sound", ["tables.item.pooling=mean"], "features.items.weights", "pooling: sum"),
    ("features_differ", ["features.user2={table: user, column: user}"], "features.user2", "equals features.user"),
    ("tasks_can_learn", ["tasks.click.weight=0", "tasks.like.weight=0"], "tasks", "nothing would be learned"),
    ("tasks_can_learn", ["tasks.click.output=identity"], "tasks.click.output", "use auto"),
    ("side_towers_are_fed", ["tasks.click.tower_features=[hou]"], "tasks.click.tower_features", "did you mean hour?"),
    ("side_towers_are_fed", ["tasks.like.tower_features=[age, age]"], "tasks.like.tower_features", "twice"),
    ("lanes_carry_the_batch", ["data.global_batch_size=60"], "data.global_batch_size", "use 56 or 64"),
    ("lanes_carry_the_batch", ["data.global_batch_size=4"], "data.global_batch_size", "use 8"),
    ("lanes_carry_the_batch", ["data.generate.train_rows=32"], "data.global_batch_size", "train_rows = 32"),
    ("workers_fit", ["launch.workers=9"], "launch.workers", "raise data.lanes"),
    ("workers_fit", ["launch.min_workers=5"], "launch.min_workers", "more than launch.workers = 4"),
    ("workers_fit", ["launch.workers_per_host=3"], "launch.workers_per_host", "no multiple"),
    ("steps_are_reached", ["training={max_steps: 9, warmup_steps: 9}"], "training.warmup_steps", "would not end"),
    ("steps_are_reached", ["training={max_steps: 9, profile_at: 10}"], "training.profile_at", "after the last"),
    (
        "optimizer_is_there",
        ["training.sparse_optimizer.kind=adam", "launch.device=cpu"],
        "training.sparse_optimizer.kind",
        "on CPU",
    ),
    (
        "optimizer_is_there",
        ["training.sparse_optimizer.kind=adam", "tables.user.data_type=fp16"],
        "training.sparse_optimizer.kind",
        "no tables of data_type fp16; set their data_type to fp32",
    ),
    (
        "optimizer_is_there",
        ["training.sparse_optimizer={kind: sgd, weight_decay: 0.1}"],
        "training.sparse_optimizer.weight_decay",
        "no weight decay",
    ),
    (
        "optimizer_is_there",
        ["training.sparse_optimizer={kind: rowwise_adagrad, weight_decay: 0.1}", "launch.device=cpu"],
        "training.sparse_optimizer.weight_decay",
        "no weight decay on CPU",
    ),
    (
        "skipped_batches_train_nothing",
        ["training.non_finite=skip", "training.sparse_optimizer.kind=adam", "launch.device=cuda"],
        "training.sparse_optimizer.kind",
        "moves rows without a gradient",
    ),
    (
        "skipped_batches_train_nothing",
        ["training.non_finite=skip", "training.sparse_optimizer.weight_decay=0.1", "launch.device=cuda"],
        "training.sparse_optimizer.weight_decay",
        "use 0, or stop",
    ),
    (
        "replicated_tables_are_fp32",
        ["tables.user.sharding=data_parallel", "tables.user.data_type=fp16"],
        "tables.user.data_type",
        "use fp32",
    ),
    (
        "elastic_tables_reshard",
        ["tables.user.sharding=column_wise", "launch.min_workers=2"],
        "tables.user.sharding",
        "cannot move",
    ),
    ("folders_are_apart", ["training.run_dir=data/x"], "training.run_dir", "inside the data"),
    ("folders_are_apart", ["training.run_dir=data/x/train/run"], "training.run_dir", "inside the data"),
    ("folders_are_apart", ["data.root=runs/x/data"], "data.root", "--overwrite deletes"),
]


def config(overrides: list[str]) -> Config:
    merged = OmegaConf.merge(OmegaConf.create(VALID), OmegaConf.from_dotlist(overrides))
    values: Any = OmegaConf.to_container(merged)
    return Config.model_validate(values)


def test_a_sound_config_has_no_mistakes() -> None:
    assert check(config([])) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["launch.workers=8", "launch.min_workers=8", "launch.workers_per_host=4", "data.lanes=64"],
        ["training={max_steps: 9, warmup_steps: 8, profile_at: 9}"],
        ["tasks.click.weight_column=watch_time", "tasks.click.weight=0"],
        ["features.user2={table: user, column: other}"],
        ["features.user.transform=identity", "features.user.out_of_range=drop"],
        ["tables.user.sharding=column_wise"],
        ["features.age={transform: standardize, mean: 1, std: 1}"],
        ["training.sparse_optimizer={kind: adam, weight_decay: 0.1}"],
        ["training.sparse_optimizer={kind: rowwise_adagrad, weight_decay: 0.1}"],
        ["tables.user.sharding=data_parallel"],
        ["training.run_dir=data/run", "data.root=data/rows"],
        ["tasks.watch={label: liked, loss: mse, output: sigmoid}"],
        ["tasks.like={parent: click, relation: aitm}"],
        ["tasks.keys={}"],
        ["model.top=single_task", "training.task_balance=dwa"],
    ],
)
def test_neighbours_of_mistakes_are_sound(overrides: list[str]) -> None:
    assert check(config(overrides)) == []


@pytest.mark.parametrize(("name", "overrides", "where", "words"), CASES)
def test_each_mistake_is_found_once_where_it_is(name: str, overrides: list[str], where: str, words: str) -> None:
    (mistake,) = check(config(overrides))
    assert ".".join(mistake.path) == where
    assert words in mistake.message
    (found,) = [one.__name__ for one in CHECKS if list(one(config(overrides)))]
    assert found == name


def test_every_check_is_tested() -> None:
    assert {name for name, *_ in CASES} == {one.__name__ for one in CHECKS}


def test_names_of_modules_are_those_of_torch() -> None:
    public = {name for kind in (nn.Module(), nn.ModuleDict()) for name in dir(kind) if not name.startswith("_")}
    assert public == feature_checks._OF_MODULES


@pytest.mark.parametrize("top", available("models.tops"))
def test_a_top_says_whether_its_tasks_share(top: str) -> None:
    module = top_of(config([f"model.top={top}"]))
    forks = [part for part in module.modules() if isinstance(part, Fork)]
    assert bool(forks) == read("models.tops", top, "SHARES", True)


@pytest.mark.parametrize("balance", available("models.balance"))
def test_a_balance_says_whether_it_combines(balance: str) -> None:
    combines = build_balance(balance, config([]).tasks).combines_gradients
    assert combines == read("models.balance", balance, "COMBINES", False)
