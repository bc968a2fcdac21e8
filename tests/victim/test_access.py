import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from nets import CNN, MLP, net
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import differentiable
from sklearn_advsec.evasion import ProjectedGradientDescent
from sklearn_advsec.evasion._goal import Goal
from sklearn_advsec.exceptions import (
    BadAnswerError,
    NoGradientError,
    QueryBudgetExceeded,
)
from sklearn_advsec.extraction import (
    ReverseSigmoid,
    RoundedProbabilities,
    TopKProbabilities,
)
from sklearn_advsec.pretrained import PretrainedModule
from sklearn_advsec.victim import (
    GradientAccess,
    LabelAccess,
    RegressionVictim,
    ScoreAccess,
    _access,
    _hardware,
    ask_labels,
    ask_scores,
)
from sklearn_advsec.victim._forests import quick_answers

X, y = load_iris(return_X_y=True)


class Counting(LogisticRegression):
    """Counts the rows it sees, and refuses to say more than labels if told so."""

    seen = 0

    def predict(self, X):
        type(self).seen += len(X)
        return super().predict(X)

    def predict_proba(self, X):
        raise AssertionError("a label-only attacker asked for probabilities")

    decision_function = LogisticRegression.decision_function


@pytest.fixture(scope="module")
def victim():
    return LogisticRegression(max_iter=1000).fit(X, y)


def test_label_access_asks_for_labels_only_and_counts_what_the_victim_saw():
    Counting.seen = 0
    access = LabelAccess(Counting(max_iter=1000).fit(X, y), X[:10], max_queries=5)
    rows = torch.tensor([3, 3, 7])
    labels = access.predict(access.x[rows], rows)
    np.testing.assert_array_equal(labels, [0, 0, 0])
    access.predict(access.x)
    assert Counting.seen == access.n_total_queries == 13
    assert access.n_queries.tolist() == [1, 1, 1, 3, 1, 1, 1, 2, 1, 1]
    assert access.affordable() == 2 and access.affordable(torch.tensor([0])) == 4


@pytest.mark.parametrize("cap", ["max_queries", "max_total_queries"])
def test_budget_is_refused_before_a_row_is_sent(cap):
    Counting.seen = 0
    victim = Counting(max_iter=1000).fit(X, y)
    limit = {"max_queries": 2, "max_total_queries": 25}[cap]
    access = LabelAccess(victim, X[:10], **{cap: limit})
    access.predict(access.x)
    access.predict(access.x)
    with pytest.raises(QueryBudgetExceeded, match=cap):
        access.predict(access.x)
    assert Counting.seen == access.n_total_queries == 20


def test_scores_are_those_of_the_victim(victim):
    access = ScoreAccess(victim, X)
    np.testing.assert_allclose(access.scores(access.x), victim.predict_proba(X))
    margin = LinearSVC().fit(X, y)
    access = ScoreAccess(margin, X)
    assert not access.probability
    np.testing.assert_allclose(access.scores(access.x), margin.decision_function(X))
    two = LinearSVC().fit(X[:100], y[:100])
    scores = ScoreAccess(two, X[:5]).scores(torch.as_tensor(X[:5]))
    np.testing.assert_allclose(scores[:, 1], two.decision_function(X[:5]))
    assert (scores[:, 0] == 0).all()


def test_gradient_is_that_of_the_loss(victim):
    access = GradientAccess(victim, X[:20], batch_size=7)

    def loss(logits, at):
        return torch.nn.functional.cross_entropy(
            logits, torch.as_tensor(y[:20][at]), reduction="none"
        )

    logits, gradient = access.gradient(access.x, None, loss)
    np.testing.assert_allclose(logits, victim.decision_function(X[:20]), rtol=1e-6)
    # d CE / dx = (p - onehot) W for a softmax of linear scores
    error = victim.predict_proba(X[:20]) - np.eye(3)[y[:20]]
    np.testing.assert_allclose(gradient, error @ victim.coef_, rtol=1e-6, atol=1e-9)
    assert access.n_queries.tolist() == [1] * 20


def test_network_in_training_mode_stays_bit_identical():
    torch.manual_seed(0)
    module = CNN()
    module.train()
    images = torch.rand(12, 1, 8, 8).numpy()
    before = joblib.hash(module.state_dict())
    access = GradientAccess(PretrainedModule(module), images)
    assert access.dtype == torch.float32
    logits, _ = access.gradient(access.x, None, lambda logits, at: logits[:, 0])
    access.predict(access.x)
    assert joblib.hash(module.state_dict()) == before
    assert all(layer.training for layer in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    # and it was the network in evaluation mode that answered
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(torch.as_tensor(images)), logits)


