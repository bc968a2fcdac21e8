"""What a case may call beside estimators: functions, and what is used in one call.

Each has arguments that are right, of which a case replaces one. What takes its values in
a constructor and looks at them later is wrapped, so that one call does all of it.
"""

import matplotlib
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_validate
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec import (
    batched,
    defense,
    encryption,
    evasion,
    inspection,
    metrics,
    poisoning,
    pretrained,
    privacy,
    threat,
    trees,
    victim,
)
from sklearn_advsec.audit import SecurityAudit

matplotlib.use("agg")

ROWS, LABELS = 30, np.arange(30) % 2
RNG = np.random.RandomState(0)
X = np.round(RNG.uniform(size=(ROWS, 4)), 2)
X[:, 0] = np.round((X[:, 0] + LABELS) / 2, 2)  # something to learn
FEW = slice(0, 6)
TREE = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, LABELS)
LINEAR = LogisticRegression().fit(X, LABELS)
FOLDS = cross_validate(
    DecisionTreeClassifier(max_depth=2, random_state=0),
    X,
    LABELS,
    cv=RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0),
    return_estimator=True,
    return_indices=True,
)
PROOF = evasion.TreeExactAttack(FrozenEstimator(TREE)).fit(X).run(X[FEW]).to_json()
WHOLE_TREE = DecisionTreeClassifier().fit(RNG.randint(0, 4, (ROWS, 3)), LABELS)
MOVED = np.round(np.column_stack([1 - X[FEW][:, 0], X[FEW][:, 1:]]), 2)
SCORES = np.linspace(0.1, 0.9, ROWS)
ATTACK = evasion.ProjectedGradientDescent(eps=0.1, max_iter=2)
FLIP = poisoning.LabelFlipping(strategy="random", random_state=0)


def lp_ball(norm, eps):
    """Project onto a ball."""
    return threat.LpBall(norm, eps).project(torch.as_tensor(X - 0.5)).numpy()


def box(bounds, X):
    """Make a box of rows."""
    limits = threat.Box(bounds, X)
    return limits.lower, limits.upper


def _constraints(scale="range"):
    return threat.FeatureConstraints.from_frame(X, scale=scale)


def from_frame(X, scale):
    """Learn constraints."""
    return threat.FeatureConstraints.from_frame(X, scale=scale).project(
        X, np.asarray(X) + 0.5
    )


def set_feature(column, **changes):
    """Say more about a feature, and use it."""
    return _constraints().set(column, **changes).project(X[FEW], MOVED)


def relate(relation, repair):
    """Add a relation, and use it."""
    return _constraints().relate(relation, repair=repair).project(X[FEW], MOVED)


def limit(max_cost, max_changed):
    """Limit the changes, and use that."""
    limited = _constraints().limit(max_cost=max_cost, max_changed=max_changed)
    return limited.project(X[FEW], MOVED)


def weigh_by_importance(X, y, strength):
    """Weigh features, and use it."""
    weighed = _constraints().weigh_by_importance(X, y, strength=strength)
    return weighed.distance(X, X)


def constraints_distance(X_ref, X):
    """Measure distances."""
    return _constraints().distance(X_ref, X)


def constraints_project(X_ref, X):
    """Project rows."""
    return _constraints().project(X_ref, X)


def constraints_violations(X_ref, X):
    """Look for what is broken."""
    return len(_constraints().violations(X_ref, X))


def constraints_sample(X_ref, random_state):
    """Draw rows."""
    return _constraints().sample(X_ref, random_state=random_state)


def binary_scores(estimator, classes, scores, threshold):
    """Adapt a service of one output, and ask it."""
    adapter = victim.BinaryScores(
        estimator, classes, scores=scores, threshold=threshold
    ).fit(X, LABELS)
    return adapter.predict(X[FEW])


def regression_victim(estimator, delta):
    """Attack a regressor."""
    adapted = victim.RegressionVictim(estimator, delta=delta)
    return evasion.SquareAttack(adapted, max_queries=10).fit(X, X[:, 0]).run(X[FEW])


def pretrained_module(module, classes, device, batch_size, outputs, channels):
    """Ask a module."""
    model = pretrained.PretrainedModule(
        module,
        classes=classes,
        device=device,
        batch_size=batch_size,
        outputs=outputs,
        channels=channels,
    )
    return model.predict_proba(X[FEW].astype(np.float32))


def label_access(X, max_queries, max_total_queries, batch_size, on_bad_answer):
    """Ask for labels."""
    access = victim.LabelAccess(
        LINEAR,
        X,
        max_queries=max_queries,
        max_total_queries=max_total_queries,
        batch_size=batch_size,
        on_bad_answer=on_bad_answer,
    )
    return access.predict(access.x).numpy()


