"""Bad input is refused by name, or works rightly: a sample of generated cases.

`make test-fuzz` runs more of them: FUZZ_CASES says how many, FUZZ_SEED which.
"""

import os

import pytest
from fuzz.cases import sample
from fuzz.judge import fault

N_CASES = int(os.environ.get("FUZZ_CASES", 500))
SEED = int(os.environ.get("FUZZ_SEED", 0))


@pytest.mark.parametrize("case", sample(N_CASES, SEED), ids=str)
def test_bad_input_is_refused_by_name_or_works(case):
    assert fault(case) is None
