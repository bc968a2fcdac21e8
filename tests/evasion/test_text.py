"""Substitution of words in documents; other attacks say what to do with these."""

import itertools
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from registry import EVASION
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import (
    CountVectorizer,
    HashingVectorizer,
    TfidfVectorizer,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_validate
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec._estimators import name_of
from sklearn_advsec.evasion import TextSubstitution
from sklearn_advsec.exceptions import QueryBudgetExceeded
from sklearn_advsec.metrics import robust_accuracy_scorer
from sklearn_advsec.victim import RegressionVictim

SPAM = "win cash prize free urgent offer click claim".split()
HAM = "lunch meeting notes project thanks weather monday report".split()
OTHER = "the a of to and now please with".split()
CHOICES = {
    "win": ["get", "receive"],
    "cash": ["money", ""],
    "free": ["at no cost", "complimentary", "report"],
    "urgent": ["", "important"],
    "lunch": ["meal"],
    "meeting": ["call", "offer"],
    "thanks": [""],
    "notes": ["records"],
}


def _mails(n, seed=0):
    """Return mails of words that tell spam from ham, some of them written large."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    mails = []
    for label in y:
        own, other = (SPAM, HAM) if label else (HAM, SPAM)
        words = [*rng.choice(own, 4), *rng.choice(other, 1), *rng.choice(OTHER, 4)]
        rng.shuffle(words)
        mails.append(f"{' '.join(words).capitalize()}!")
    return mails, np.where(y, "spam", "ham")


MAILS, y = _mails(80)
NEW, y_new = _mails(12, seed=1)
VICTIMS = {
    "tfidf": make_pipeline(TfidfVectorizer(), LogisticRegression()),
    "hashing": make_pipeline(HashingVectorizer(n_features=256), LogisticRegression()),
    "decision": make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC()),
    "characters": make_pipeline(CountVectorizer(analyzer="char_wb"), MultinomialNB()),
    "tree": make_pipeline(CountVectorizer(), DecisionTreeClassifier(random_state=0)),
}
VICTIM = clone(VICTIMS["tfidf"]).fit(MAILS, y)


def attack(victim=VICTIM, choices=CHOICES, **parameters):
    return TextSubstitution(FrozenEstimator(victim), choices, **parameters).fit(MAILS)


def versions(mail, choices=CHOICES):
    """Yield all documents that the list allows, with the number of words changed."""
    words = mail.removesuffix("!").split()
    options = [[None, *choices.get(word.lower(), [])] for word in words]
    for chosen in itertools.product(*options):
        new = [w if c is None else c for w, c in zip(words, chosen, strict=True)]
        text = " ".join(word for word in new if word)
        yield f"{text}!", sum(c is not None for c in chosen)


@pytest.mark.parametrize("name", VICTIMS)
def test_documents_are_what_the_list_allows_and_what_the_victim_says(name):
    victim = clone(VICTIMS[name]).fit(MAILS, y)
    result = attack(victim).run(NEW)
    before, after = victim.predict(NEW), victim.predict(result.X_adv)
    np.testing.assert_array_equal(result.y_pred, after)
    np.testing.assert_array_equal(result.success, after != before)
    assert result.success.any()
    for mail, found, n, changes in zip(
        NEW, result.X_adv, result.distance, result.changes, strict=True
    ):
        assert (found, n) in set(versions(mail)) and len(changes) == n
    assert result.to_frame()["n_changed"].tolist() == result.distance.tolist()
    assert "words changed" in repr(result)


def test_it_is_minimal_where_words_add_up():
    """Of counts, a linear model's score is a sum over words: greedy is optimal."""
    victim = make_pipeline(CountVectorizer(), LogisticRegression()).fit(MAILS, y)
    # Words for words: a phrase would be counted, too, but so is what it brings along.
    result = attack(victim).run(NEW)
    before = victim.predict(NEW)
    found = 0
    for i, mail in enumerate(NEW):
        texts, n_changed = zip(*versions(mail), strict=True)
        wrong = victim.predict(texts) != before[i]
        assert wrong.any() == result.success[i]
        if wrong.any():
            found += 1
            assert result.distance[i] == np.array(n_changed)[wrong].min()
    assert 0 < found < len(NEW)


def test_labels_targets_limits_and_budgets():
    whole = attack().run(NEW, y_new)
    wrong = VICTIM.predict(NEW) != y_new
    assert (whole.distance[wrong] == 0).all() and whole.success[wrong].all()
    spam = attack(goal="targeted", target="ham").run(NEW)
    np.testing.assert_array_equal(spam.success, spam.y_pred == "ham")
    sure = attack(goal="targeted", target="ham", confidence=0.6).run(NEW)
    ham = VICTIM.predict_proba(sure.X_adv)[:, 0]
    np.testing.assert_array_equal(sure.success, ham >= 0.6)
    for eps in (0, 1, 3):
        few = attack(eps=eps).run(NEW, y_new)
        assert few.distance.max() <= eps
        assert (few.success <= whole.success).all()
    assert few.success.sum() > wrong.sum()
    for limit in (1, 3, 20):
        assert attack(max_queries=limit).run(NEW).n_queries.max() <= limit
    with pytest.raises(QueryBudgetExceeded) as stop:
        attack(max_total_queries=60).run(NEW)
    assert 0 < len(stop.value.result) < len(NEW)
    assert stop.value.result.n_queries.sum() <= 60


def test_jobs_chunks_pickles_and_series_agree():
    expected = attack().run(NEW)
    for other in (attack(batch_size=1), attack(batch_size=1, n_jobs=2)):
        other = pickle.loads(pickle.dumps(other))
        with joblib.parallel_config(backend="threading"):
            result = other.run(pd.Series(NEW))
        assert result.X_adv.tolist() == expected.X_adv.tolist()
        assert result.changes.tolist() == expected.changes.tolist()
        np.testing.assert_array_equal(result.n_queries, expected.n_queries)
    assert attack().transform(np.array(NEW)).tolist() == expected.X_adv.tolist()


def test_a_column_of_a_table():
    frame = pd.DataFrame({"n": np.arange(80.0), "mail": MAILS, "m": np.ones(80, int)})
    frame.index += 5
    model = make_pipeline(
        make_column_transformer((TfidfVectorizer(), "mail"), remainder="passthrough"),
        LogisticRegression(max_iter=5000),
    )
    table = TextSubstitution(model, CHOICES, column="mail").fit(frame, y)
    result = table.run(frame[:12])
    assert result.success.any() and result.X_adv.dtypes.equals(frame.dtypes)
    pd.testing.assert_frame_equal(result.X_adv[["n", "m"]], frame[:12][["n", "m"]])
    assert (result.X_adv["mail"] != frame["mail"][:12])[result.success].all()
    predicted = table.estimator_.predict(result.X_adv)
    np.testing.assert_array_equal(result.y_pred, predicted)
    for column in (None, "text"):
        with pytest.raises(ValueError, match="must name the column"):
            clone(table).set_params(column=column).fit(frame, y)
    with pytest.raises(ValueError, match="is of a DataFrame"):
        clone(table).fit(MAILS, y)


def test_regressors_and_victims_whose_scores_do_not_tell():
    amount = (y == "spam") + 0.1 * np.arange(80) / 80
    ridge = make_pipeline(TfidfVectorizer(), Ridge()).fit(MAILS, amount)
    victim = RegressionVictim(FrozenEstimator(ridge), delta=0.2)
    result = TextSubstitution(victim, CHOICES).fit(MAILS).run(NEW)
    moved = np.abs(ridge.predict(result.X_adv) - ridge.predict(NEW)) > 0.2
    np.testing.assert_array_equal(result.success, moved)
    assert moved.any()
    three = np.where(np.arange(80) % 3, y, "other")
    votes = make_pipeline(TfidfVectorizer(), SVC()).fit(MAILS, three)
    result = attack(votes).run(NEW)
    assert (votes.predict(result.X_adv) == result.y_pred).all()


def test_phrases_cases_and_spaces():
    class Length(LogisticRegression):
        classes_ = np.array([0, 1])

        def predict_proba(self, X):
            share = np.array([min(1, len(text) / 40) for text in X])
            return np.column_stack([1 - share, share])

        def predict(self, X):
            return (self.predict_proba(X)[:, 1] > 0.5).astype(int)

        def __sklearn_is_fitted__(self):
            return True

    choices = {"New York": ["NY"], "york": ["?"], "don't": [""], "€5": ["5"], "IT": ["x"]}
    shorten = TextSubstitution(FrozenEstimator(Length()), choices, eps=None).fit(["a"])
    text = "I don't go to NEW YORK, for €5 it"
    result = shorten.run([text], [1])
    assert result.X_adv[0] == "I go to NY, for 5 it" and result.success[0]
    hard = clone(shorten).set_params(goal="targeted", target=0, confidence=0.9)
    last = hard.fit(["a"]).run([text])
    assert last.X_adv[0] == "I go to NY, for 5 x" and not last.success[0]
    assert last.changes[0] == [
        ("don't", ""), ("NEW YORK", "NY"), ("€5", "5"), ("it", "x"),
    ]  # fmt: skip
    none = shorten.run(["unlisted words, of which nothing can be changed ......."])
    assert not none.success.any() and none.distance[0] == 0


def test_scorers_take_documents():
    scoring = {
        "clean": "accuracy",
        "robust": robust_accuracy_scorer(TextSubstitution(substitutions=CHOICES)),
    }
    found = cross_validate(VICTIMS["tfidf"], MAILS, y, scoring=scoring, cv=2)
    assert (found["test_robust"] < found["test_clean"]).all()


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"choices": None}, ValueError, "what may take the place"),
        ({"choices": {"win": "get"}}, TypeError, "lists of words"),
        ({"choices": {"win": [1]}}, TypeError, "must hold texts"),
        ({"choices": {"": ["a"]}}, TypeError, "lists of words"),
        ({"choices": [("win", ["get"])]}, ValueError, "substitutions"),
        ({"eps": 0.5}, ValueError, "eps"),
    ],
)
def test_bad_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        attack(**parameters)


def test_bad_documents():
    for X, error in (("mail", ValueError), ([1, 2], TypeError), ([], ValueError)):
        with pytest.raises(error, match="document|sample"):
            attack().run(X)
    with pytest.raises(TypeError, match="number 1 is a float"):
        attack().run(["mail", np.nan])


# What other attacks say -----------------------------------------------------------------


@pytest.mark.parametrize("other", EVASION, ids=name_of)
def test_documents_and_sparse_rows_are_refused_with_the_cure(other):
    X = np.random.default_rng(0).random((20, 4))
    labels = np.arange(20) % 3
    for sparse in (csr_matrix(X), csr_array(X)):
        with pytest.raises(TypeError, match=r"toarray\(\).*TextSubstitution"):
            clone(other).fit(sparse, labels)
    with pytest.raises(TypeError, match="texts.*TextSubstitution"):
        clone(other).fit(MAILS[:20], labels)
    fitted = clone(other).fit(X, labels)
    with pytest.raises(TypeError, match="TextSubstitution"):
        fitted.transform(csr_matrix(X))