def gradient_access(precision):
    """Ask for a gradient."""
    access = victim.GradientAccess(LINEAR, X, precision=precision)
    return access.gradient(access.x, None, lambda logits, at: logits[:, 0])[1].numpy()


def robust_accuracy(attack, X_ref, abstain, check_masking):
    """Score robustness."""
    scorer = metrics.robust_accuracy_scorer(
        attack, X_ref=X_ref, abstain=abstain, check_masking=check_masking
    )
    return scorer(LINEAR, X, LABELS)


def membership_game(estimator, n_targets, train_size, n_jobs, random_state):
    """Play the game of membership."""
    game = privacy.MembershipGame(
        estimator,
        n_targets=n_targets,
        train_size=train_size,
        n_jobs=n_jobs,
        random_state=random_state,
    )
    return [round_.test_accuracy for round_ in game.play(X, LABELS)]


def counting(estimator, records, domain, label_column, max_points, time_limit):
    """Prove who is in."""
    found = privacy.counting_certificate(
        estimator,
        records,
        domain=domain,
        label_column=label_column,
        max_points=max_points,
        time_limit=time_limit,
    )
    return found.lower


def draft(estimator, domain, max_points, time_limit):
    """Reconstruct rows."""
    attack = privacy.DRAFT(
        estimator, domain, max_points=max_points, time_limit=time_limit
    )
    return attack.reconstruct().rows


def structure(estimator, X, y, min_count, min_freedom):
    """Check the structure."""
    found = privacy.structural_checks(
        estimator, X, y, min_count=min_count, min_freedom=min_freedom
    )
    return found.cell_size


def certificate(json_text, model):
    """Check a file."""
    claims = trees.check_certificate(json_text, model)
    return np.array([claim["bound"] for claim in claims])


def inside(estimator, X, y):
    """Look for rows in a model."""
    found = privacy.stored_rows(estimator, X, y)
    return np.concatenate([np.empty(0), *[f.rows for f in found]])


def privacy_audit(
    estimator,
    attacks,
    records,
    members,
    quasi_identifiers,
    level,
    min_count,
    random_state,
):
    """Audit the privacy of a model."""
    audit = privacy.PrivacyAudit(
        estimator,
        attacks,
        n_shadow_models=2,
        quasi_identifiers=quasi_identifiers,
        level=level,
        min_count=min_count,
        random_state=random_state,
    )
    return audit.fit(records, members=members).records_["p_joint"].to_numpy()


def from_cross_validation(search, X, y):
    """Audit the models of folds."""
    audit = privacy.PrivacyAudit.from_cross_validation(search, X, y)
    return audit.records_["p_joint"].to_numpy()


def roni(estimator, trusted, contamination, n_splits, n_train, group_size, random_state):
    """Reject rows on their impact."""
    sanitizer = poisoning.RONI(
        estimator,
        trusted=trusted,
        contamination=contamination,
        n_splits=n_splits,
        n_train=n_train,
        group_size=group_size,
        random_state=random_state,
    )
    return sanitizer.fit_resample(X, LABELS)


def poisoning_report(estimator, poisoner, X, y, where, cv, scoring):
    """Compare scores before and after a poisoning."""
    return poisoning.poisoning_report(
        estimator, poisoner, X, y, where=where, cv=cv, scoring=scoring
    ).clean


def security_audit(**arguments):
    """Audit for a moment."""
    rows = ("X_train", "y_train", "X_test", "y_test")
    audit = SecurityAudit(
        **{name: value for name, value in arguments.items() if name not in rows}
    )
    return audit.fit(*(arguments[name] for name in rows)).report_["audit"]["seconds"]


def polynomial_activation(function, degree, margin):
    """Fit a polynomial."""
    activation = encryption.PolynomialActivation(function, degree=degree, margin=margin)
    return activation.fit(SCORES).plan()


def _transforming(kind):
    def transform(**parameters):
        images = torch.as_tensor(X).reshape(-1, 1, 2, 2)
        return kind(**parameters)(images, torch.Generator().manual_seed(0)).numpy()

    transform.__name__ = kind.__name__
    return transform, dict(kind().get_params(deep=False))


