"""Models that nobody chose for the audit: a report, or one sentence why not."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import numpy as np
import pytest
from audits import do_little
from data import bundled
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_blobs, make_classification
from sklearn.ensemble import (
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TunedThresholdClassifierCV, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.audit import SecurityAudit

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _little_is_done(monkeypatch):
    do_little(monkeypatch)


def texts(n_rows=300):
    rng = np.random.RandomState(0)
    y, words = rng.randint(0, 2, n_rows), [f"w{i}" for i in range(50)]
    kinds = ["bad", "sad", "cold"], ["good", "fine", "warm"]
    rows = [" ".join([*rng.choice(kinds[k], 2), *rng.choice(words, 8)]) for k in y]
    return rows, y


def categories(n_rows=400):
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "colour": pd.Categorical(rng.choice(["red", "green", "blue"], n_rows)),
            "size": rng.normal(size=n_rows),
            "count": rng.randint(0, 20, n_rows),
        }
    )
    y = (frame["size"] + (frame["colour"] == "red") + frame["count"] / 20 > 1).to_numpy()
    return frame, y.astype(int)


class Client:
    """Asks a service, and knows nothing of the model."""

    def __init__(self, url):
        self.url = url

    def _ask(self, method, X):
        question = json.dumps([method, np.asarray(X).tolist()]).encode()
        with urlopen(self.url, question, timeout=30) as answer:
            return np.array(json.loads(answer.read()))

    def predict(self, X):
        return self._ask("predict", X)

    def predict_proba(self, X):
        return self._ask("predict_proba", X)


def client_of(model):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers["Content-Length"])
            method, X = json.loads(self.rfile.read(size))
            answer = getattr(model, method)(np.array(X)).tolist()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, Client(f"http://127.0.0.1:{server.server_port}")


def xgboost():
    package = pytest.importorskip("xgboost")
    model = package.XGBClassifier(n_estimators=10, enable_categorical=True, n_jobs=1)
    return model, *categories()


def lightgbm():
    package = pytest.importorskip("lightgbm")
    return package.LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1), *categories()


def text_column():
    rows, y = texts()
    vectors = make_column_transformer((TfidfVectorizer(), "text"))
    return make_pipeline(vectors, LogisticRegression()), pd.DataFrame({"text": rows}), y


def stacking():
    models = [("tree", DecisionTreeClassifier(random_state=0)), ("bayes", GaussianNB())]
    return StackingClassifier(models), *bundled("wine")


def imbalanced():
    X, y = make_classification(1500, 10, weights=[0.99], random_state=0)
    return RandomForestClassifier(20, random_state=0), X, y


def many_classes():
    X, y = make_blobs(2000, 10, centers=200, cluster_std=2, random_state=0)
    return KNeighborsClassifier(), X, y


def many_features():
    X, y = make_classification(300, 5000, n_informative=50, random_state=0)
    return make_pipeline(StandardScaler(), LinearSVC()), X, y


def one_feature():
    X, y = bundled("breast_cancer")
    return LogisticRegression(), X[:, :1], y


def tuned_threshold():
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return TunedThresholdClassifierCV(model, cv=2), *bundled("breast_cancer")


def regressor():
    return RandomForestRegressor(20, random_state=0), *bundled("diabetes")


@pytest.mark.parametrize(
    "make",
    [
        regressor, xgboost, lightgbm, text_column, imbalanced, many_classes, one_feature,
        many_features, tuned_threshold, stacking,
    ],
)  # fmt: skip
def test_a_report_comes_of_any_model(make):
    model, X, y = make()
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model.fit(X_train, y_train)
    if make is many_classes:  # those that the test rows have and the training rows lack
        known = np.isin(y_test, y_train)
        X_test, y_test = X_test[known], y_test[known]
    limit = 2 if make is many_features else 20
    audit = SecurityAudit(FrozenEstimator(model), time_limit=limit)
    audit.fit(X_train, y_train, X_test, y_test)
    done = audit.results_.query("status == 'done'")
    assert len(done) >= 3
    assert (audit.brackets_["lower"] <= audit.brackets_["upper"]).all()
    assert set(audit.summary_) == {"evasion", "extraction", "privacy", "poisoning"}
    assert len(audit.to_html()) < 2_000_000
    SecurityAudit.from_json(audit.to_json())


def test_a_victim_behind_an_http_client():
    X, y = bundled("wine")
    data = X[::2], y[::2], X[1::2], y[1::2]
    server, client = client_of(RandomForestClassifier(10, random_state=0).fit(*data[:2]))
    try:
        audit = SecurityAudit(client).fit(*data)
    finally:
        server.shutdown()
        server.server_close()
    assert set(audit.results_["threat"]) == {"evasion", "extraction", "privacy"}
    assert "nobody knows how the model was trained" in audit.summary_["poisoning"]
    assert audit.report_["victim"]["name"] == "Client"


def test_texts_without_a_column_are_refused_in_one_sentence():
    rows, y = texts()
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(rows, y)
    with pytest.raises(ValueError, match="Put texts into a column of a DataFrame"):
        SecurityAudit(FrozenEstimator(model)).fit(rows, y, rows, y)
