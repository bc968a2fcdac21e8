"""Bad input is refused by name, or works rightly: a sample of generated cases.

`make test-fuzz` runs more of them: FUZZ_CASES says how many, FUZZ_SEED which.
"""

import os

import pytest
from fuzz.cases import all_cases, sample
from fuzz.judge import fault

N_CASES = int(os.environ.get("FUZZ_CASES", 500))
SEED = int(os.environ.get("FUZZ_SEED", 0))

# What a run of all cases found when it was first made.
FAILED_ONCE = {
    "DeepFool-parameter-max_iter-numpy integer",
    "DiscretizedMLPClassifier-parameter-batch_size-numpy integer",
    "MagNet-parameter-temperatures-ragged",
    "PathFinding-score-y-objects",
    "PropertyInference-fit-X-frame of other names",
    "QuantileMembership-parameter-fpr-tiny",
    "TreeExactAttack-transform-X-too large for float32",
    "constraints_sample-given-X_ref-no rows",
    "inside-given-X-complex",
    "inside-given-X-infinite",
    "inside-given-X-masked",
    "inside-given-X-text",
    "inside-given-y-infinite",
    "inside-given-y-objects",
    "privacy_audit-function-attacks-ragged",
    "privacy_audit-function-level-tiny",
    "privacy_audit-function-quasi_identifiers-equal pair",
    "privacy_audit-function-quasi_identifiers-ragged",
    "privacy_audit-function-quasi_identifiers-reversed pair",
    "structure-given-y-table",
}


@pytest.mark.parametrize("case", sample(N_CASES, SEED), ids=str)
def test_bad_input_is_refused_by_name_or_works(case):
    assert fault(case) is None


@pytest.mark.parametrize("name", sorted(FAILED_ONCE))
def test_what_failed_once(name):
    (case,) = (case for case in all_cases() if str(case) == name)
    assert fault(case) is None
