"""The README's examples are what a new user runs first."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("at", range(2))
def test_the_examples_run_and_show_what_they_promise(at, capsys):
    assert len(BLOCKS) == 2
    assert len([line for line in BLOCKS[at].splitlines() if line.strip()]) <= 25
    names = {}
    exec(compile(BLOCKS[at], str(README), "exec"), names)
    clean = re.search(r"clean_accuracy=(0\.\d+)", capsys.readouterr().out)
    assert float(clean[1]) > 0.8
    if at == 0:
        assert names["result"].robust_accuracy < 0.2
        assert names["result"].unit == "scale"


def test_all_families_have_a_line_and_pictures_are_there():
    text = README.read_text()
    for family in "audit defense encryption evasion extraction poisoning privacy".split():
        assert f"| `{family}` |" in text
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (README.parent / picture).exists(), picture


def test_what_is_said_of_more_machines_runs():
    """But for the cluster: the names are there, and the calls take these arguments."""
    blocks = re.findall(r"```text\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block, backend in zip(blocks, ("dask", "ray"), strict=True):
        assert f'parallel_config(backend="{backend}"' in block
        compile(block, str(README), "exec")
