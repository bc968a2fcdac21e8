"""The README's example is what a new user runs first."""

import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_example_runs_and_shows_what_it_promises():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names = {}
    exec(compile(block, str(README), "exec"), names)
    search = names["search"]
    robust = np.asarray(search.cv_results_["mean_test_robust"])
    trained = np.asarray(search.cv_results_["param_eps"], dtype=float) > 0
    assert search.best_params_["eps"] > 0
    assert robust[trained].min() > robust[~trained].max()
    assert len([line for line in block.splitlines() if line.strip()]) <= 31