def test_decode_restores_a_dataframe_to_the_last_bit():
    frame = pd.DataFrame(
        {
            "f64": [0.1, 0.2, 0.3],
            "f32": np.array([0.1, 0.2, 0.3], dtype=np.float32),
            "int": [1, 2, 3],
            "text": ["a", None, "b"],
            "category": pd.Categorical(["u", "v", "u"]),
            "flag": [True, False, True],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "when": pd.date_range("2020-01-01", periods=3),
        },
        index=[10, 20, 30],
    )

    class Constant(LogisticRegression):
        classes_ = np.array([0, 1])

        def __sklearn_is_fitted__(self):
            return True

        def predict(self, X):
            self.X_ = X
            return np.zeros(len(X), dtype=int)

        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.allow_nan = True
            return tags

    victim = Constant()
    access = LabelAccess(victim, frame)
    np.testing.assert_array_equal(
        access.codec.mutable, [True, True, True, False, False, False, True, False]
    )
    access.predict(access.x)
    pd.testing.assert_frame_equal(victim.X_, frame)
    moved = access.x.clone()
    moved[:, 2] += torch.tensor([0.4, 0.6, -1.7])  # integers are rounded towards x
    rows = torch.tensor([2, 0])
    access.predict(moved[rows], rows)
    assert victim.X_.index.tolist() == [30, 10]
    assert victim.X_["int"].tolist() == [2, 1]
    assert victim.X_.dtypes.equals(frame.dtypes)


def test_names_for_a_victim_that_was_fitted_on_a_dataframe():
    frame = pd.DataFrame(X, columns=list("abcd"))
    victim = LogisticRegression(max_iter=1000).fit(frame, y)
    access = LabelAccess(victim, X)  # a warning about names would be an error
    np.testing.assert_array_equal(access.predict(access.x), victim.predict(frame))


def test_skorch_net_is_asked_as_tensors():
    X32 = X.astype(np.float32)
    victim = net(max_epochs=5).set_params(module__n_features=4, module__n_classes=3)
    victim.fit(X32, y.astype(np.int64))
    access = ScoreAccess(victim, X32)
    assert access.exact
    np.testing.assert_allclose(
        access.scores(access.x), victim.predict_proba(X32), atol=1e-6
    )


def test_scores_that_do_not_fit_the_classes_are_refused():
    wide = net(max_epochs=1).set_params(module__n_features=4, module__n_classes=5)
    wide.fit(X.astype(np.float32), y.astype(np.int64))
    pairs = SVC(decision_function_shape="ovo")
    digits = load_digits()
    pairs.fit(digits.data, digits.target)
    for victim, rows in ((wide, X.astype(np.float32)), (pairs, digits.data)):
        access = ScoreAccess(victim, rows)
        with pytest.raises(ValueError, match="scores for the classes"):
            access.scores(access.x)


@pytest.mark.gpu
def test_network_on_a_gpu_is_asked_there():
    module = MLP(4, 3).cuda()
    access = GradientAccess(PretrainedModule(module), X.astype(np.float32))
    assert access.x.is_cuda
    logits, gradient = access.gradient(access.x, None, lambda logits, at: logits[:, 0])
    assert logits.is_cuda and gradient.is_cuda


@pytest.mark.gpu
def test_the_last_gpu_is_as_good_as_the_first():
    device = f"cuda:{torch.cuda.device_count() - 1}"
    module = MLP(4, 3).to(device)
    attack = ProjectedGradientDescent(PretrainedModule(module), bounds=(0, 8))
    result = attack.fit(X.astype(np.float32)).run(X.astype(np.float32))
    assert len(result) == len(X)
    access = GradientAccess(PretrainedModule(module), X.astype(np.float32))
    assert access.x.device == torch.device(device)


@pytest.mark.gpu
def test_gradients_do_not_wait_for_the_gpu():
    module = MLP(4, 3).cuda()
    access = GradientAccess(PretrainedModule(module), X.astype(np.float32))
    rows = torch.arange(len(X), device="cuda")
    goal = Goal("misclassification", torch.zeros_like(rows))
    access.gradient(access.x, rows, goal.objective)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            access.gradient(access.x, rows, goal.objective)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (access.n_queries == 4).all()


