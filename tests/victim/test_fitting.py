"""How victims come in: fitted or not, frozen, bare modules, services of one output."""

import copy
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import skorch
import torch
from nets import net
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from sklearn_advsec import defense, evasion, extraction, privacy
from sklearn_advsec.differentiable import ClassifierView, register
from sklearn_advsec.exceptions import (
    BadAnswerError,
    FittedVictimWarning,
    NoGradientError,
)
from sklearn_advsec.inspection import (
    AdversarialExamplesDisplay,
    RobustnessCurveDisplay,
)
from sklearn_advsec.metrics import robust_accuracy_scorer
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.victim import (
    BinaryScores,
    RegressionVictim,
    as_victim,
    fit_victim,
)

X, y = load_iris(return_X_y=True)
SMALL, SMALL_Y = X[::5], y[::5]
RECORDS = privacy.make_records(X, y)


def _recipe():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


FAMILIES = {
    "evasion": lambda victim: evasion.ProjectedGradientDescent(victim),
    "transfer": lambda victim: evasion.TransferAttack(_recipe(), surrogate=victim),
    "wrapped": lambda victim: evasion.HopSkipJump(
        extraction.LabelsOnly(victim), max_queries=30
    ),
    "extraction": lambda victim: extraction.KnockoffNets(victim, surrogate=_recipe()),
    "served": lambda victim: extraction.RoundedProbabilities(victim),
    "monitored": lambda victim: extraction.PRADADetector(victim),
    "inversion": lambda victim: privacy.ModelInversion(victim, max_iter=3),
    "detector": lambda victim: defense.AdversarialDetector(victim),
    "smoothing": lambda victim: defense.RandomizedSmoothingClassifier(
        victim, n_samples=5, sigma=0.1
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fitted_victim_is_not_trained_anew_without_a_word(family):
    make, fitted = FAMILIES[family], _recipe().fit(X, y)
    with pytest.warns(FittedVictimWarning, match=r"FrozenEstimator\(Pipeline\)"):
        make(fitted).fit(SMALL, SMALL_Y)
    make(_recipe()).fit(SMALL, SMALL_Y)  # nothing to warn of: it would be an error
    make(FrozenEstimator(fitted)).fit(SMALL, SMALL_Y)
    make(clone(fitted)).fit(SMALL, SMALL_Y)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"transfer"}))
def test_without_labels_the_error_says_that_it_is_fitted(family):
    make = FAMILIES[family]
    with pytest.raises(ValueError, match=r"fitted already.*FrozenEstimator\("):
        make(_recipe().fit(X, y)).fit(SMALL)
    with pytest.raises(ValueError, match="requires y to be passed.*trained in fit"):
        make(_recipe()).fit(SMALL)


def test_what_is_meant_to_be_trained_again_is_not_warned_of():
    search = GridSearchCV(LogisticRegression(max_iter=500).fit(X, y), {"C": [1.0]}, cv=2)
    evasion.ProjectedGradientDescent(search).fit(SMALL, SMALL_Y)
    evasion.ProjectedGradientDescent(net(max_epochs=1)).estimator.initialize()
    with pytest.warns(FittedVictimWarning, match="LinearRegression"):
        regressor = RegressionVictim(LinearRegression().fit(X, y))
        fit_victim(regressor, X, y, owner=regressor)


def test_a_fitted_net_is_noticed():
    fitted = net(max_epochs=1).set_params(module__n_features=4, module__n_classes=3)
    fitted.fit(X.astype(np.float32), y.astype(np.int64))
    with pytest.warns(FittedVictimWarning, match="NeuralNetClassifier"):
        defense.RandomizedSmoothingClassifier(fitted, n_samples=5).fit(X, y)


# Bare modules -------------------------------------------------------------------------


def _module():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
    ).train()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_module_is_a_victim(family, frozen):
    module = _module()
    attack = FAMILIES[family](FrozenEstimator(module) if frozen else module)
    if family == "transfer":
        attack.set_params(estimator=module)
    attack.fit(X)
    attack.set_params(**attack.get_params(deep=False))
    clone(attack)
    classes = getattr(attack, "classes_", np.arange(3))
    np.testing.assert_array_equal(classes, [0, 1, 2])
    assert module.training and all(p.grad is None for p in module.parameters())
    if hasattr(attack, "run"):
        result = attack.run(X[:10])
        truth = PretrainedModule(module).predict(result.X_adv)
        np.testing.assert_array_equal(result.y_pred, truth)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_bare_module_leaks_like_any_other_target(frozen):
    module = FrozenEstimator(_module()) if frozen else _module()
    for attack in (
        privacy.LossThreshold(module),
        privacy.GapAttack(module),
        privacy.ModifiedEntropy(module),
    ):
        assert attack.fit(RECORDS).predict(RECORDS).shape == (150,)
    assert as_victim(y) is y


