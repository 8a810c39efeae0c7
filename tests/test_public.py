"""The shape of the package: what it exposes, who imports whom, and what it must never contain."""

import ast
import importlib
from pathlib import Path

import pytest

import retrieval_ft

ROOT = Path(retrieval_ft.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
BELOW = {"artifacts", "config", "console", "dataset", "endpoints", "errors", "packages"}
BELOW |= {"portable", "ranks"}
ENCODING = {*BELOW, "encoder", "models"}
MAY_IMPORT = {
    "config": {"errors"},
    "dataset": BELOW,
    "models": BELOW,
    "encoder": BELOW,
    "mining": ENCODING,
    "training": ENCODING,
    "index": ENCODING,
    "evaluation": ENCODING,
    "export": ENCODING,
    "pipeline": {*ENCODING, "mining", "training", "index", "evaluation", "export"},
}
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def own_imports(path):
    """The rooms (and modules beside them) that a file imports, as their first name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "retrieval_ft" and len(parts) > 1:
                yield parts[1]


def test_every_room_is_in_the_plan():
    assert set(ROOMS) == set(MAY_IMPORT)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_is_below_it(room):
    for path in sorted((ROOT / room).rglob("*.py")):
        sideways = set(own_imports(path)) - MAY_IMPORT[room] - {room, "__version__"}
        assert not sideways, f"{path.relative_to(ROOT)} imports {sorted(sideways)}"


@pytest.mark.parametrize(
    "module", ["errors", "console", "artifacts", "endpoints", "portable", "ranks"]
)
def test_the_ground_floor_imports_no_room(module):
    assert not set(own_imports(ROOT / f"{module}.py")) & set(ROOMS)


@pytest.mark.parametrize("name", ["retrieval_ft", *(f"retrieval_ft.{room}" for room in ROOMS)])
def test_what_a_room_exposes_is_what_it_says(name):
    module = importlib.import_module(name)
    public = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and not isinstance(value, type(ast)) and key != "annotations"
    }
    declared = list(getattr(module, "__all__", []))
    assert sorted(set(declared)) == sorted(declared)
    assert {key for key in declared if not key.startswith("__")} == public
    assert all(hasattr(module, key) for key in declared)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_starts_by_saying_what_it_is_for(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert ast.get_docstring(tree(path))


def test_nothing_is_pickled_and_no_foreign_code_is_trusted():
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
                assert not {"pickle", "cPickle", "dill", "joblib", "shelve"} & set(names), path
            if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
                assert (node.arg, node.value.value) not in {
                    ("trust_remote_code", True),
                    ("allow_pickle", True),
                    ("weights_only", False),
                }, path


def test_no_except_is_broad():
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}"
                kinds = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                assert not kinds & {"Exception", "BaseException"}, f"{path}:{node.lineno}"
