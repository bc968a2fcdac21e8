"""
=========================================
Attack, defend and cross-validate a model
=========================================

How wrong does a model get when somebody changes its input a little, and what does it cost
to do something about it? Two models are attacked: a pipeline on a table of cell
measurements, and a small convolutional network on images of digits. Then adversarial
training is tuned like any other estimator, for accuracy on clean and on attacked rows.
"""

# %%
# A pipeline on a table
# ---------------------
# The pipeline is what one would train anyway. The attacker may change each measurement by
# a tenth of its range. A fitted model comes in as ``FrozenEstimator(model)``.

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_advsec.defense import AdversarialTrainingClassifier
from sklearn_advsec.evasion import FastGradientMethod, ProjectedGradientDescent
from sklearn_advsec.inspection import AdversarialExamplesDisplay, RobustnessCurveDisplay
from sklearn_advsec.metrics import robust_accuracy_scorer

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
pipeline = make_pipeline(StandardScaler(), SVC()).fit(X_train, y_train)

eps = 0.1 * (X_train.max() - X_train.min()).to_numpy()
attack = ProjectedGradientDescent(FrozenEstimator(pipeline), eps=eps, bounds=None)
result = attack.fit(X_train).run(X_test, y_test)
print(
    f"pipeline: clean accuracy {pipeline.score(X_test, y_test):.3f}, under attack "
    f"{attack.score(X_test, y_test):.3f}"
)
print(result)
print((result.X_adv - X_test).iloc[:3, :4].round(3), "\n")

# %%
# A network on images
# -------------------
# The network is a skorch ``NeuralNetClassifier``: its module is a class, and the defense
# tells it how many classes there are.

from skorch import NeuralNetClassifier  # noqa: E402
from torch import nn  # noqa: E402


class DigitsCNN(nn.Module):
    def __init__(self, n_classes=10, channels=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * channels, n_classes),
        )

    def forward(self, x):
        return self.layers(x)


digits, labels = load_digits(return_X_y=True)
images = (digits / 16).astype(np.float32).reshape(-1, 1, 8, 8)
images_train, images_test, labels_train, labels_test = train_test_split(
    images, labels, test_size=0.3, random_state=0, stratify=labels
)
net = NeuralNetClassifier(
    DigitsCNN,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=3e-3,
    max_epochs=10,
    batch_size=64,
    train_split=None,
    verbose=0,
)

# %%
# Tune the defense
# ----------------
# ``eps=0`` is ordinary training. The search looks at the size of the perturbations to
# train on and at the network's width, scores clean and robust accuracy, and refits for
# the latter.

train_attack = ProjectedGradientDescent(max_iter=5, bounds=(0, 1))
test_attack = ProjectedGradientDescent(eps=0.1, max_iter=20, bounds=(0, 1))
search = GridSearchCV(
    AdversarialTrainingClassifier(net, train_attack, random_state=0),
    {"eps": [0.0, 0.1], "estimator__module__channels": [4, 8]},
    scoring={"clean": "accuracy", "robust": robust_accuracy_scorer(test_attack)},
    refit="robust",
    cv=2,
).fit(images_train, labels_train)

print("eps   channels   clean   robust (PGD-20, eps 0.1)")
for i in np.argsort(search.cv_results_["mean_test_robust"]):
    row = {name: values[i] for name, values in search.cv_results_.items()}
    print(
        f"{row['param_eps']:.2f}  {row['param_estimator__module__channels']:8d}   "
        f"{row['mean_test_clean']:.3f}   {row['mean_test_robust']:.3f}"
    )

defended = search.best_estimator_
plain = AdversarialTrainingClassifier(net, train_attack, eps=0.0, random_state=0)
plain.set_params(estimator__module__channels=8).fit(images_train, labels_train)
for name, model in (("plain", plain), ("defended", defended)):
    print(
        f"{name:9s} test accuracy: clean {model.score(images_test, labels_test):.3f}, "
        f"robust {search.scorer_['robust'](model, images_test, labels_test):.3f}"
    )

# %%
# Look at it
# ----------
# Accuracy against the size of the perturbation, for both models, with 95 % intervals:

grid = [0.0, 0.05, 0.1, 0.15, 0.2]
attacks = {"plain, FGM": FastGradientMethod(bounds=(0, 1)), "plain, PGD": test_attack}
curve = RobustnessCurveDisplay.from_estimator(
    plain, images_test, labels_test, attack=attacks, eps=grid
)
RobustnessCurveDisplay.from_estimator(
    defended,
    images_test,
    labels_test,
    attack=test_attack,
    eps=grid,
    name="adversarially trained, PGD",
    ax=curve.ax_,
)
curve.ax_.set_title("Digits: accuracy under attack")

# %%
# Ten digits, turned into others:

first = [int(np.flatnonzero(labels_test == digit)[0]) for digit in range(10)]
examples = AdversarialExamplesDisplay.from_estimator(
    plain, images_test[first], labels_test[first], attack=test_attack.set_params(eps=0.15)
)

# %%
# Run as a script, the figures are written next to the working directory's files, or to
# the folder given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    curve.figure_.savefig(folder / "quickstart_curve.png", dpi=110, bbox_inches="tight")
    examples.figure_.savefig(folder / "quickstart_examples.png", dpi=110)
    print(f"figures: {folder}/quickstart_curve.png, {folder}/quickstart_examples.png")
