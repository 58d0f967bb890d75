"""Each hand-written `.pyi` beside an extension says what the extension has, no more and no less."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parent.parent
STUBS = sorted(SOURCE.glob("fastpump/**/*.pyi"))


class Parameter(NamedTuple):
    name: str
    kind: str
    default: bool


Parameters = list[Parameter]
KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "**",
}


def module_of(stub: Path) -> str:
    return ".".join(stub.relative_to(SOURCE).with_suffix("").parts)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def differences(stub: str, extension: ModuleType, cython_source: str) -> list[str]:
    """Everything in which the stub's text and the extension disagree."""
    body = ast.parse(stub).body
    members = _members(extension) - _imported(cython_source)
    found = list(_names_apart(extension.__name__, _declared(body), members))
    for node in body:
        if isinstance(node, ast.ClassDef) and hasattr(extension, node.name):
            cls = getattr(extension, node.name)
            found += _names_apart(node.name, _declared(node.body), _class_members(cls))
            found += _class_parameters(node, cls, cython_source)
        elif isinstance(node, ast.FunctionDef) and hasattr(extension, node.name):
            found += _parameters_apart(node, getattr(extension, node.name), node.name)
    return found


def _names_apart(where: str, declared: set[str], present: set[str]) -> Iterator[str]:
    for name in sorted(declared - present):
        yield f"{where}.{name} is in the stub and not in the extension"
    for name in sorted(filter(is_public, present - declared)):
        yield f"{where}.{name} is in the extension and not in the stub"


def _declared(body: list[ast.stmt]) -> set[str]:
    """Names a module's or class's body defines; what it imports is not its own."""
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def _members(extension: ModuleType) -> set[str]:
    """Names the extension defines itself: not the modules, classes and functions it imports."""

    def own(value: Any) -> bool:
        if isinstance(value, ModuleType):
            return False
        return bool(getattr(value, "__module__", extension.__name__) == extension.__name__)

    return {name for name, value in vars(extension).items() if own(value)}


def _imported(cython_source: str) -> set[str]:
    """Names that import statements bind: of a constant nothing else shows where it is from."""
    statement = r"^from [\w.]+ c?import (\([^)]*\)|.*)$"
    lists = " ".join(re.findall(statement, cython_source, re.MULTILINE))
    return set(re.findall(r"\w+", lists))


def _class_members(cls: type) -> set[str]:
    """All names the class defines, and what it has of `object`, which a stub may repeat."""
    inherited = {name for base in cls.__mro__[1:] for name in vars(base) if not is_public(name)}
    return set(vars(cls)) | inherited


def _class_parameters(node: ast.ClassDef, cls: type, source: str) -> Iterator[str]:
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or not hasattr(cls, method.name):
            continue
        where = f"{cls.__name__}.{method.name}"
        if method.name == "__init__":
            yield from _constructor_apart(method, cls.__name__, source)
        elif is_public(method.name):
            yield from _parameters_apart(method, inspect.getattr_static(cls, method.name), where)


def _parameters_apart(node: ast.FunctionDef, function: Any, where: str) -> Iterator[str]:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if "overload" in decorators:
        return
    is_property = "property" in decorators or any(text.endswith(".setter") for text in decorators)
    if is_property == callable(function):
        yield f"{where} is a property in one of the two and a method in the other"
    if is_property:
        return
    declared, actual = _stub_parameters(node), _actual_parameters(function)
    if actual is not None and declared != actual:
        yield f"{where}: the stub has {_show(declared)}, the extension {_show(actual)}"


def _stub_parameters(node: ast.FunctionDef) -> Parameters:
    arguments = node.args
    positional = arguments.posonlyargs + arguments.args
    first_default = len(positional) - len(arguments.defaults)
    found = [
        Parameter(argument.arg, "positional", index >= first_default)
        for index, argument in enumerate(positional)
    ]
    if arguments.vararg:
        found.append(Parameter(arguments.vararg.arg, "*", False))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(Parameter(argument.arg, "keyword", default is not None))
    if arguments.kwarg:
        found.append(Parameter(arguments.kwarg.arg, "**", False))
    return found


def _actual_parameters(function: Any) -> Parameters | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [
        Parameter(name, KINDS[parameter.kind], parameter.default is not parameter.empty)
        for name, parameter in signature.parameters.items()
    ]


