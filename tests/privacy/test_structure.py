"""What is seen without an attack: cells, groups, parameters, and rows inside."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.privacy import stored_rows, structural_checks

X, Y = load_breast_cancer(return_X_y=True)
X, Y = X[:120], Y[:120]


def rows_inside(model, data=X, y=Y):
    found = [f for f in stored_rows(model, data, y) if f.holds == "rows"]
    return {f.path: f.rows for f in found}


def with_closure(table):
    return FunctionTransformer(lambda rows: rows - table.mean(axis=0))


def centre(rows, table):
    return rows - np.mean(table, axis=0)


def test_support_vectors_are_named_row_by_row():
    model = make_pipeline(StandardScaler(), SVC()).fit(X, Y)
    ((path, rows),) = rows_inside(FrozenEstimator(model)).items()
    assert path == ".steps[1][1].support_vectors_"
    np.testing.assert_array_equal(rows, np.sort(model[-1].support_))


@pytest.mark.parametrize(
    ("model", "n_inside"),
    [
        (KNeighborsClassifier(algorithm="kd_tree"), 120),
        (GaussianProcessClassifier(), 120),
        (make_pipeline(StandardScaler(), Nystroem(n_components=7), Ridge()), 7),
        (make_pipeline(StandardScaler(), RBFSampler(n_components=7), Ridge()), 0),
        (make_pipeline(with_closure(X[5:25]), LogisticRegression()), 20),
        (
            make_pipeline(
                FunctionTransformer(functools.partial(centre, table=X[:9].tolist())),
                LogisticRegression(),
            ),
            9,
        ),
        (RandomForestClassifier(5, random_state=0), 0),
        (make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=3)), 0),
        (LogisticRegression(), 0),
        (BaggingClassifier(SVC(), 2, random_state=0), None),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_models_that_keep_rows(model, n_inside):
    found = rows_inside(model.fit(X, Y))
    inside = np.unique(np.concatenate([[], *found.values()]))
    if n_inside is None:
        assert 0 < len(inside) < len(X)
        assert len(found) == 2
    else:
        assert len(inside) == n_inside


def test_arrays_with_an_entry_for_each_row():
    forest = RandomForestClassifier(30, oob_score=True, random_state=0).fit(X, Y)
    (found,) = stored_rows(forest, X, Y)
    assert (found.path, found.holds) == (".oob_decision_function_", "one entry a row")
    neighbours = KNeighborsClassifier(algorithm="brute").fit(X, Y)
    assert [f.holds for f in stored_rows(neighbours, X, Y)] == ["labels", "rows"]
    stump = DecisionTreeClassifier(max_depth=1).fit(X, Y)
    stump.seen_ = X[:, 3].copy()
    assert [f.holds for f in stored_rows(stump, X, Y)] == ["column"]


def test_a_network_that_keeps_its_data():
    pytest.importorskip("skorch")
    from nets import net
    from skorch.dataset import Dataset
    from skorch.helper import predefined_split

    data, y = X.astype(np.float32), Y.astype(np.int64)
    kept = Dataset(data[:40], y[:40])
    model = net(max_epochs=1, module__n_features=30, module__n_classes=2)
    model.set_params(train_split=predefined_split(kept)).fit(data, y)
    assert {len(rows) for rows in rows_inside(model, data, y).values()} == {40}
    model.spare_ = torch.as_tensor(data[50:53])
    assert [3] == [len(r) for p, r in rows_inside(model, data, y).items() if "spare" in p]


def test_rows_behind_a_column_transformer_of_a_frame():
    frame = pd.DataFrame(X[:, :3], columns=list("abc"))
    frame["town"] = np.array(["Ulm", "Bern", "Graz"])[np.arange(len(X)) % 3]
    encode = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["town"]), remainder=StandardScaler()
    )
    model = make_pipeline(encode, KNeighborsClassifier()).fit(frame, Y)
    assert {len(rows) for rows in rows_inside(model, frame).values()} == {len(X)}
    model.copy_ = frame.iloc[:6]
    assert rows_inside(model, frame)[".copy_"].tolist() == list(range(6))


def test_cells_are_counted_as_in_a_table():
    data = np.repeat(np.arange(4), [2, 12, 20, 30])[:, np.newaxis].astype(float)
    y = np.concatenate([[1, 1], np.arange(12) % 2, np.arange(20) < 3, np.zeros(30)])
    tree = DecisionTreeClassifier().fit(data, y)
    report = structural_checks(tree, data, y)
    np.testing.assert_array_equal(
        report.cell_size, np.repeat([2, 12, 20, 30], [2, 12, 20, 30])
    )
    np.testing.assert_array_equal(report.leaf_size, report.cell_size)
    np.testing.assert_array_equal(
        report.discloses_class,
        np.isin(data[:, 0], [0, 3]),  # nobody has the other class
    )
    assert report.smallest_group == pytest.approx(2)
    np.testing.assert_array_equal(report.in_small_group, data[:, 0] < 3)
    assert report.n_parameters == 2 * 3 + 4
    assert report.degrees_of_freedom == 64 - 10
    fails = {check["check"]: check["fails"] for check in report.checks()}
    assert fails["training rows in the smallest cell"]
    assert fails["residual degrees of freedom"] is False


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LogisticRegression(), 31),
        (MLPClassifier((4,), max_iter=2), 30 * 4 + 4 + 4 + 1),
        (SVC(), None),
        (GradientBoostingRegressor(n_estimators=2, max_depth=1), 2 * 4),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_parameters_are_counted_or_are_not_known(model, expected):
    report = structural_checks(model.fit(X, Y), X, Y)
    assert report.n_parameters == expected
    assert (report.degrees_of_freedom is None) == (expected is None)


def test_sound_models_fail_nothing_of_the_counts():
    tree = DecisionTreeClassifier(max_depth=1, min_samples_leaf=40).fit(X, Y)
    report = structural_checks(tree, X, Y, min_count=2)
    failed = [check["check"] for check in report.checks() if check["fails"]]
    assert set(failed) <= {"training rows in cells without some class"}
