"""Single faults in a source text: where one can be planted, and what stands there then.

A fault is a flipped comparison, a shifted bound, another operator, constant or default, a dropped keyword, a deleted
statement and the like. Error messages, docstrings, annotations and texts beside a progress bar are left alone.
"""

import ast
import copy
from typing import NamedTuple

SWAPS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
MESSAGES = ("warnings.warn", "print")
WORDS = ("description", "stacklevel")  # keywords that only change what a user is shown


class Fault(NamedTuple):
    """A place of a source text (in bytes), the texts that may stand there instead, and the lines that must be executed
    for a test to notice; None where the import executes them."""

    start: int
    end: int
    texts: list[str]
    lines: range | None


def plant(source: str, fault: Fault, text: str) -> str:
    """The source with `text` in the place of the fault."""
    raw = source.encode()
    return (raw[: fault.start] + text.encode() + raw[fault.end :]).decode()


def faults(source: str) -> list[Fault]:
    """All places of a source text where single faults can be planted, each with its faults."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    places = []

    def visit(node, lines):
        if isinstance(node, ast.stmt):
            lines = lines_of(node, lines)
        for target, texts in candidates(node):
            start = starts[target.lineno - 1] + target.col_offset
            places.append(Fault(start, starts[target.end_lineno - 1] + target.end_col_offset, texts, lines))
        for child in parts(node):
            # A function's defaults and decorators are there as soon as it is imported.
            head = isinstance(node, ast.FunctionDef) and not isinstance(child, ast.stmt)
            visit(child, None if head else lines)

    for statement in ast.parse(source).body:
        visit(statement, None)
    return places


def lines_of(node, around):
    """Lines of a statement without its block; None for one that the import executes."""
    if isinstance(node, ast.FunctionDef):
        return range(node.body[0].lineno, node.end_lineno + 1)
    if around is None:
        return None
    block = getattr(node, "body", None)  # an if, a loop, a with or a try
    end = block[0].lineno if isinstance(block, list) else node.end_lineno + 1
    return range(node.lineno, max(end, node.lineno + 1))


def parts(node):
    """The children of a node in which a fault changes what the program does, and not only what it says."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)) or is_message(node):
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


def is_message(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func) in MESSAGES


def candidates(node):
    """Pairs of a node and the texts that may replace it."""
    texts = FAULTS[type(node)](node) if type(node) in FAULTS else []
    if texts:
        yield node, texts
    # A comparison and the like have flips of their own.
    for condition in [getattr(node, "test", None), *getattr(node, "ifs", [])]:
        if isinstance(condition, (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr, ast.Subscript)):
            yield condition, [f"(not {ast.unparse(condition)})"]


def changed(node, **fields):
    """The text of a node with other fields, in brackets."""
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return f"({ast.unparse(node)})"


def constant(node):
    if isinstance(node.value, bool):
        return [str(not node.value)]
    if isinstance(node.value, (int, float)):
        return [repr(v) for v in {node.value + 1, node.value - 1, node.value * 2} - {node.value}]
    return []


def compare(node):
    pairs = [(k, new) for k, op in enumerate(node.ops) for new in SWAPS[type(op)]]
    return [changed(node, ops=[*node.ops[:k], new(), *node.ops[k + 1 :]]) for k, new in pairs]


def binary(node):
    return [changed(node, op=new()) for new in SWAPS.get(type(node.op), ())] + operands(node.left, node.right)


def operands(*nodes):
    return [f"({ast.unparse(node)})" for node in nodes]


def boolean(node):
    fewer = [node.values[:k] + node.values[k + 1 :] for k in range(len(node.values))]
    joined = [f" {'and' if isinstance(node.op, ast.And) else 'or'} ".join(operands(*values)) for values in fewer]
    return [changed(node, op=new()) for new in SWAPS[type(node.op)]] + [f"({text})" for text in joined]


def conditional(node):
    return operands(node.body, node.orelse) + [changed(node, body=node.orelse, orelse=node.body)]


def bounds(node):
    one = ast.Constant(1)
    lower = one if node.lower is None else ast.BinOp(node.lower, ast.Add(), one)
    upper = ast.Constant(-1) if node.upper is None else ast.BinOp(node.upper, ast.Sub(), one)
    return [changed(node, lower=lower)[1:-1], changed(node, upper=upper)[1:-1]]


def call(node):
    dropped = [k for k, word in enumerate(node.keywords) if word.arg and word.arg not in WORDS]
    if is_message(node):
        return []
    return [changed(node, keywords=node.keywords[:k] + node.keywords[k + 1 :]) for k in dropped]


def result(node):
    match node.value:
        case ast.Call(func=ast.Attribute(value=inner)) if not isinstance(inner, ast.Name):
            return [f"return {ast.unparse(inner)}"]
        case ast.Tuple(elts=[first, second]):
            return [f"return ({ast.unparse(second)}, {ast.unparse(first)})"]
    return []


def nothing(node):
    return ["pass"]


def assignment(node):
    return ["pass"] if isinstance(node.targets[0], (ast.Attribute, ast.Subscript)) else []


def expression(node):
    return ["pass"] if isinstance(node.value, ast.Call) else []


FAULTS = {
    ast.Constant: constant,
    ast.Compare: compare,
    ast.BinOp: binary,
    ast.BoolOp: boolean,
    ast.UnaryOp: lambda node: operands(node.operand),
    ast.IfExp: conditional,
    ast.Slice: bounds,
    ast.Call: call,
    ast.Return: result,
    ast.Assign: assignment,
    ast.Expr: expression,
    **dict.fromkeys((ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete), nothing),
}
