"""YAML text -> plain values, and where each was written, for error messages that name file and line.

Scalars follow YAML 1.2: `1e-3` is a number, `no` and `off` are text, a date is text. A key given twice is a mistake.
Merging of files and overrides is in `configs.merge`.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

Path = tuple[str, ...]  # ("tables", "user", "num_embeddings")


@dataclass(frozen=True)
class Origin:
    """Where a value was written, and as which text (None for a list or a mapping)."""

    file: str
    line: int | None = None
    text: str | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """What is wrong at `path`. It stands only while the values at the paths in `also` are valid themselves."""

    path: Path
    message: str
    origin: Origin | None = None
    also: tuple[Path, ...] = ()


@dataclass
class Source:
    """Values of one or more texts, by key path, with their origins and what was wrong with the text."""

    values: Any = None
    origins: dict[Path, Origin] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


_TEXT = "tag:yaml.org,2002:str"
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")


def scalar(text: str) -> Any:
    """The value of an unquoted YAML scalar."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse(text: str, file: str, prefix: Path = (), one_line: bool = False) -> Source:
    """Read one YAML document; `prefix` is the path of its root, `one_line` leaves line numbers out."""
    source = Source()
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark and not one_line else None
        source.mistakes.append(Mistake(prefix, f"not valid YAML: {error.problem}", Origin(file, line)))
    except yaml.YAMLError as error:  # a character that YAML does not allow
        source.mistakes.append(Mistake(prefix, f"not valid YAML: {str(error).splitlines()[0]}", Origin(file)))
    else:
        if one_line:
            node = _whole(node, text, file, prefix, source)
        source.values = None if node is None else _Walk(file, source, one_line).value(node, prefix)
    return source


def _whole(node: yaml.Node | None, text: str, file: str, path: Path, source: Source) -> yaml.Node | None:
    """The node of one value; a plain text is all that was written, with what YAML takes for a comment or a mark."""
    end = node.end_mark.index if node else 0
    if node is None or (isinstance(node, yaml.ScalarNode) and node.style is None):
        whole, is_cut = text.strip(), node is None or node.value != text.strip()
        has_tag = node is not None and not node.tag.startswith(_TEXT)
        return node if has_tag or not whole or not is_cut else yaml.ScalarNode(_TEXT, whole, style="'")
    if text[end:].strip():
        message = f"what follows {text[:end].strip()} would be dropped as a comment: {text[end:].strip()}; remove it"
        source.mistakes.append(Mistake(path, message, Origin(file)))
    return node


class _Walk:
    """Turns YAML nodes into values and notes the origin of each."""

    def __init__(self, file: str, source: Source, one_line: bool) -> None:
        self.file, self.source, self.one_line = file, source, one_line
        self.open: list[yaml.Node] = []

    def origin(self, node: yaml.Node) -> Origin:
        text = node.value if isinstance(node, yaml.ScalarNode) else None
        return Origin(self.file, None if self.one_line else node.start_mark.line + 1, text)

    def mistake(self, path: Path, message: str, node: yaml.Node) -> None:
        self.source.mistakes.append(Mistake(path, message, self.origin(node)))

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.source.origins[path] = self.origin(node)
        if any(node is outer for outer in self.open):
            self.mistake(path, "the anchor contains itself", node)
            return None
        self.open.append(node)
        try:
            return self._value(node, path)
        finally:
            self.open.pop()

    def _value(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(i))) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        if not node.tag.startswith(_TEXT):
            self.mistake(path, f"YAML tags such as {node.tag} are not read", node)
        return scalar(node.value) if node.style is None else node.value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """Keys are text as written; `<<` puts the mapping that it names below this one."""
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].value != "<<"):
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistake(path, "a key must be text", key_node)
            elif key == "<<":
                values = self.value(value_node, path)
                for value in reversed(values if isinstance(values, list) else [values]):
                    merged |= value if isinstance(value, dict) else {}
            elif key in lines:
                message = f"the key is there twice, in lines {lines[key]} and {line}; remove one"
                self.mistake((*path, key), message, key_node)
            else:
                lines[key] = line
                own[key] = self.value(value_node, (*path, key))
                if not isinstance(value_node, yaml.ScalarNode):  # name the key's line, not its content's
                    self.source.origins[(*path, key)] = replace(self.origin(key_node), text=None)
        return merged | own
