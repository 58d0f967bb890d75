"""A file of the package imports only from levels below its own; nothing is imported upwards."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fastpump"

# From the bottom up. A module may import from earlier rows, and from its own row as long as the
# imports make no circle. A name that ends in ".*" stands for a whole folder.
LEVELS = (
    ("exceptions", "_bell", "_busy_poll", "_invariant", "_patience", "_position", "_run"),
    (
        "_varint",
        "_futures",
        "_members",
        "_ids",
        "_framing",
        "_event_table",
        "_events",
        "_event_feed",
        "_new_events",
        "_packing",
        "_replies",
        "_requests",
        "_commands",
        "_cold",
    ),
    ("messages", "filters", "metadata"),
    ("_arguments", "guard", "persistent_settings"),
    (
        "connection_events",
        "_dispatcher",
        "_operation",
        "_operations",
        "_outlet",
        "_write_events",
        "_settings",
        "_outbox",
        "_statistics",
        "_subscribing",
        "_group_operations",
        "_answers",
    ),
    ("_read_ahead", "_reads"),
    ("discovery", "_gossip", "_discoverers", "_protocol"),
    ("_connector",),
    (
        "_consuming",
        "_group_consumer",
        "persistent",
        "_logs",
        "subscriptions",
        "publisher",
        "transactions",
        "telemetry",
    ),
    (
        "_requesting",
        "_reading",
        "_writing",
        "_following",
        "_grouping",
        "_administering",
        "_transacting",
        "_operating",
        "_acting",
        "_connection_string",
    ),
    ("connection", "_http_manager", "users", "persistent_manager"),
    ("_background", "_blocking", "replay", "sync"),
    ("server.*",),
    ("__init__",),
    ("cli.*", "__main__"),
)
SERVER_MAY_IMPORT = {name for level in LEVELS[:3] for name in level}

CIMPORT = re.compile(
    r"^\s*(?:from\s+(?P<from>[\w.]+)\s+c?import\s+(?P<names>.+?)|c?import\s+(?P<module>[\w.]+))\s*$",
    re.MULTILINE,
)


def modules() -> dict[str, list[Path]]:
    """Every module of the package, by its name below the package, with the files it is made of."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
            found.setdefault(name, []).append(path)
    return found


MODULES = modules()


def level_of(module: str) -> int:
    for level, names in enumerate(LEVELS):
        for name in names:
            if module == name or (
                name.endswith(".*") and (module + ".").startswith(name.removesuffix("*"))
            ):
                return level
    raise AssertionError(f"{module} has no level: give it one in {Path(__file__).name}")


def targets(module: str, names: str) -> Iterator[str]:
    """The modules of the package that `from module import names` may load."""
    if module != "fastpump" and not module.startswith("fastpump."):
        return
    below = module.removeprefix("fastpump").removeprefix(".")
    for name in re.findall(r"\w+", re.sub(r"\bas\s+\w+", "", names)) or [""]:
        whole = f"{below}.{name}".strip(".")
        yield whole if whole in MODULES else (below or "__init__")


def python_imports(text: str, *, at_run_time: bool = False) -> Iterator[str]:
    """With `at_run_time` those are left out that only a type checker follows."""
    tree = ast.parse(text)
    if at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would not be seen here"
            yield from targets(node.module or "", ",".join(alias.name for alias in node.names))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from targets(alias.name, "")


def cython_imports(text: str) -> Iterator[str]:
    # Parenthesised lists of names over several lines become one line.
    text = re.sub(r"\(([^()]*)\)", lambda match: match[1].replace("\n", " "), text)
    for match in CIMPORT.finditer(re.sub(r"#.*", "", text)):
        yield from targets(match["from"] or match["module"], match["names"] or "")


def imports_of(module: str, *, at_run_time: bool = False) -> set[str]:
    found: set[str] = set()
    for path in MODULES[module]:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py" or (path.suffix == ".pyi" and not at_run_time):
            found.update(python_imports(text, at_run_time=at_run_time))
        elif path.suffix in (".pyx", ".pxd"):
            found.update(cython_imports(text))
    return found - {module}


def complaint(module: str, imported: str) -> str | None:
    """What is wrong with `module` importing `imported`, if anything is."""
    if module.split(".")[0] == "server":
        if imported.split(".")[0] in ("server", *SERVER_MAY_IMPORT):
            return None
        return "the embedded node shares only the wire and the vocabulary with the client"
    if module.split(".")[0] in ("cli", "__main__"):
        top = imported.split(".")[0]
        if top == "cli" or not top.startswith("_") or top == "__init__":
            return None
        return "the command line uses only what is public"
    if level_of(imported) > level_of(module):
        return "it lies above"
    return None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_from_below(module: str) -> None:
    problems = [
        f"{module} imports {imported}: {problem}"
        for imported in sorted(imports_of(module))
        if (problem := complaint(module, imported))
    ]
    assert not problems


def test_no_circles() -> None:
    graph = {module: imports_of(module, at_run_time=True) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module in done:
            return
        for imported in graph[module]:
            visit(imported, (*path, module))
        done.add(module)

    for module in MODULES:
        visit(module, ())


def test_every_module_has_a_level() -> None:
    for module in MODULES:
        level_of(module)


@pytest.mark.parametrize(
    ("module", "text", "imported"),
    [
        ("messages", "from fastpump.connection import connect", "connection"),
        ("messages", "import fastpump.connection", "connection"),
        ("exceptions", "from fastpump import messages, _run", "messages"),
        ("server.store", "from fastpump._dispatcher import (\n    Dispatcher,\n)", "_dispatcher"),
        ("cli.ingest", "from fastpump._framing import Framer as F", "_framing"),
    ],
)
def test_an_upward_import_is_found(module: str, text: str, imported: str) -> None:
    for read in (python_imports, cython_imports):
        found = set(read(text))
        assert imported in found
        assert complaint(module, imported)


def test_cimports_are_found() -> None:
    text = "from fastpump._events cimport Event, (\n  Slice)\ncimport fastpump._framing\n"
    assert set(cython_imports(text)) == {"_events", "_framing"}