FUNCTIONS = [
    (metrics.clopper_pearson, {"n_successes": 3, "n_trials": 10, "confidence": 0.9}),
    (metrics.membership_advantage, {"y_true": LABELS, "y_pred": LABELS[::-1]}),
    (
        metrics.roc_auc_interval,
        {
            "y_true": LABELS,
            "y_score": SCORES,
            "confidence": 0.9,
            "groups": np.arange(len(LABELS)) // 2,
        },
    ),
    (metrics.tpr_at_fpr, {"y_true": LABELS, "y_score": SCORES, "fpr": 0.2}),
    (metrics.tpr_at_fpr_scorer, {"fpr": 0.1}),
    (metrics.certified_accuracy_scorer, {"eps": 0.1}),
    (
        metrics.bootstrap_interval,
        {
            "metric": metrics.membership_advantage,
            "y_true": LABELS,
            "y_score": LABELS,
            "confidence": 0.9,
            "n_bootstraps": 20,
            "random_state": 0,
        },
    ),
    (
        metrics.destruction_rate,
        {
            "estimator": LINEAR,
            "X": X[FEW],
            "X_adv": MOVED,
            "y": LABELS[FEW],
            "transformation": evasion.GaussianNoise(0.01),
            "image_shape": (1, 2, 2),
            "n_repeats": 2,
            "random_state": 0,
        },
    ),
    (
        metrics.gradient_masking_report,
        {
            "estimator": LINEAR,
            "X": X[FEW],
            "y": LABELS[FEW],
            "attack": ATTACK,
            "X_ref": X,
            "random_state": 0,
        },
    ),
    (
        robust_accuracy,
        {
            "attack": ATTACK,
            "X_ref": X,
            "abstain": "handled",
            "check_masking": False,
        },
    ),
    (
        privacy.epsilon_from_guesses,
        {
            "n_correct": 60,
            "n_guesses": 80,
            "n_canaries": 100,
            "delta": 1e-5,
            "confidence": 0.95,
            "premise": "gaussian",
        },
    ),
    (
        privacy.epsilon_lower_bound,
        {
            "estimator": LINEAR,
            "X": X,
            "y": LABELS,
            "n_canaries": 20,
            "delta": 1e-5,
            "confidence": 0.9,
            "premise": "any",
            "random_state": 0,
        },
    ),
    (privacy.make_records, {"X": X, "y": LABELS}),
    (
        privacy.rmia_scores,
        {
            "target_x": np.linspace(0.1, 0.9, 5),
            "mean_x": np.full(5, 0.5),
            "target_z": np.linspace(0.1, 0.9, 7),
            "mean_z": np.full(7, 0.5),
            "gamma": 1.0,
        },
    ),
    (
        counting,
        {
            "estimator": TREE,
            "records": np.column_stack([X, LABELS]),
            "domain": [np.unique(column) for column in X.T],
            "label_column": -1,
            "max_points": 1000,
            "time_limit": 1.0,
        },
    ),
    (
        draft,
        {
            "estimator": WHOLE_TREE,
            "domain": [range(4)] * 3,
            "max_points": 1000,
            "time_limit": 1.0,
        },
    ),
    (
        structure,
        {
            "estimator": TREE,
            "X": X,
            "y": LABELS,
            "min_count": 10,
            "min_freedom": 10,
        },
    ),
    (certificate, {"json_text": PROOF, "model": TREE}),
    (inside, {"estimator": LINEAR, "X": X, "y": LABELS}),
    (
        privacy_audit,
        {
            "estimator": FrozenEstimator(TREE),
            "attacks": ["LossThreshold", "RMIA"],
            "records": np.column_stack([X, LABELS]),
            "members": np.arange(ROWS) < ROWS // 2,
            "quasi_identifiers": [0],
            "level": 0.05,
            "min_count": 3,
            "random_state": 0,
        },
    ),
    (
        from_cross_validation,
        {"search": FOLDS, "X": X, "y": LABELS},
    ),
    (
        membership_game,
        {
            "estimator": DecisionTreeClassifier(),
            "n_targets": 1,
            "train_size": 0.5,
            "n_jobs": None,
            "random_state": 0,
        },
    ),
    (
        trees.certified_radii,
        {
            "estimator": TREE,
            "X": X[FEW],
            "eps": 0.1,
            "norm": np.inf,
            "method": "bounds",
            "time_limit": 1.0,
        },
    ),
    (trees.leaf_boxes, {"ensemble": trees.tree_ensemble(TREE), "X": X[FEW]}),
    (trees.tree_ensemble, {"estimator": TREE}),
    (
        defense.certify,
        {
            "estimator": TREE,
            "X": X[FEW],
            "norm": np.inf,
            "eps": 0.1,
            "method": "auto",
            "max_radius": 0.5,
        },
    ),
    (
        batched.fit_many,
        {
            "estimator": LogisticRegression(),
            "X": X,
            "y": LABELS,
            "subsets": [np.arange(20), np.arange(10, 30)],
            "random_states": [0, 1],
            "n_jobs": None,
        },
    ),
    (lp_ball, {"norm": 2, "eps": 0.1}),
    (box, {"bounds": (0.0, 1.0), "X": X}),
    (from_frame, {"X": X, "scale": "range"}),
    (
        set_feature,
        {
            "column": 1,
            "mutable": True,
            "direction": "up",
            "lower": 0.0,
            "upper": 1.0,
            "step": 0.01,
            "cost": 1.0,
            "scale": 1.0,
            "missing": False,
            "kind": "continuous",
        },
    ),
    (relate, {"relation": "x[1] <= x[0] + 1", "repair": None}),
    (limit, {"max_cost": 1.0, "max_changed": 2}),
    (weigh_by_importance, {"X": X, "y": LABELS, "strength": 1.0}),
    (constraints_distance, {"X_ref": X[FEW], "X": MOVED}),
    (constraints_project, {"X_ref": X[FEW], "X": MOVED}),
    (constraints_violations, {"X_ref": X[FEW], "X": MOVED}),
    (constraints_sample, {"X_ref": X[FEW], "random_state": 0}),
    (
        binary_scores,
        {
            "estimator": LinearRegression(),
            "classes": (0, 1),
            "scores": "decision",
            "threshold": 0.5,
        },
    ),
    (regression_victim, {"estimator": LinearRegression(), "delta": 0.1}),
    (
        pretrained_module,
        {
            "module": torch.nn.Linear(4, 2),
            "classes": [0, 1],
            "device": "cpu",
            "batch_size": 4,
            "outputs": "logits",
            "channels": "first",
        },
    ),
    (
        label_access,
        {
            "X": X,
            "max_queries": 5,
            "max_total_queries": 100,
            "batch_size": 10,
            "on_bad_answer": "raise",
        },
    ),
    (gradient_access, {"precision": "full"}),
    (
        roni,
        {
            "estimator": LogisticRegression(),
            "trusted": (X, LABELS),
            "contamination": 0.1,
            "n_splits": 2,
            "n_train": 10,
            "group_size": 5,
            "random_state": 0,
        },
    ),
    (
        poisoning_report,
        {
            "estimator": LogisticRegression(),
            "poisoner": FLIP,
            "X": X,
            "y": LABELS,
            "where": ("inside",),
            "cv": 2,
            "scoring": "accuracy",
        },
    ),
    (
        security_audit,
        {
            "estimator": FrozenEstimator(TREE),
            "threats": ("evasion",),
            "budget": 0.02,
            "constraints": None,
            "eps": 0.1,
            "image_shape": None,
            "time_limit": 1.0,
            "random_state": 0,
            "n_jobs": None,
            "verbose": 0,
            "X_train": X,
            "y_train": LABELS,
            "X_test": X[FEW],
            "y_test": LABELS[FEW],
        },
    ),
    (polynomial_activation, {"function": "relu", "degree": 3, "margin": 0.1}),
    (
        inspection.RobustnessCurveDisplay.from_predictions,
        {
            "y_true": LABELS[FEW],
            "y_pred": [LABELS[FEW], 1 - LABELS[FEW]],
            "eps": [0.0, 0.1],
            "norm": np.inf,
            "level": 0.9,
        },
    ),
    (
        inspection.MembershipRocDisplay.from_predictions,
        {"y_true": LABELS, "y_score": SCORES},
    ),
    (
        inspection.ExtractionCurveDisplay.from_predictions,
        {
            "y_victim": LABELS,
            "y_copies": [LABELS, 1 - LABELS],
            "n_queries": [10, 20],
        },
    ),
    (
        inspection.AdversarialExamplesDisplay.from_predictions,
        {
            "X": X[FEW],
            "X_adv": MOVED,
            "y_pred": LABELS[FEW],
            "y_pred_adv": 1 - LABELS[FEW],
            "image_shape": (2, 2),
        },
    ),
    *map(
        _transforming,
        (
            evasion.Blur,
            evasion.Brightness,
            evasion.Contrast,
            evasion.GaussianNoise,
            evasion.JPEG,
            evasion.Perspective,
            evasion.PrintScan,
            evasion.Rotation,
            evasion.Scaling,
            evasion.Shift,
        ),
    ),
]
FUNCTIONS = {
    getattr(function, "__qualname__", function.__name__)
    if not function.__name__[0].isupper()
    else function.__name__: (function, arguments)
    for function, arguments in FUNCTIONS
}

# Arguments that take any object.
FREE = {
    ("binary_scores", "classes"),
}
# A class may be called as a function is; what it then says is its own.
CALLED = {"metric", "scoring", "transformation"}