def _constructor_apart(node: ast.FunctionDef, name: str, source: str) -> Iterator[str]:
    """An extension class keeps no signature of its constructor; its Cython source has it."""
    actual = constructor_parameters(source, name)
    declared = _stub_parameters(node)[1:]
    if actual is not None and declared != actual:
        yield f"{name}(): the stub has {_show(declared)}, the source {_show(actual)}"


def constructor_parameters(source: str, name: str) -> Parameters | None:
    """The parameters of a class's `__init__` or `__cinit__` in Cython source, without self."""
    body = re.search(rf"^(?:cdef )?class {name}\b.*?(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)
    if body is None:
        return None
    # A `__cinit__` beside an `__init__` takes no arguments of its own.
    signature = r"def {}\(([^()]*(?:\([^()]*\)[^()]*)*)\)"
    match = re.search(signature.format("__init__"), body[0])
    match = match or re.search(signature.format("__cinit__"), body[0])
    if match is None:
        return None
    kind = "positional"
    found: Parameters = []
    for text in re.split(r",(?![^\[(]*[\])])", match[1]):
        left = re.sub(r"(?m)#.*$", "", text).partition("=")[0].partition(":")[0].strip()
        if left == "*":
            kind = "keyword"
        elif left and left not in ("self", "/"):
            stars = left.count("*")
            found.append(Parameter(re.findall(r"\w+", left)[-1], "*" * stars or kind, "=" in text))
            kind = "keyword" if stars else kind
    return found


def _show(parameters: Parameters) -> str:
    return "(" + ", ".join(f"{p.name}{'=...' * p.default} [{p.kind}]" for p in parameters) + ")"


@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_stub_and_extension_agree(stub: Path) -> None:
    extension = importlib.import_module(module_of(stub))
    assert extension.__file__ is not None
    assert extension.__file__.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    source = stub.with_suffix(".pyx").read_text(encoding="utf-8")
    assert not differences(stub.read_text(encoding="utf-8"), extension, source)


def test_every_extension_has_a_stub() -> None:
    for source in SOURCE.glob("fastpump/**/*.pyx"):
        assert source.with_suffix(".pyi").exists(), source.name


class TestTheComparisonItself:
    """On a module that stands in for an extension, with a stub that is right and wrong ones."""

    CYTHON = (
        "cdef class Box:\n    def __init__(self, int size, *, bint deep=False):\n        pass\n"
    )
    RIGHT = (
        "from uuid import UUID\n"
        "LIMIT: int\n"
        "class Box:\n"
        "    def __init__(self, size: int, *, deep: bool = False) -> None: ...\n"
        "    def put(self, item: bytes, at: int = 0) -> None: ...\n"
        "    @property\n"
        "    def used(self) -> int: ...\n"
        "    def __len__(self) -> int: ...\n"
        "def pack(items: list[bytes], *, level: int = ...) -> bytes: ...\n"
    )

    @pytest.fixture
    def extension(self) -> ModuleType:
        module = ModuleType("standin")
        code = (
            "from uuid import UUID\n"
            "LIMIT = 3\n"
            "class Box:\n"
            "    def __init__(self, size, *, deep=False): pass\n"
            "    def put(self, item, at=0): pass\n"
            "    @property\n"
            "    def used(self): return 0\n"
            "    def __len__(self): return 0\n"
            "def pack(items, *, level=1): pass\n"
        )
        exec(code, vars(module))
        return module

    def test_a_right_stub(self, extension: ModuleType) -> None:
        assert differences(self.RIGHT, extension, self.CYTHON) == []

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("LIMIT: int\n", "", "standin.LIMIT is in the extension"),
            ("LIMIT", "MOST: int\nLIMIT", "standin.MOST is in the stub"),
            ("at: int = 0", "at: int", "Box.put: the stub has"),
            ("item: bytes, ", "", "Box.put: the stub has"),
            ("def put", "def push", "Box.push is in the stub"),
            ("    @property\n", "", "Box.used is a property"),
            ("*, level", "level", "pack: the stub has"),
            ("*, deep", "deep", "Box(): the stub has"),
            ("size: int", "length: int", "Box(): the stub has"),
        ],
    )
    def test_a_wrong_stub(self, extension: ModuleType, old: str, new: str, expected: str) -> None:
        assert old in self.RIGHT
        found = differences(self.RIGHT.replace(old, new), extension, self.CYTHON)
        assert any(line.startswith(expected) for line in found), found
