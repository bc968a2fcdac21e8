"""What users hand in is never run: no evaluation of text, no unpickling, no shell."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sklearn_advsec"

BUILTINS = {"eval", "exec", "compile", "__import__", "execfile"}
MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "subprocess", "pty"}
# Methods by the module that they are called on.
CALLS = {
    "joblib": {"load"},
    "torch": {"load", "hub"},
    "os": {"system", "popen", "execv", "execl", "spawnl", "spawnv", "startfile"},
    "pd": {"read_pickle", "eval"},
    "pandas": {"read_pickle", "eval"},
    "ast": {"literal_eval"},
}


def _forbidden(source):
    """Yield `(line, what)` of everything that could run what a user hands in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            yield from ((node.lineno, name) for name in names & MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = node.module.split(".")[0]
            if module in MODULES:
                yield node.lineno, module
            for alias in node.names:
                if alias.name in CALLS.get(module, ()):
                    yield node.lineno, f"{module}.{alias.name}"
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in CALLS.get(node.value.id, ()):
                yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                on = getattr(keyword.value, "value", True)
                if keyword.arg in ("shell", "allow_pickle") and on:
                    yield node.lineno, f"{keyword.arg}=True"
            # numpy unpickles where it is not told otherwise.
            if ast.unparse(node.func) in ("np.load", "numpy.load"):
                told = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if told.get("allow_pickle") != "False":
                    yield node.lineno, "np.load without allow_pickle=False"
            # A module's `eval()` takes nothing, a frame's runs the text that it is given.
            method = getattr(node.func, "attr", None)
            if method == "eval" and (node.args or node.keywords):
                yield node.lineno, ".eval(...)"


# The command line loads a pickle where its user says --allow-pickle, and only there;
# KeepModels reads back the folder that it was told to keep models in; TFHE runs this
# package's own program with the Python of its second environment; workers of joblib
# unpickle what this very process has pickled for them.
ALLOWED = {
    ("_parallel.py", "pickle"),
    ("audit/_command_line.py", "joblib.load"),
    ("encryption/_tfhe.py", "subprocess"),
    ("privacy/_folds.py", "joblib.load"),
}


def test_nothing_that_is_handed_in_is_run():
    found = [
        (path.relative_to(PACKAGE).as_posix(), *what)
        for path in sorted(PACKAGE.rglob("*.py"))
        for what in _forbidden(path.read_text())
    ]
    assert {(name, what) for name, _, what in found} == ALLOWED
    assert len(found) == len(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "import subprocess as s",
        "joblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path)",
        "frame.eval('a + b')",
        "run('ls', shell=True)",
        "os.system('ls')",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert list(_forbidden(source))


def test_the_search_lets_modules_be_evaluated():
    assert not list(_forbidden("module.eval().requires_grad_(False)"))
