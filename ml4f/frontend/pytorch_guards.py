"""What a .pt2 file must not make PyTorch do when it is read: run code.

torch.export.load unpickles, hands the file's expressions of shapes to sympy, which evaluates them as Python, looks
operators up by name in Python modules, and keeps guards as lines of Python for later. A program's file is checked here
at each of these places.
"""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml4f.errors import Ml4fError
from ml4f.frontend.guards import MAX_FILE_BYTES, parser_errors

FUNCTIONS = frozenset(
    {
        *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv"),
        *("LShift", "RShift", "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal"),
        *("ToFloat", "Identity", "IsNonOverlappingAndDenseIndicator", "Max", "Min", "Abs", "And", "Or", "Not", "Eq"),
        *("Ne", "Lt", "Le", "Gt", "Ge", "Add", "Mul", "Pow", "Integer", "Rational", "Float", "Symbol", "Equality"),
        *("Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
    }
)
"""Functions of torch and sympy that expressions of shapes consist of."""
NAME = re.compile(r"[a-z_]{1,10}\d{1,9}|int_oo|oo")
"""Symbols and infinities."""
TEXT = re.compile(r"[a-z_]{1,10}\d{1,9}|[\d.e+-]{1,30}")
"""The name of a Symbol, the digits of a Float."""
ARITHMETIC = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
LARGEST_NUMBER = 1 << 63
LARGEST_EXPONENT = 99
LONGEST_EXPRESSION = 20_000
OPERATORS = frozenset(
    {
        *("add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "inv", "invert", "le", "lshift", "lt", "mod", "mul"),
        *("ne", "neg", "not_", "or_", "pos", "pow", "rshift", "sub", "truediv", "xor"),
    }
)
"""Functions of Python's module operator."""
NAMESPACES = ("aten", "higher_order", "prim", "prims", "quantized_decomposed", "torchvision")
"""Operators of PyTorch's own."""


def check_archive(path: Path, subject: str) -> None:
    """No name twice (readers differ in which they take), no more bytes than a model may have."""
    with parser_errors(subject, "the archive"), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename.lower() for entry in entries]
    if len(set(names)) != len(names):
        raise Ml4fError(f"{subject}: the archive has an entry twice; save it again with torch.export.save")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_FILE_BYTES:
        raise Ml4fError(f"{subject}: unpacked it takes {total} bytes, more than the limit of {MAX_FILE_BYTES}")


def is_harmless(expression: str) -> bool:
    """Whether an expression of shapes is arithmetic on symbols and numbers that is soon computed."""
    if len(expression) > LONGEST_EXPRESSION:
        return False
    try:
        tree = ast.parse(expression, mode="eval").body
        return all(_is_arithmetic(node) for node in ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in FUNCTIONS or NAME.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return TEXT.fullmatch(node.value) is not None
        return isinstance(node.value, bool | int | float) and abs(node.value) < LARGEST_NUMBER
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            return False
        return node.func.id not in ("LShift", "Pow") or (len(node.args) == 2 and _is_small(node.args[1]))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
        return _is_small(node.right)
    return isinstance(node, (*ARITHMETIC, ast.keyword, ast.expr_context))


def _is_small(node: ast.AST) -> bool:
    """Whether an exponent is a small number."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer" and node.args:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) <= LARGEST_EXPONENT


@contextmanager
def without_code(torch: Any) -> Iterator[list[str]]:
    """While a program is loaded, weights are not unpickled, and texts are no expressions unless they are harmless.

    Yields a list of those that were refused, as torch may catch the error and try to read the file in another way.
    """
    import sympy

    load, sympify = torch.load, sympy.sympify
    refused: list[str] = []

    def checked(a: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(a, str) and not is_harmless(a):
            refused.append(a)
            raise Ml4fError("an expression that is none")
        return sympify(a, *arguments, **options)

    torch.load = lambda *arguments, **options: load(*arguments, **{**options, "weights_only": True})
    sympy.sympify = checked
    try:
        yield refused
    finally:
        torch.load, sympy.sympify = load, sympify


def check_program(torch: Any, program: Any, subject: str) -> None:
    """Its nodes call operators of PyTorch, and nothing else; its guards, which are lines of Python, are dropped."""
    program._guards_code = []
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            if node.op in ("call_method", "call_module") or (
                node.op == "call_function" and not _is_operator(torch, node.target)
            ):
                raise Ml4fError(f"{subject}: '{str(node.target)[:60]}' is no operator of PyTorch; refused")


def _is_operator(torch: Any, target: Any) -> bool:
    if isinstance(target, torch._ops.OpOverload):
        return target.namespace in NAMESPACES and "from_file" not in target.name()
    if isinstance(target, torch._ops.HigherOrderOperator):
        return True
    module, name = getattr(target, "__module__", ""), getattr(target, "__name__", "")
    if module == "_operator":
        return name in OPERATORS
    return module == "math" or (module == "torch" and name.lstrip("_").startswith("sym_"))