def test_a_victim_without_gradient_is_told_what_works():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import RadiusNeighborsClassifier

    for victim, name in (
        (RandomForestClassifier(3), "TreeExactAttack"),
        (make_pipeline(StandardScaler(), RandomForestClassifier(3)), "TreeExactAttack"),
        (RadiusNeighborsClassifier(5.0), "HopSkipJump"),
    ):
        attack = evasion.ProjectedGradientDescent(victim)
        with pytest.raises(NoGradientError, match=name) as caught:
            attack.fit(X, y)
        assert hasattr(evasion, name) and "Mixin" not in str(caught.value)


# Views are compared with their victims ------------------------------------------------


class Shifted(LogisticRegression):
    """Predicts the next class; its parent's view knows nothing of it."""

    def predict(self, X):
        return (super().predict(X) + 1) % 3


def test_a_view_that_does_not_predict_as_the_victim_is_noticed_in_fit():
    victim = FrozenEstimator(Shifted(max_iter=500).fit(X, y))
    attack = evasion.ProjectedGradientDescent(victim, eps=0.1, max_iter=2)
    with pytest.warns(
        UserWarning, match="view of Shifted predicts 0 for row 0.*itself 1"
    ):
        attack.fit(X)
    result = attack.run(X[:5])
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)

    class Twisted(PretrainedModule):
        def predict(self, X):
            return 2 - super().predict(X)

    @register(Twisted)
    def twisted(estimator):
        return ClassifierView(
            estimator.classes_, logits=estimator.module, dtype=torch.float32,
            module=estimator.module,
        )  # fmt: skip

    with pytest.raises(ValueError, match="view of Twisted predicts"):
        evasion.DeepFool(Twisted(_module().eval().requires_grad_(False))).fit(X)


# One output ---------------------------------------------------------------------------

TWO, TWO_Y = load_breast_cancer(return_X_y=True)
TWO = StandardScaler().fit_transform(TWO)[:, :5]
MODEL = LogisticRegression().fit(TWO, TWO_Y)


class Service:
    """Answers with one score a row, and counts."""

    def __init__(self, shape=(-1,), method="predict_proba"):
        self.shape, self.n_rows = shape, 0
        setattr(self, method, self._score)

    def _score(self, X):
        self.n_rows += len(X)
        return MODEL.predict_proba(X)[:, 1].reshape(self.shape)

    def __deepcopy__(self, memo):
        raise AssertionError("a connection was copied")


@pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_services_of_one_output_are_classifiers(shape, method):
    service = Service(shape, method)
    victim = BinaryScores(service, classes=["benign", "malign"])
    np.testing.assert_allclose(victim.predict_proba(TWO), MODEL.predict_proba(TWO))
    labels = np.array(["benign", "malign"])[MODEL.predict(TWO)]
    np.testing.assert_array_equal(victim.predict(TWO), labels)
    service.n_rows = 0
    attack = evasion.SquareAttack(victim, eps=0.5, max_queries=30).fit(TWO)
    result = clone(attack).fit(TWO).run(TWO[:20], labels[:20])
    assert service.n_rows == result.n_queries.sum() and result.success.any()
    np.testing.assert_array_equal(victim.predict(result.X_adv), result.y_pred)
    thief = extraction.EquationSolving(victim).fit(TWO[:50])
    assert thief.fidelity(TWO) == 1


