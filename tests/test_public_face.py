"""What users see of every public object: types, See Also, an example."""

import inspect
from importlib import import_module
from importlib.resources import files

import pytest
from numpydoc.docscrape import NumpyDocString
from test_layout import PUBLIC

OBJECTS = {
    f"{module}.{name}": getattr(import_module(f"sklearn_advsec.{module}"), name)
    for module in PUBLIC
    for name in import_module(f"sklearn_advsec.{module}").__all__
}
OPERATORS = {"__init__", "__call__", "__len__", "__iter__", "__enter__", "__exit__"}


def functions_of(found):
    """Functions that users call: those of a class are in it, or in its bases here."""
    if inspect.isroutine(found):
        return [inspect.unwrap(found)]
    found = found if inspect.isclass(found) else type(found)  # or a scorer's
    functions = []
    for base in found.__mro__:
        if not base.__module__.startswith("sklearn_advsec"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") and name not in OPERATORS:
                continue
            for wrapped in ("__func__", "fget", "func", "fn"):  # what decorators hide
                member = getattr(member, wrapped, member)
            if inspect.isfunction(member) and "<" not in member.__qualname__:
                functions.append(inspect.unwrap(member))
    return functions


@pytest.mark.parametrize("name", OBJECTS)
def test_signatures_are_typed(name):
    untyped = []
    for function in functions_of(OBJECTS[name]):
        parameters = inspect.signature(function).parameters.values()
        without = [p.name for p in parameters if p.annotation is p.empty]
        without = [p for p in without if p not in ("self", "cls")]
        if "return" not in function.__annotations__:
            without.append("return")
        if function.__code__.co_filename.startswith("<"):  # made by dataclass
            without = []
        untyped += [f"{function.__qualname__}: {p}" for p in without]
    assert untyped == []


@pytest.mark.parametrize("name", OBJECTS)
def test_docstrings_lead_on_and_have_an_example_that_runs(name):
    sections = NumpyDocString(inspect.getdoc(OBJECTS[name]))
    assert sections["See Also"], "no See Also"
    assert ">>> " in "\n".join(sections["Examples"]), "no example"
    assert "+SKIP" not in "\n".join(sections["Examples"])


def test_type_checkers_are_told():
    assert (files("sklearn_advsec") / "py.typed").is_file()
