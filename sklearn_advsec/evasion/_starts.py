"""Where attacks by labels begin: at a point that already is what they want."""

from functools import partial
from itertools import accumulate, count, takewhile

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from .._rows import RowCodec, is_dataframe
from ._active_rows import Answer
from ._queries._base import BoxAttack

# The attacker keeps this many rows of the data seen in fit, and tries this many points.
_KEPT, _TRIES = 200, 100


class StartingAttack(BoxAttack):
    """Base of the attacks that need a first point with the wanted label.

    Attributes
    ----------
    starts_ : ndarray of shape (n_starts, ...)
        Up to 200 rows of the data seen in `fit`, as numbers.
    """

    start = "noise"

    _parameter_constraints = {
        **BoxAttack._parameter_constraints,
        "start": [StrOptions({"noise", "data"})],
    }

    def fit(self, X, y=None):
        """Fit the victim (a frozen one is kept), learn the range, keep some rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which the victim is fitted, from which `bounds` are learned, and of
            which some rows are kept to start from.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y)
        X = self._check_X(X, reset=False)
        rng = np.random.RandomState(check_random_state(self.random_state).randint(2**31))
        at = np.sort(rng.permutation(len(X))[:_KEPT])
        rows = X.iloc[at] if is_dataframe(X) else X[at]
        self.starts_ = RowCodec(rows).encode(rows)
        return self

    def _find_starts(self, active, state):
        """Ask until each row has a point with the wanted label; the others give up.

        Points are drawn uniformly from the box, or are kept rows, from near to far. When
        the one kind fails, the other follows.
        What is found is ``active.point``, a perturbation, and
        ``active.point_predicted``.
        """
        # A generator of its own: how many draws this takes depends on the rows.
        seed = torch.randint(2**31 - 1, (), generator=state.generator)
        generator = torch.Generator().manual_seed(int(seed))
        kinds = [partial(self._noise, active, generator), _data(self, active)]
        if self.start == "data":
            kinds.reverse()
        active.point = torch.zeros_like(active.x)
        active.point_predicted = torch.zeros_like(active.labels)
        active.started = torch.zeros_like(active.labels, dtype=torch.bool)
        for candidates in kinds:
            for k in range(_TRIES):
                active.give_up(~active.started & (active.left() < 1))
                at = torch.nonzero(~active.started).flatten()
                if not len(at):
                    return
                delta = candidates(k, at)
                if delta is None:
                    break
                delta = torch.clamp(delta, active.lower[at], active.upper[at])
                answer = active.ask(active.x[at] + delta, at)
                hit = at[answer.reached]
                active.point[hit] = delta[answer.reached]
                active.point_predicted[hit] = answer.predicted[answer.reached]
                active.started[hit] = True
        active.give_up(~active.started)

    def _noise(self, active, generator, k, at):
        """Draw the `k`-th point of some rows: a perturbation."""
        share = torch.rand(
            active.x.shape[1:], generator=generator, dtype=torch.float64
        ).to(active.x)
        lower, upper = active.lower[at], active.upper[at]
        return lower + share * (upper - lower)

    def _begin(self, active, state):
        """Take the first points as what was found so far: for attacks on the norm."""
        self._find_starts(active, state)
        active.delta, active.predicted = active.point, active.point_predicted
        hit = torch.ones_like(active.started)
        active.improve(active.x + active.delta, Answer(active.predicted, hit))


def _data(attack, active):
    """Give the kept rows, for each row the nearest first, with growing strides.

    Their labels are not used, though `fit` may have seen them: what is crafted would
    depend on them. The neighbours of a row mostly have its own label, so that one after
    another many queries would be lost; those that the strides jump over come afterwards.
    """
    starts = torch.as_tensor(attack.starts_).to(active.x)
    strides = list(takewhile(lambda place: place < len(starts), accumulate(count())))
    order = strides + sorted(set(range(len(starts))) - set(strides))

    def candidates(k, at):
        if k >= len(order):
            return None
        x = active.x[at]
        distance = torch.cdist(x.flatten(1).nan_to_num(), starts.flatten(1).nan_to_num())
        nearest = distance.topk(order[k] + 1, dim=1, largest=False).indices
        return (starts[nearest[:, order[k]]] - x).nan_to_num()

    return candidates
