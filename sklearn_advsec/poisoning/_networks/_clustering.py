"""Activation clustering: a class that falls into a large and a small cluster."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from ..._sklearn import Interval
from ._representation import RepresentationSanitizer

_MOST_ROWS = 2000  # of which a silhouette is computed
_STARTS = 30  # in many directions of equal variance, few starts find the clusters
_NO_SPREAD = 1e-5  # of the largest: what rounding leaves of a component that is none


class ActivationClustering(RepresentationSanitizer):
    """Remove the small one of two clusters of a class, where it is small and apart.

    The representation of each class is reduced to components of equal variance and
    divided by 2-means. (The paper takes independent components, which are these up to a
    rotation, and a rotation changes no cluster. With the variance that they have, 2-means
    divides a class along its widest direction, which in networks is seldom that of a
    trigger. In the leaves of trees it is: these keep theirs.) Every class can be divided:
    a third of it, or more, lands in the smaller cluster of a clean class. So the smaller
    one is removed only if it holds less than `max_share` of the class *and* the
    silhouette of the division is at least `min_silhouette`. Of its rows, those go first
    that are the clearest members.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Trained on the suspicious data for its representation of rows: what the last layer
        of a network sees (a skorch net, `MLPClassifier`), the leaves that a tree ensemble
        puts them in, or the rows themselves, for linear models. None makes a prototype,
        which takes the classifier of the `SanitizedClassifier` around it.
    contamination : float, default=0.35
        Largest share of each class that is removed.
    max_share : float, default=0.35
        A cluster with a larger share of its class is taken for clean.
    min_silhouette : float, default=0.18
        Clusters less apart are taken for one.
    n_components : int, default=10
        Components that a representation is reduced to.
    representation : callable, default=None
        Maps rows to an array of shape (n_samples, width), instead of `estimator`.
    random_state : int, RandomState instance or None, default=None
        Seed of the training and of the clusters.

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        By how much each row is nearer to the small cluster's centre than to the large
        one's, relative to the distance between the two.
    shares_ : ndarray of shape (n_classes,)
        Share of the small cluster of each class.
    silhouettes_ : ndarray of shape (n_classes,)
        How far apart the two are, from -1 to 1.
    flagged_classes_ : ndarray
        The classes whose small cluster is suspicious.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.

    See Also
    --------
    SpectralSignatures : Scores rows along the widest direction of a class.

    References
    ----------
    .. [1] B. Chen, W. Carvalho, N. Baracaldo, H. Ludwig, B. Edwards, T. Lee, I. Molloy,
       B. Srivastava, "Detecting backdoor attacks on deep neural networks by activation
       clustering", arXiv:1811.03728 (Algorithm 1, by the labels of rows; the size and
       the silhouette of clusters, without the retraining on what is left).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.poisoning import ActivationClustering, BackdoorTrigger
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> trigger = BackdoorTrigger("out_of_bounds", target_class=1, budget=0.1,
    ...                           random_state=0)
    >>> X_poisoned, y_poisoned = trigger.fit_resample(X, y)
    >>> sanitizer = ActivationClustering(
    ...     RandomForestClassifier(random_state=0), random_state=0)
    >>> kept = sanitizer.fit(X_poisoned, y_poisoned).sample_indices_
    >>> int(sum(i in kept for i in trigger.poison_indices_))
    0
    """

    _parameter_constraints = {
        **RepresentationSanitizer._parameter_constraints,
        "max_share": [Interval(Real, 0, 0.5, closed="right")],
        "min_silhouette": [Interval(Real, -1, 1, closed="both")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        contamination: float = 0.35,
        max_share: float = 0.35,
        min_silhouette: float = 0.18,
        n_components: int = 10,
        representation: Callable[..., Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.max_share = max_share
        self.min_silhouette = min_silhouette
        self.n_components = n_components
        self.representation = representation
        self.random_state = random_state

    def _decide(self, data):
        self.shares_ = np.zeros(len(data.classes))
        self.silhouettes_ = np.full(len(data.classes), -1.0)
        verdict = super()._decide(data)
        flagged = (self.shares_ > 0) & (self.shares_ <= self.max_share)
        flagged &= self.silhouettes_ >= self.min_silhouette
        self.flagged_classes_ = data.classes[flagged]
        verdict.suspects &= flagged[data.y]
        return verdict

    def _of_class(self, features, code, data):
        n = features.shape[0]
        none = np.zeros(n, dtype=bool)
        n_components = min(self.n_components, *features.shape)
        if issparse(features):  # needs one less, and is centred without becoming dense
            n_components = min(self.n_components, min(features.shape) - 1)
        spread = features.max(0) - features.min(0)
        spread = spread.toarray() if issparse(spread) else spread
        if n < 3 or n_components < 1 or not spread.any():
            return np.zeros(n), none
        solver = "arpack" if issparse(features) else "auto"
        pca = PCA(n_components, svd_solver=solver, random_state=data.seed)
        points = pca.fit_transform(features.astype(np.float64))
        if not issparse(features):
            spread = np.sqrt(pca.explained_variance_)
            varied = spread > _NO_SPREAD * spread[0]
            points = points[:, varied] / spread[varied]
        kmeans = KMeans(2, n_init=_STARTS, random_state=data.seed).fit(points)
        sizes = np.bincount(kmeans.labels_, minlength=2)
        small = int(sizes.argmin())
        self.shares_[code] = sizes[small] / n
        if sizes[small]:
            self.silhouettes_[code] = silhouette_score(
                points,
                kmeans.labels_,
                sample_size=min(n, _MOST_ROWS),
                random_state=data.seed,
            )
        distances = kmeans.transform(points)
        between = np.linalg.norm(np.diff(kmeans.cluster_centers_, axis=0))
        scores = (distances[:, 1 - small] - distances[:, small]) / max(between, 1e-300)
        return scores, kmeans.labels_ == small
