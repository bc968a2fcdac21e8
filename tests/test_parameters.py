"""One name has one meaning and one default, or a reason."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"

# Names that mean what another one means already.
SYNONYMS = {
    "false_positive_rate": "fpr",
    "learning_rate_init": "learning_rate",
    "lr": "learning_rate",
    "max_fpr": "fpr",
    "nb_iter": "max_iter",
    "n_iter": "max_iter",
    "popsize": "population",
    "population_size": "population",
    "query_budget": "max_queries",
    "seed": "random_state",
    "victim": "estimator",
}

DEFAULTS = {
    "constraints": None,
    "eps_unit": "feature",
    "goal": "misclassification",
    "image_shape": None,
    "label_column": -1,
    "mask": None,
    "max_total_queries": None,
    "n_jobs": None,
    "target": None,
    "verbose": 0,
    "warm_start": False,
}

# Attacks are deterministic by default; what trains a model, or draws training data, is
# as scikit-learn's models are.
TRAINED = "defense", "poisoning"
ALSO_ZERO = {
    "AdversarialDetector": "its threshold is a measurement",
    "FeatureNoise": "predictions draw",
    "MagNet": "its thresholds are measurements",
    "RandomDepthwiseSignedClassifier": "its filters are fixed, as a published model's",
    "RandomizedSmoothingClassifier": "predictions draw",
}
ALSO_NONE = {"DPSGDClassifier": "a model that is trained"}


@pytest.fixture(scope="module")
def parameters():
    spec = importlib.util.spec_from_file_location("api", DOCS / "api_reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert "`max_queries`" in reference.parameter_table()
    return list(reference.constructor_parameters())


def test_one_name_for_one_meaning(parameters):
    names = {parameter for _, parameter, _ in parameters}
    assert {name: SYNONYMS[name] for name in names & set(SYNONYMS)} == {}


def test_one_default_for_one_name(parameters):
    differ = {
        (name, parameter): default
        for name, parameter, default in parameters
        if parameter in DEFAULTS and default != DEFAULTS[parameter]
    }
    # Poison is for one row, or for one item of a recommender.
    assert {
        key: default
        for key, default in differ.items()
        if not (key[1] in ("goal", "target") and ".poisoning." in key[0])
    } == {}


def test_attacks_are_deterministic_by_default(parameters):
    for name, parameter, default in parameters:
        if parameter == "random_state":
            _, family, short = name.split(".")
            trained = (family in TRAINED or short in ALSO_NONE) and short not in ALSO_ZERO
            assert default == (None if trained else 0), name