def test_rows_that_change_are_counted_anew(victim):
    access = ScoreAccess(victim, X[:4], max_queries=3)
    rows = torch.tensor([0, 1, 1])
    access.scores(access.x[rows], rows)
    rows[0] = 3  # the same tensor, of other rows
    assert access.affordable(rows) == 1
    assert access.affordable(torch.tensor([0, 2])) == 2
    access.n_queries[2] += 3  # as attacks that are made of others do
    assert access.affordable(torch.tensor([2])) == 0
    assert access.n_queries.tolist() == [1, 2, 3, 0]
    with pytest.raises(QueryBudgetExceeded):
        access.scores(access.x[rows], rows)
    assert access.n_queries.tolist() == [1, 2, 3, 0]


def test_queries_that_are_counted_on_the_device_are_in_the_count(victim, monkeypatch):
    monkeypatch.setattr(_access, "_on_gpu", lambda rows: rows is not None)
    access, told = ScoreAccess(victim, X[:4]), []
    access.on_query = lambda: told.append(1)
    rows = torch.tensor([0, 1, 1])
    for _ in range(2):
        access.scores(access.x[rows], rows)
    access.scores(access.x)
    access.scores(access.x[rows], rows)
    assert access.n_queries.tolist() == [4, 7, 1, 1]
    assert access.n_total_queries == 13 and len(told) == 4


