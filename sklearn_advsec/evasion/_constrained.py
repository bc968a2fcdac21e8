"""Access to a victim under feature constraints: every question is a valid row."""

from operator import attrgetter

import torch

from .._rows import is_dataframe
from ..threat._constraints import missing_as_nan, nan_as_code
from ..threat._features import NAMED

# As many numbers are projected at a time.
_ELEMENTS = 2**17


def _of_victim(name):
    """Give what the victim's own access has under a name."""
    return property(
        attrgetter(f"_access.{name}"), doc=f"`{name}` of the victim's access."
    )


class ConstrainedAccess:
    """An access whose every question is about a valid row.

    The attack works in units of scale: its rows are ``x / scale``, with categories as
    their codes. Before the victim is asked, a point is projected onto the constraints,
    the range and the ball; gradients there are handed on as they are, those of the
    projection being taken as 1 (as in BPDA, arXiv:1802.00420). So what an attack finds
    is a success of the valid row, and nothing has to be repaired afterwards.

    Parameters
    ----------
    access : LabelAccess
        The victim.
    constraints : FeatureConstraints
        The constraints.
    box : Box
        The attack's bounds, which narrow those of the constraints where they are given.
    ball : LpBall, optional
        Of a given radius, in units of scale.
    mask : ndarray of bool, shape (n_features,), optional
        Which features may change.
    losable : ndarray of bool, shape (n_features,), optional
        Whose values the victim takes as missing, where constraints let them go.

    Attributes
    ----------
    x : tensor of shape (n_rows, n_features)
        The rows in units of scale.
    ref : tensor of float64, shape (n_rows, n_features)
        The rows in the units of the region.
    region : Region
        The constraints.
    unit : tensor of float64, shape (n_features,)
        The scale of each feature.
    lower, upper : tensor of float64, shape (n_rows, n_features)
        The range of each feature, narrowed by the ball.
    may_go_missing : tensor of bool, shape (n_features,)
        Whose values an attack may remove.
    """

    X = _of_victim("X")
    affordable = _of_victim("affordable")
    auto_batch_size = _of_victim("auto_batch_size")
    classes = _of_victim("classes")
    decisive = _of_victim("decisive")
    device = _of_victim("device")
    estimator = _of_victim("estimator")
    exact = _of_victim("exact")
    knowledge = _of_victim("knowledge")
    max_queries = _of_victim("max_queries")
    max_total_queries = _of_victim("max_total_queries")
    mixed = _of_victim("mixed")
    n_queries = _of_victim("n_queries")
    n_total_queries = _of_victim("n_total_queries")
    on_query = _of_victim("on_query")
    precision = _of_victim("precision")
    probability = _of_victim("probability")
    refer = _of_victim("refer")
    reference = _of_victim("reference")
    skipped = _of_victim("skipped")
    skips = _of_victim("skips")

    def __init__(self, access, constraints, box, ball=None, mask=None, losable=None):
        self._access = access
        columns = list(access.X.columns) if is_dataframe(access.X) else None
        self._constraints = constraints.in_order(columns)
        self.region = self._constraints.region
        self.unit = self.region.scale
        self.ref = self._constraints.encode(access.X)
        self._named = torch.tensor(
            [f.kind in NAMED for f in self._constraints.features.values()]
        )
        # Codes of a codec that the constraints do not know say nothing to them.
        codec = access.codec
        self._frozen = self._named & (codec.columns is not None and not codec.categories)
        self.x = (self.ref / self.region.scale).to(access.x)
        self._ball = ball
        self._masked = torch.zeros_like(self._named)
        if mask is not None:
            self._masked |= ~torch.as_tensor(mask)
        self._set_bounds(box)
        self.may_go_missing = torch.zeros_like(self._named)
        if losable is not None:  # a column of a group says nothing by itself
            self.may_go_missing = torch.as_tensor(losable) & ~self._frozen & ~self._masked
            for group in self.region.groups:
                self.may_go_missing[group] = False

    def _set_bounds(self, box):
        lower, upper = self.region.reachable_range(self.ref)
        # No arithmetic leads from one category to another.
        hold = self._frozen | self.region.nominal | self._masked
        lower = torch.where(hold, self.ref, lower)
        upper = torch.where(hold, self.ref, upper)
        if box.given:
            low, high = (torch.as_tensor(b, dtype=torch.float64) for b in
                         (box.lower, box.upper))  # fmt: skip
            lower = torch.where(hold, lower, torch.maximum(lower, low))
            upper = torch.where(hold, upper, torch.minimum(upper, high))
        self.free_lower, self.free_upper = lower, upper
        if self._ball is not None and self._ball.norm != 0:
            reach = self._ball.scale(self.ref) * self.region.scale * (1 + 1e-9)
            lower = torch.maximum(lower, self.ref - reach)
            upper = torch.minimum(upper, self.ref + reach)
        # For the projection, categories that an attack set by itself are in range.
        free = self.free_categories = self.region.nominal & ~self._frozen & ~self._masked
        first, last = self.region.reachable_range(self.ref)
        self.lower = torch.where(free, first, lower)
        self.upper = torch.where(free, last, upper)

    def perturbation_bounds(self):
        """Return the box for the perturbation, in units of scale; it holds 0."""
        return tuple(
            ((bound - self.ref) / self.region.scale).nan_to_num(0.0).to(self.x)
            for bound in (self.free_lower, self.free_upper)
        )

    def predict(self, x, rows=None):
        """As of the victim's access."""
        return self._access.predict(self.to_victim(x, rows), rows)

    def scores(self, x, rows=None):
        """As of the victim's access."""
        return self._access.scores(self.to_victim(x, rows), rows)

    def logits(self, x, rows=None):
        """As of the victim's access."""
        return self._access.logits(self.to_victim(x, rows), rows)

    def jacobian(self, x, rows, outputs):
        """As of the victim's access, in units of scale."""
        logits, gradients = self._access.jacobian(self.to_victim(x, rows), rows, outputs)
        # What has no room would only take its share of a step.
        at = _index(rows)
        free = (self.free_upper[at] > self.free_lower[at]) & ~self._named
        scale = torch.where(free, self.region.scale, 0.0).to(gradients)
        return logits, gradients * scale[:, None]

    def gradient(self, x, rows, loss):
        """As of the victim's access, in units of scale."""
        logits, gradients = self.jacobian(
            x, rows, lambda logits, at: loss(logits, at)[:, None]
        )
        return logits, gradients[:, 0]

    def decode(self, x, rows=None):
        """Return valid rows in the form of `X`."""
        return self._access.decode(self.to_victim(x, rows), rows)

    def encode(self, X):
        """Return rows in the form of `X` in units of scale."""
        return (self._constraints.encode(X) / self.region.scale).to(self.x)

    def predictions(self, predicted, x, rows):
        """As of the victim's access."""
        return self._access.predictions(predicted, self.to_victim(x, rows), rows)

    def moved(self, x, rows):
        """Return the move of each feature of a valid row, in units of scale."""
        at = _index(rows)
        return self.region.moved(self.ref[at], self.valid(x, rows)).to(self.x)

    def still_valid(self, x, rows):
        """Check the rows once more as they are returned."""
        array = self._access.codec.encode(self.decode(x, rows))
        again = self.from_victim(torch.as_tensor(array, dtype=torch.float64), rows)
        rtol = 1e-5 if self.x.dtype == torch.float32 else 1e-6
        return self.region.valid(self.ref[_index(rows)], again, rtol)

    def valid(self, x, rows=None):
        """Return the valid rows that points in units of scale stand for."""
        at = torch.arange(len(x)) if rows is None else _index(rows)
        # In parts that stay in the cache: a projection is many passes over its rows.
        parts = max(1, -(-x.numel() // _ELEMENTS))
        valid = [
            self._valid(part, index)
            for part, index in zip(x.chunk(parts), at.chunk(parts), strict=True)
        ]
        return valid[0] if len(valid) == 1 else torch.cat(valid)

    def _valid(self, x, at):
        ref, region = self.ref[at], self.region
        point = x.detach().cpu().to(torch.float64) * region.scale
        start = self.x[at.to(self.x.device)]
        same = ((x == start) | (x.isnan() & start.isnan())).cpu()
        point = torch.where(same | self._frozen, ref, point)
        fits = None if self._ball is None else self.in_ball
        return region.project(ref, point, self.lower[at], self.upper[at], fits)

    def in_ball(self, ref, point):
        """Whether valid rows are in the ball."""
        ball = self._ball
        if ball.norm == 0:
            return self.region.changed(ref, point) <= int(ball.eps)
        radius = 1.0 if ball.eps.ndim else float(ball.eps)
        return ball.size(self.region.moved(ref, point)) <= radius * (1 + 1e-6) + 1e-12

    def to_victim(self, x, rows=None):
        """Return valid rows in the units of the victim's access."""
        at = _index(rows)
        return self.of_region(self.valid(x, rows), at)

    def of_region(self, point, at=slice(None)):
        """Turn rows of the region into rows of the victim's access."""
        ref, start = self.ref[at], self._access.x[at]
        result = point.numpy()
        if self._access.codec.columns is None:
            result = self._constraints.values_of(result)
        elif not self._frozen.any():
            result = nan_as_code(self._access.codec, result)
        result = torch.as_tensor(result).to(start)
        same = (point == ref) | (point.isnan() & ref.isnan()) | self._frozen
        return torch.where(same.to(start.device), start, result)

    def from_victim(self, array, rows=None):
        """Undo :meth:`of_region`; columns that it cannot read are as they were."""
        ref = self.ref[_index(rows)]
        if self._access.codec.columns is None:
            return self._constraints.codes_of(array.numpy())
        if not self._frozen.any():
            return torch.as_tensor(
                missing_as_nan(self._access.codec, array.numpy().copy())
            )
        return torch.where(self._frozen, ref, array)


def _index(rows):
    return slice(None) if rows is None else torch.as_tensor(rows).cpu()
