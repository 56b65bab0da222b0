"""A named score as a formula of predictions: `rank: click ** 0.6 * like ** 0.2 + 0.1 * watch_time`.

It has names of tasks, numbers, + - * / ** and parentheses, and nothing else: the text is read as a syntax tree and is
never executed. What the names stand for may be anything that has these operators: an array, or a tensor in a program.
"""

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

_TWO: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


class FormulaError(ValueError):
    """Says what is wrong with a formula, without naming where it stands."""


def check_formula(text: str, tasks: Collection[str]) -> None:
    """Raises FormulaError unless `text` is a formula of at least one of `tasks`."""
    tree = _parse(text)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    for name in names:
        if name not in tasks:
            raise FormulaError(f"{name!r} is not a task; there are: {', '.join(tasks)}")
    if not names:
        raise FormulaError("names no task")
    try:
        _value(tree, dict.fromkeys(tasks, 0.5))
    except (ArithmeticError, ValueError) as error:
        raise FormulaError(f"cannot be computed: {error}") from None


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """The formula of these values, by name of the task."""
    return _value(_parse(text), values)


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FormulaError("is not a formula: it has names of tasks, numbers, + - * / ** and parentheses") from None


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=float() | int() as number) if not isinstance(number, bool):
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=of):
            return -_value(of, values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _TWO:
            return _TWO[type(op)](_value(left, values), _value(right, values))
    raise FormulaError(f"has {ast.unparse(node)!r}; it may have names of tasks, numbers, + - * / ** and parentheses")