def test_automatic_batches_fill_a_large_card(monkeypatch):
    view = differentiable.view(PretrainedModule(MLP(4, 3)))
    row = torch.zeros(1, 4)
    each = _hardware._bytes_per_row(view, row)
    assert _hardware.auto_batch_size(view, row) == min(2**24 // each, 2048)
    monkeypatch.setattr(_hardware, "_is_gpu", lambda device: True)
    for free in (2**16, 2**20, 2**37):
        monkeypatch.setattr(_hardware, "_free_bytes", lambda device, free=free: free)
        size = _hardware.auto_batch_size(view, row)
        assert size == max(min(free // 4 // each, 2**16), 16)


def test_bad_victims(victim):
    with pytest.raises(NotFittedError):
        LabelAccess(LogisticRegression(), X)
    with pytest.raises(TypeError, match="regressor"):
        LabelAccess(LinearRegression().fit(X, y), X)
    with pytest.raises(TypeError, match="PretrainedModule"):
        LabelAccess(MLP(), X)
    with pytest.raises(NoGradientError, match="RandomForestClassifier.*TreeExactAttack"):
        GradientAccess(RandomForestClassifier(n_estimators=2).fit(X, y), X)
    with pytest.raises(ValueError, match="NaN"):
        access = LabelAccess(victim, np.full((2, 4), np.nan))
        access.predict(access.x)
    with pytest.raises(ValueError, match="one class"):
        LabelAccess(RandomForestClassifier(n_estimators=2).fit(X[:9], y[:9]), X)
    with pytest.raises(ValueError, match="several"):
        Y = np.c_[y, y]
        LabelAccess(RandomForestClassifier(n_estimators=2).fit(X, Y), X)


@pytest.mark.parametrize("labels", ["numbers", "text"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_a_forest_is_asked_through_its_trees_and_answers_the_same(kind, missing, labels):
    data, classes = X.copy(), y if labels == "numbers" else np.array(["a", "b", "c"])[y]
    if missing:  # the forest's own checks say what becomes of them
        data[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    forest = kind(n_estimators=30, max_depth=5, random_state=0)
    scaled = make_pipeline(StandardScaler(), make_pipeline("passthrough", forest))
    frame = pd.DataFrame(data, columns=list("abcd"))
    for victim, rows in [(forest, data), (scaled, data), (scaled, frame)]:
        victim = FrozenEstimator(clone(victim).fit(rows, classes))
        quick, proba = quick_answers(victim), victim.predict_proba(rows)
        assert quick is not victim
        np.testing.assert_array_equal(quick.predict_proba(rows), proba)
        np.testing.assert_array_equal(quick.predict(rows), victim.predict(rows))
        access = ScoreAccess(victim, rows)
        np.testing.assert_array_equal(access.scores(access.x), proba)


def test_other_victims_answer_for_themselves():
    class Forest(RandomForestClassifier):
        def predict_proba(self, X):
            return 1 - super().predict_proba(X)

    for victim in (Forest(5), LogisticRegression(), DecisionTreeClassifier()):
        victim = make_pipeline(StandardScaler(), victim).fit(X, y)
        assert quick_answers(victim) is victim
    forest = quick_answers(RandomForestClassifier(5, random_state=0).fit(X, y))
    with pytest.raises(ValueError, match="infinity"):
        forest.predict_proba(np.full((1, 4), np.inf))
    with pytest.raises(ValueError, match="features"):
        forest.predict_proba(X[:, :3])


class Says(DecisionTreeClassifier):
    """Answers well, and then changes its answer."""

    change = staticmethod(lambda answer: answer)

    def predict(self, X):
        return self.change(super().predict(X))

    def predict_proba(self, X):
        return self.change(super().predict_proba(X))


def _put(value, row=2):
    def change(answer):
        answer = np.array(answer, dtype=float)
        answer[row] = value
        return answer

    return change


BAD_SCORES = {
    "nan": (_put(np.nan), r"predict_proba returned .* for row 2; .*finite"),
    "infinite": (_put([np.inf, 0, 0]), "row 2; .*finite"),
    "negative": (_put([1.2, -0.2, 0]), "row 2; .*between 0 and 1"),
    "sum": (_put([0.2, 0.2, 0.2]), "row 2; .*sum to 1"),
    "sum_above": (_put([1.0, 1.0, 0.0]), "row 2; .*sum to 1"),
    "one_dimension": (lambda a: a[:, 0], "shape .*BinaryScores"),
    "narrow": (lambda a: a[:, :2], "2 scores for the classes"),
    "short": (lambda a: a[:-1], "returned 9 answers for 10 rows"),
    "long": (lambda a: np.r_[a, a[:1]], "returned 11 answers for 10 rows"),
    "none": (lambda a: None, "returned None for 10 rows"),
    "text": (lambda a: "busy", "returned 'busy' for 10 rows"),
    "ragged": (lambda a: [list(a[0]), *a[1:, :2].tolist()], "different lengths"),
    "text_inside": (
        lambda a: [["?"] * 3 if i == 2 else list(row) for i, row in enumerate(a)],
        "row 2; that is no number",
    ),
}
BAD_LABELS = {
    "nan": (_put(np.nan), "predict returned nan for row 2; its classes_ are"),
    "unknown": (_put(7), r"returned 7.0 for row 2; its classes_ are \[0, 1, 2\]"),
    "none_inside": (
        lambda a: np.array([None if i == 2 else v for i, v in enumerate(a)]),
        "returned None for row 2",
    ),
    "one_hot": (lambda a: np.eye(3)[a], r"shape \(10, 3\)"),
    "short": (lambda a: a[:-1], "returned 9 answers for 10 rows"),
    "none": (lambda a: None, "returned None for 10 rows"),
    "text": (lambda a: "busy", "returned 'busy' for 10 rows"),
}


def _saying(change):
    victim = Says(random_state=0).fit(X, y)
    victim.change = change
    return FrozenEstimator(victim)


@pytest.mark.parametrize("kind", BAD_SCORES)
def test_bad_scores_are_refused_at_the_door(kind):
    change, match = BAD_SCORES[kind]
    access = ScoreAccess(_saying(change), X[:10])
    with pytest.raises(BadAnswerError, match=match) as caught:
        access.scores(access.x)
    assert "Says" in str(caught.value)
    assert caught.value.rows is None or caught.value.rows.tolist() == [2]
    if kind not in ("narrow", "one_dimension"):
        with pytest.raises(BadAnswerError, match=match):
            ask_scores(_saying(change), X[:10])


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels_are_refused_at_the_door(kind):
    change, match = BAD_LABELS[kind]
    access = LabelAccess(_saying(change), X[:10])
    with pytest.raises(BadAnswerError, match=match) as caught:
        access.predict(access.x)
    assert "Says" in str(caught.value)
    with pytest.raises(BadAnswerError, match=match):
        ask_labels(_saying(change), X[:10])


def test_a_bad_answer_is_named_by_the_row_under_attack():
    access = LabelAccess(_saying(_put(np.nan, 0)), X[:10])
    with pytest.raises(BadAnswerError, match="row 7") as caught:
        access.predict(access.x[[7, 3]], torch.tensor([7, 3]))
    assert caught.value.rows.tolist() == [7]


def test_rows_with_bad_answers_can_be_left_out_and_are_named():
    for change in (_put(np.nan), _put([7, 7, 7])):
        access = ScoreAccess(_saying(change), X[:10], on_bad_answer="skip")
        scores = access.scores(access.x)
        assert access.skipped.nonzero()[0].tolist() == [2]
        good = ~access.skipped
        np.testing.assert_array_equal(scores[good], np.eye(3)[y[:10][good]])
        assert scores.isfinite().all()
    labels = LabelAccess(_saying(_put(7)), X[:10], on_bad_answer="skip")
    assert labels.predict(labels.x).shape == (10,) and labels.skipped[2]
    short = LabelAccess(_saying(lambda a: a[:-1]), X[:10], on_bad_answer="skip")
    with pytest.raises(BadAnswerError, match="9 answers"):  # of which rows, nobody knows
        short.predict(short.x)


def test_networks_that_answer_nan_are_refused():
    module = torch.nn.Linear(4, 3)
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    access = GradientAccess(PretrainedModule(module), X[:5].astype(np.float32))
    for ask in (access.predict, access.scores, access.logits):
        with pytest.raises(BadAnswerError, match="row 0.*4 more rows"):
            ask(access.x)
    with pytest.raises(BadAnswerError, match="row 3"):
        access.gradient(access.x[3:4], torch.tensor([3]), lambda logits, at: logits[:, 0])


def test_what_services_may_answer_passes():
    column = LabelAccess(_saying(lambda a: a[:, None]), X[:10])  # as CatBoost does
    np.testing.assert_array_equal(column.predict(column.x), y[:10])
    soft = FrozenEstimator(LogisticRegression(max_iter=1000).fit(X, y))
    for served in (
        RoundedProbabilities(soft, decimals=1),
        RoundedProbabilities(soft, decimals=0),
        TopKProbabilities(soft, k=1),
        ReverseSigmoid(soft),
    ):
        access = ScoreAccess(served.fit(X, y), X)
        np.testing.assert_allclose(access.scores(access.x), served.predict_proba(X))
    for dtype in (np.float32, object):
        half = _saying(lambda a, dtype=dtype: np.asarray(a).astype(dtype))
        access = ScoreAccess(half, X)
        np.testing.assert_array_equal(access.scores(access.x), np.eye(3)[y])


def test_every_access_says_which_rows_are_allowed(victim):
    access = GradientAccess(victim, X[:5])
    assert access.region is None and access.unit == 1
    assert access.still_valid(access.x, torch.arange(5)).all()


def test_a_regressor_answers_with_how_far_it_moved():
    frozen = RegressionVictim(FrozenEstimator(LinearRegression().fit(X, y)), delta=0.5)
    frozen.fit(X, y)
    access = GradientAccess(frozen, X[:6])
    assert access.refer(None).tolist() == [1] * 6
    before = frozen.predict(X[:6])
    slope = torch.as_tensor(frozen.estimator_.coef_)
    moved = access.x + 0.7 * slope / (slope @ slope)  # the prediction moves by 0.7
    np.testing.assert_allclose(access.scores(moved)[:, 2], 0.4, rtol=1e-6)
    np.testing.assert_allclose(access.logits(moved), access.scores(moved), rtol=1e-6)
    assert access.predict(moved).tolist() == [2] * 6
    assert access.n_queries.tolist() == [5] * 6
    rows = torch.arange(6)
    np.testing.assert_allclose(access.predictions(None, moved, rows), before + 0.7)


@pytest.mark.parametrize("kind", ["int64", "uint64", "Int64", "array"])
def test_whole_numbers_that_no_float_holds_stay_what_they_are(kind):
    number = 2**60 + np.arange(20)
    X = pd.DataFrame({"id": number, "a": np.linspace(0, 1, 20)})
    if kind == "array":
        X = np.column_stack([number, np.arange(20)])
    else:
        X = X.astype({"id": kind})
        X.loc[3, "id"] = pd.NA if kind == "Int64" else X.loc[4, "id"]
    model = DecisionTreeClassifier(random_state=0).fit(X, np.arange(20) > 9)
    access = LabelAccess(model, X)
    rows = torch.tensor([5, 3, 1])
    x = access.x[rows].clone()
    x[:, 1] += 2
    sent = pd.DataFrame(access.decode(x, rows))
    own = pd.DataFrame(X).iloc[[5, 3, 1]]
    assert sent.iloc[:, 0].tolist() == own.iloc[:, 0].tolist()
    assert (sent.iloc[:, 1].to_numpy() == own.iloc[:, 1].to_numpy() + 2).all()
    if kind != "array":
        assert (sent.dtypes == own.dtypes).all()
    if kind == "Int64":
        LabelAccess(model, X.assign(id=pd.array([pd.NA] * 20, dtype="Int64")))
