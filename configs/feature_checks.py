"""Checks of a config's features and tables against each other and the labels. `configs.checks` runs them.

Each takes a `Config` that is valid section by section, and yields what is wrong.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

from configs.choices import did_you_mean
from configs.schema import Config, SparseFeature
from configs.yaml_source import Mistake

_OWNER = {"vocabulary": "vocabulary", "boundaries": "bucketize", "out_of_range": "identity"}  # key -> its transform


def names_are_plain(config: Config) -> Iterator[Mistake]:
    """A feature's, table's or task's name becomes part of parameter names, curves and files."""
    for section in ("features", "tables", "tasks"):
        for name in getattr(config, section):
            if not name.replace("-", "_").isidentifier():
                yield Mistake((section, name), "a name is letters, digits, _ and -, and starts with no digit")


_OF_MODULES = frozenset(
    [
        "T_destination",
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "clear",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "items",
        "keys",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "pop",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "update",
        "values",
        "xpu",
        "zero_grad",
    ]
)
"""What torch's modules have of their own: a part of theirs cannot be called so."""


def names_can_be_modules(config: Config) -> Iterator[Mistake]:
    """Tables and the side towers of tasks are modules, under their own names."""
    towers = [("tasks", name) for name, task in config.tasks.items() if task.tower_features]
    for path in [*(("tables", name) for name in config.tables), *towers]:
        if path[1] in _OF_MODULES or path[1].startswith("_"):
            advice = f"another name, such as {path[1].strip('_')}_{path[0].removesuffix('s')}"
            yield Mistake(path, f"torch keeps this name for itself; use {advice}")


def tables_are_found(config: Config) -> Iterator[Mistake]:
    for name, feature in config.sparse_features.items():
        if feature.table not in config.tables:
            advice = did_you_mean(feature.table, list(config.tables)) if config.tables else "`tables` is empty"
            yield Mistake(("features", name, "table"), f"there is no such table; {advice}")


def tables_are_used(config: Config) -> Iterator[Mistake]:
    used = {feature.table for feature in config.sparse_features.values()}
    if used - set(config.tables):
        return  # a misspelt table leaves the right one unused
    for name in config.tables:
        if name not in used:
            message = "no feature uses this table; remove it, or name it in a feature"
            yield Mistake(("tables", name), message, also=(("features",),))


def labels_are_no_inputs(config: Config) -> Iterator[Mistake]:
    """A label among the inputs gives a model that looks excellent and is worthless."""
    for name, task in config.tasks.items():
        label = task.label or name
        path = ("tasks", name, "label")
        for feature in _readers(config, label):
            message = f"label leak: column {label} is an input too; remove features.{feature}"
            yield Mistake(path, message, also=(("features", feature),))
        if task.weight_column == label:
            message = "is the label itself: rows with label 0 would not count; use positive_weight"
            yield Mistake(("tasks", name, "weight_column"), message)


def weights_are_no_inputs(config: Config) -> Iterator[Mistake]:
    weights = [(("tasks", name, "weight_column"), task.weight_column) for name, task in config.tasks.items()]
    for path, column in (*weights, (("data", "weight_column"), config.data.weight_column)):
        for feature in _readers(config, column):
            message = f"the weight of a row is an input too; remove it, or features.{feature}"
            yield Mistake(path, message, also=(("features", feature),))


def _readers(config: Config, column: str | None) -> list[str]:
    """The features that read `column`."""
    return [
        name
        for name, feature in config.features.items()
        if column and column in (feature.column or name, getattr(feature, "weights", None))
    ]


def transforms_are_whole(config: Config) -> Iterator[Mistake]:
    """A transform has the keys that it needs, and no key is there that only another one reads."""
    for name, feature in config.sparse_features.items():
        path, kind = ("features", name), feature.transform
        if kind == "vocabulary" and feature.vocabulary is None:
            yield Mistake((*path, "vocabulary"), "is missing: transform vocabulary needs a text file, one ID a line")
        if kind == "bucketize" and not feature.boundaries:
            yield Mistake((*path, "boundaries"), "is missing: transform bucketize needs upper edges: [1, 10, 100]")
        for key, owner in _OWNER.items():
            idle = kind in {"hash", *_OWNER.values()} - {owner}
            if idle and getattr(feature, key) != SparseFeature.model_fields[key].default:
                message = f"has no effect: it belongs to transform {owner}, and this is {kind}"
                yield Mistake((*path, key), message, also=((*path, "transform"),))


def boundaries_fit(config: Config) -> Iterator[Mistake]:
    for name, feature in config.sparse_features.items():
        path, table = ("features", name, "boundaries"), config.tables.get(feature.table)
        if any(low >= high for low, high in pairwise(feature.boundaries)):
            yield Mistake(path, "must increase from one to the next")
        if table and len(feature.boundaries) >= table.num_embeddings:
            buckets = len(feature.boundaries) + 1
            message = f"{buckets} buckets do not fit into the {table.num_embeddings} rows of table {feature.table}"
            yield Mistake(path, message, also=(("tables", feature.table, "num_embeddings"),))


def standardize_is_whole(config: Config) -> Iterator[Mistake]:
    for name, feature in config.dense_features.items():
        path, given = ("features", name), (feature.mean, feature.std) != (0, 1)
        if feature.transform == "standardize" and not given:
            message = "standardize needs `mean` and `std`: with 0 and 1 nothing changes"
            yield Mistake((*path, "transform"), message, also=((*path, "mean"), (*path, "std")))
        if feature.transform != "standardize" and given:
            message = f"has no effect: it belongs to transform standardize, and this is {feature.transform}"
            yield Mistake((*path, "mean" if feature.mean else "std"), message, also=((*path, "transform"),))


def bags_are_sound(config: Config) -> Iterator[Mistake]:
    for name, feature in config.sparse_features.items():
        path, table = ("features", name, "weights"), config.tables.get(feature.table)
        if feature.weights and feature.weights == (feature.column or name):
            yield Mistake(path, "is the column of the IDs themselves", also=(("features", name, "column"),))
        if feature.weights and table and table.pooling == "mean":
            message = f"weighted IDs are summed, but table {feature.table} pools by mean; use pooling: sum"
            yield Mistake(path, message, also=(("tables", feature.table, "pooling"),))


def features_differ(config: Config) -> Iterator[Mistake]:
    first: dict[str, str] = {}
    for name, feature in config.features.items():
        content = feature.model_copy(update={"column": feature.column or name}).model_dump_json()
        if content in first:
            message = f"equals features.{first[content]} in everything but its name; remove one"
            yield Mistake(("features", name), message, also=(("features", first[content]),))
        first.setdefault(content, name)


FEATURE_CHECKS: tuple[Callable[[Config], Iterator[Mistake]], ...] = (
    names_are_plain,
    tables_are_found,
    tables_are_used,
    labels_are_no_inputs,
    weights_are_no_inputs,
    transforms_are_whole,
    boundaries_fit,
    standardize_is_whole,
    bags_are_sound,
    features_differ,
    names_can_be_modules,
)