class OneOutput(RegressorMixin, BaseEstimator):
    """A model that is trained on 0 and 1, and predicts a probability."""

    def fit(self, X, y):
        self.model_ = LogisticRegression().fit(X, y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        return self.model_.predict_proba(X)[:, 1]


def test_models_of_one_output_are_fitted_or_kept():
    names = np.array(["no", "yes"])[TWO_Y]
    victim = BinaryScores(OneOutput(), classes=["no", "yes"]).fit(TWO, names)
    np.testing.assert_array_equal(
        victim.predict(TWO), np.array(["no", "yes"])[MODEL.predict(TWO)]
    )
    assert victim.n_features_in_ == 5 and not hasattr(victim, "feature_names_in_")
    kept = BinaryScores(FrozenEstimator(victim.estimator_), ["no", "yes"])
    evasion.HopSkipJump(kept, max_queries=30).fit(TWO).run(TWO[:2])
    with pytest.warns(FittedVictimWarning):
        BinaryScores(victim.estimator_, ["no", "yes"]).fit(TWO, names)
    with pytest.raises(ValueError, match="fitted already"):
        BinaryScores(victim.estimator_, ["no", "yes"]).fit(TWO)
    with pytest.raises(ValueError, match="y holds"):
        BinaryScores(OneOutput(), classes=[0, 1]).fit(TWO, names)


def test_scores_of_one_output_that_are_no_probabilities():
    class Margin:
        def predict(self, X):
            return MODEL.decision_function(X)

    victim = BinaryScores(Margin(), scores="decision")
    np.testing.assert_array_equal(victim.predict(TWO), MODEL.predict(TWO))
    assert not hasattr(victim, "predict_proba")
    np.testing.assert_allclose(
        victim.decision_function(TWO), MODEL.decision_function(TWO)
    )
    strict = BinaryScores(Margin(), scores="decision", threshold=2.0)
    np.testing.assert_array_equal(
        strict.predict(TWO), (MODEL.decision_function(TWO) > 2).astype(int)
    )
    with pytest.raises(BadAnswerError, match="row 0; .*scores='decision'"):
        BinaryScores(Margin()).predict(TWO)
    with pytest.raises(ValueError, match="two labels"):
        BinaryScores(Margin(), classes=[0, 1, 2]).fit()


def test_what_scores_too_little_is_told_of_the_adapter():
    class Half(LogisticRegression):
        def predict_proba(self, X):
            return super().predict_proba(X)[:, 1]

    victim = FrozenEstimator(Half().fit(TWO, TWO_Y))
    attack = evasion.SquareAttack(victim, max_queries=5).fit(TWO)
    with pytest.raises(BadAnswerError, match="BinaryScores"):
        attack.run(TWO[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evasion.SquareAttack(BinaryScores(victim), max_queries=5).fit(TWO).run(TWO[:3])


def test_bare_modules_are_measured_certified_and_drawn():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
    )
    rng = np.random.default_rng(0)
    X, y = rng.random((20, 4)).astype(np.float32), rng.integers(0, 3, 20)
    attack = evasion.ProjectedGradientDescent(eps=0.1, max_iter=3, bounds=(0, 1))
    wrapped = PretrainedModule(module)
    scorer = robust_accuracy_scorer(attack)
    assert scorer(module, X, y) == scorer(wrapped, X, y)
    np.testing.assert_array_equal(
        defense.certify(module, X, eps=0.01).radius,
        defense.certify(wrapped, X, eps=0.01).radius,
    )
    curve = RobustnessCurveDisplay.from_estimator(
        module, X, y, attack=attack, eps=[0, 0.1]
    )
    assert list(curve.accuracy) == ["Sequential"]
    AdversarialExamplesDisplay.from_estimator(
        module, X[:3], y[:3], attack=attack, image_shape=(2, 2)
    )
    plt.close("all")


def test_a_row_of_an_ensemble_has_no_leaf():
    xgboost = pytest.importorskip("xgboost")
    victim = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(X, y)
    attack = extraction.PathFinding(FrozenEstimator(victim), identity="leaf")
    with pytest.raises(TypeError, match="one leaf per row"):
        attack.fit(X)


def test_the_model_to_keep_is_the_one_inside_of_a_wrapper():
    victim = RegressionVictim(LinearRegression().fit(X, X[:, 0]), delta=0.5)
    with pytest.raises(ValueError, match=r"FrozenEstimator\(LinearRegression\)"):
        evasion.SquareAttack(victim).fit(X)


@pytest.mark.parametrize("module", [nn.Linear(4, 3), nn.Conv1d(4, 3, 1)])
def test_rows_of_another_precision_than_a_network_are_told_of(module):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = copy.deepcopy(module)

        def forward(self, x):
            is_linear = isinstance(self.layer, nn.Linear)
            return self.layer(x) if is_linear else self.layer(x[:, :, None])[:, :, 0]

    frame = pd.DataFrame(X, columns=list("abcd"))
    last = skorch.NeuralNetClassifier(
        Rows, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    )
    attack = evasion.ProjectedGradientDescent(make_pipeline(StandardScaler(), last))
    cure = make_pipeline(StandardScaler(), FunctionTransformer(np.float32), last)
    for rows in (frame, X):
        with pytest.raises(TypeError, match=r"another precision .* float32"):
            attack.fit(rows, y)
        fitted = clone(attack).set_params(estimator=cure).fit(rows, y)
        assert len(fitted.run(rows[::10], y[::10])) == 15
    # Also where it was trained on others than it is asked about.
    victim = FrozenEstimator(attack.estimator.fit(frame.astype(np.float32), y))
    attack = evasion.SquareAttack(victim, eps=0.1)
    with pytest.raises(TypeError, match=r"another precision .* float32"):
        attack.fit(frame).run(frame)
