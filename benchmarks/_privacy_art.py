"""ART's membership attacks on the targets of the privacy benchmark."""

import time
from unittest import mock

import numpy as np
import torch
from art.attacks.evasion import HopSkipJump
from art.attacks.inference.membership_inference import (
    MembershipInferenceBlackBox,
    MembershipInferenceBlackBoxRuleBased,
    ShadowModels,
)
from art.estimators.classification import SklearnClassifier
from art.estimators.classification.pytorch import PyTorchClassifier
from torch import nn

# Of HopSkipJump, by steps and neighbours of the first estimate: ART's customary number of
# neighbours, which takes up to 920 queries per record, and, for up to 500, the best for
# ART of four choices on other draws of the targets.
SETTINGS = ((5, 100), (8, 23))


def train_shadows(recipe, X, y, n_models):
    """Train ART's shadow models on halves of the rows; networks as in `recipe`.

    ART has no way to say how long shadows train or in which batches, so `fit` is
    overridden; and initial weights are drawn as scikit-learn draws them, without which
    accuracy is lower.
    """

    class SameRecipe(PyTorchClassifier):
        def fit(self, x, y, **kwargs):
            sizes = {"batch_size": recipe.batch_size, "nb_epochs": recipe.max_iter}
            return super().fit(x, y, **sizes)

        def reset(self):
            for layer in self.model.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
                    nn.init.uniform_(layer.bias, -bound, bound)

    classes = int(y.max()) + 1
    units = [X.shape[1], *recipe.hidden_layer_sizes, classes]
    layers = [nn.Linear(units[0], units[1])]
    for n_in, n_out in zip(units[1:-1], units[2:], strict=True):
        layers += [nn.ReLU(), nn.Linear(n_in, n_out)]
    module = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(module.parameters(), lr=recipe.learning_rate_init)
    template = SameRecipe(
        module, nn.CrossEntropyLoss(), X.shape[1:], classes, optimizer=optimizer
    )
    models = ShadowModels(template, num_shadow_models=n_models, random_state=0)
    models.generate_shadow_dataset(X, np.eye(classes)[y], member_ratio=0.5)
    return models.get_shadow_models()


def attacks(played):
    """Yield ART's attacks: name, judged rows, scores, decisions and CPU seconds.

    Shadow models are made by the target's own recipe.
    """
    model, X, y, X_own, y_own = played.as_numbers()
    box = float(X.min()), float(X.max())
    wrapped = SklearnClassifier(model, clip_values=box)
    everything = np.arange(len(X))

    start = time.process_time()
    right = np.ravel(MembershipInferenceBlackBoxRuleBased(wrapped).infer(X, y))
    yield "ART, rule", everything, right, right > 0.5, time.process_time() - start

    start = time.process_time()
    shadows = ShadowModels(
        SklearnClassifier(model, clip_values=box), num_shadow_models=16, random_state=0
    )
    # each is trained on half of these rows, as many as the target
    members, others = shadows.generate_shadow_dataset(
        X_own, np.eye(len(model.classes_))[y_own], 0.5
    )
    attack = MembershipInferenceBlackBox(wrapped, attack_model_type="rf")
    attack.fit(members[0], members[1], others[0], others[1], members[2], others[2])
    scores = np.ravel(attack.infer(X, y, probabilities=True))
    seconds = time.process_time() - start
    yield "ART, ShadowModels(16) + rf", everything, scores, scores > 0.5, seconds


def by_labels(played, some, n_seeds):
    """Yield ART's attack by labels on `some` records: its name, and a run for each seed.

    The distances are those of `LabelOnlyDecisionBoundary`.
    """
    model, X, y, _, _ = played.as_numbers()
    X, y, box = X[some], y[some], (float(X.min()), float(X.max()))
    wrong = model.predict_proba(X).argmax(axis=1) != y
    for max_iter, init_eval in SETTINGS:
        wrapped, runs = SklearnClassifier(model, clip_values=box), []
        asked = _count_queries(wrapped)
        search = HopSkipJump(wrapped, norm=2, max_iter=max_iter, init_eval=init_eval)
        search.verbose = False
        for seed in range(n_seeds):
            start = time.process_time()
            np.random.seed(seed)
            # First points are drawn by a generator that has no seed.
            first = np.random.RandomState(seed)
            with mock.patch("numpy.random.RandomState", return_value=first):
                adversarial = search.generate(X, y=y)
            distance = np.linalg.norm(adversarial - X, axis=1)
            distance[wrong] = 0
            runs.append((distance, None, time.process_time() - start))
        queries = asked[0] / (n_seeds * len(X))
        yield f"ART, HopSkipJump, {max_iter} steps, {queries:.0f} queries", runs


def _count_queries(classifier):
    asked, real = [0], classifier.predict

    def counting(x, *args, **kwargs):
        asked[0] += len(x)
        return real(x, *args, **kwargs)

    classifier.predict = counting
    return asked
