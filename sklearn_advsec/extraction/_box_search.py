"""The boxes of a decision tree: corners are asked, edges bisected."""

import numpy as np


class Region:
    """A box that is still, or was, to be explored; a node of the tree in the making.

    Attributes
    ----------
    low, high : ndarray of float32, shape (n_features,)
        The smallest and the largest values inside.
    given : ndarray of bool, shape (n_features,)
        Which features are named in queries; the others are missing values.
    code : int
        What the victim answers at the lower corner.
    edges : dict of int to float, or None
        The last value inside the lower corner's leaf along each feature that leaves it,
        where that is known from the parent.
    feature, cut : int, float
        The split, once there is one: values up to `cut` go left.
    left, right : Region
        Its children.
    """

    def __init__(self, low, high, given, code=None, edges=None):
        self.low, self.high, self.given = low, high, given
        self.code, self.edges = code, edges
        self.feature = self.cut = self.left = self.right = None
        self.certified = False

    def split(self, feature, cut):
        """Cut in two; the left child keeps the lower corner and what is known of it."""
        self.feature, self.cut = feature, cut
        high, low = self.high.copy(), self.low.copy()
        high[feature], low[feature] = cut, above(cut)
        edges = None
        if self.edges is not None:
            edges = {j: a for j, a in self.edges.items() if (j, a) != (feature, cut)}
        self.left = Region(self.low, high, self.given, self.code, edges)
        self.right = Region(low, self.high, self.given, self.code)
        return self.left, self.right


class BoxSearch:
    """Explore a box until every part of it is known to be one leaf.

    Two opposite corners of a box in the same leaf prove that all of it is in that leaf,
    since leaves are boxes. Otherwise the leaf of the lower corner ends along some
    feature; group testing finds which, bisection where, and two further queries tell
    whether the cut goes through the whole box, as that of the tree's own node does.

    Parameters
    ----------
    ask : callable
        Takes one row, returns the code of its answer: equal codes, same leaf.
    low, high : ndarray of float32, shape (n_features,)
        The box.
    spacing : ndarray of shape (n_features,)
        Grid on which cuts are likely (half the resolution of the data), 0 for none. It
        saves queries and is never relied on.
    named : bool, default=True
        Whether equal codes are the same leaf. If not, they are any union of leaves: what
        two corners prove is then only likely, and group testing would not be sound. It
        becomes False where an answer shows that leaves are no boxes.
    incomplete : bool, default=False
        Whether the victim takes rows with missing values, and answers at the node where
        the first of them is needed.
    """

    def __init__(self, ask, low, high, spacing, *, named=True, incomplete=False):
        self._ask = ask
        self.named = named
        self.spacing = spacing
        self.incomplete = incomplete
        self.cuts = [[] for _ in low]
        given = np.full(len(low), not incomplete)
        self.root = Region(low, high, given)
        self.open = [self.root]

    def run(self):
        """Explore what is open. An interrupted run can be taken up again."""
        while self.open:
            region = self.open[-1]
            children = self._explore(region)
            self.open.pop()
            self.open.extend(children[::-1])

    def region_of(self, row):
        """Return the region that a row is in."""
        region = self.root
        while region.left is not None:
            goes_left = row[region.feature] <= region.cut
            region = region.left if goes_left else region.right
        return region

    def refine(self, region, row):
        """Open a region again that was wrongly taken for one leaf.

        Parameters
        ----------
        region : Region
            A certified region.
        row : ndarray of shape (n_features,)
            A row in it whose answer is another one.
        """
        j, cut = self._edge_towards(region, row, region.code)
        region.certified, region.edges = False, None
        self.open.extend(region.split(j, cut)[::-1])
        self.run()

    # One region ------------------------------------------------------------------------

    def _explore(self, region):
        region.code = code = self._at(region, region.low)
        if self._at(region, region.high) != code:
            if self.named:
                region.edges = self._edges(region, code)
                # A box that the upper corner is not in ends along some feature.
                self.named = bool(region.edges)
            edges = region.edges
            if not edges:
                edges = dict([self._edge_towards(region, region.high, code)])
            return region.split(*self._choose(region, edges))
        if self.incomplete:
            feature = self._needed(region, code)
            if feature is not None:
                region.given = region.given.copy()
                region.given[feature] = True
                region.edges = None
                return self._explore(region)
        region.certified = True
        return []

    def _at(self, region, row):
        return self._ask(np.where(region.given, row, np.nan))

    def _needed(self, region, code):
        """Find the missing feature at which the victim stops, if it is no leaf."""
        features = np.flatnonzero(~region.given & (region.low < region.high))
        if not len(features) or not self._stops_at(region, features, code):
            return None
        while len(features) > 1:
            half = features[: len(features) // 2]
            found = self._stops_at(region, half, code)
            features = half if found else features[len(half) :]
        return features[0]

    def _stops_at(self, region, features, code):
        given = region.given.copy()
        given[features] = True
        return self._ask(np.where(given, region.low, np.nan)) != code

    def _edges(self, region, code):
        """Find along which features the lower corner's leaf ends, and where."""
        if region.edges is not None:
            return region.edges
        features = np.flatnonzero(region.given & (region.low < region.high))
        return {
            j: self._bisect(region, region.low, j, region.low[j], region.high[j], code)
            for j in self._leaving(region, features, code, confirmed=True)
        }

    def _leaving(self, region, features, code, confirmed=False):
        """Find by group testing which features, moved to the other end, leave the leaf.

        Several together stay inside just if each of them does, by itself.
        """
        if not confirmed:
            row = region.low.copy()
            row[features] = region.high[features]
            if self._at(region, row) == code:
                return []
        if len(features) == 1:
            return [int(features[0])]
        half = len(features) // 2
        first = self._leaving(region, features[:half], code)
        return first + self._leaving(region, features[half:], code, confirmed=not first)

    def _edge_towards(self, region, row, code):
        """Find an edge between the lower corner and a row that answers otherwise."""
        order = np.arange(len(row))
        inside, outside = 0, len(row)  # how many features, in order, are moved
        while outside - inside > 1:
            middle = (inside + outside) // 2
            moved = np.where(order < middle, row, region.low)
            if self._at(region, moved) == code:
                inside = middle
            else:
                outside = middle
        j = outside - 1
        base = np.where(order < inside, row, region.low)
        return j, self._bisect(region, base, j, region.low[j], row[j], code)

    def _choose(self, region, edges):
        """Choose the edge that goes on through the whole region: the node's own split."""
        lines = []
        for j, cut in edges.items():
            if self._goes_through(region, j, cut):
                return j, cut
            lines.append((j, cut))
        # The node's split may be hidden behind another one of the same feature.
        while lines:
            further = []
            for j, cut in lines:
                row = region.low.copy()
                row[j] = start = above(cut)
                here = self._at(region, row)
                end = row.copy()
                end[j] = region.high[j]
                if start == region.high[j] or self._at(region, end) == here:
                    continue
                cut = self._bisect(region, row, j, start, region.high[j], here)
                if self._goes_through(region, j, cut):
                    return j, cut
                further.append((j, cut))
            lines = further
        return next(iter(edges.items()))

    def _goes_through(self, region, j, cut):
        row = region.high.copy()
        row[j] = above(cut)
        beyond = self._at(region, row)
        row[j] = cut
        return self._at(region, row) != beyond

    # One edge --------------------------------------------------------------------------

    def _bisect(self, region, base, j, inside, outside, code):
        """Return the last value of feature j, from `inside` on, that answers `code`."""

        def stays(value):
            row = base.copy()
            row[j] = value
            return self._at(region, row) == code

        cut = last_inside(
            stays, np.float32(inside), np.float32(outside), self.cuts[j], self.spacing[j]
        )
        if cut not in self.cuts[j]:
            self.cuts[j] = sorted([*self.cuts[j], cut])
        return cut


def last_inside(stays, inside, outside, cuts, spacing):
    """Find the last float32 for which `stays`, between one that does and one that not.

    Parameters
    ----------
    stays : callable
        Takes a float32.
    inside, outside : float32
        The ends, `inside` being the smaller one.
    cuts : list of float32
        Values that have been the answer elsewhere: they are tried first.
    spacing : float
        The answer is likely to be next to a multiple of this; 0 if nothing is known.
    """
    known = [c for c in cuts if inside <= c < outside]
    while known:
        middle = len(known) // 2
        cut = known[middle]
        if cut > inside and not stays(cut):
            outside, known = cut, known[:middle]
        elif above(cut) < outside and stays(above(cut)):
            inside, known = above(cut), known[middle + 1 :]
        else:
            return cut
    tried = not spacing
    while above(inside) < outside:
        if tried:
            value = np.float32((np.float64(inside) + np.float64(outside)) / 2)
            value = min(max(value, above(inside)), below(outside))
        else:
            first = np.floor(np.float64(inside) / spacing) + 1
            n = np.ceil(np.float64(outside) / spacing) - first
            if n > 1:  # between the two multiples in the middle
                value = np.float32((first + n // 2 - 0.5) * spacing)
            if n <= 1 or not inside < value < outside:
                tried = True
                if n == 1:
                    inside, outside = _narrow_at(
                        stays, np.float32(first * spacing), inside, outside
                    )
                continue
        if stays(value):
            inside = value
        else:
            outside = value
    return inside


def _narrow_at(stays, value, inside, outside, most=4):
    """Narrow the interval around one value, by at most a few steps of the last bit."""
    if not inside < value < outside:
        return inside, outside
    forward = stays(value)
    for _ in range(most):
        following = above(value) if forward else below(value)
        inside, outside = (value, outside) if forward else (inside, value)
        if not inside < following < outside or stays(following) != forward:
            if inside < following < outside:
                inside, outside = (inside, following) if forward else (following, outside)
            break
        value = following
    return inside, outside


def above(value):
    """Return the next float32."""
    return np.nextafter(np.float32(value), np.float32(np.inf))


def below(value):
    """Return the float32 before."""
    return np.nextafter(np.float32(value), np.float32(-np.inf))


def likely_spacing(X, most=6):
    """Return half the resolution of each feature in decimals; 0 where there is none.

    A tree puts its thresholds in the middle between two values.
    """
    spacing = np.zeros(X.shape[1])
    for j, column in enumerate(X.T.astype(np.float64)):
        for decimals in range(most + 1):
            scaled = column * 10.0**decimals
            # Data in float32 has seven digits, whatever its resolution.
            tolerance = 1e-6 * np.maximum(np.abs(scaled), 1e-3)
            if (np.abs(scaled - np.rint(scaled)) <= tolerance).all():
                spacing[j] = 0.5 * 10.0**-decimals
                break
    return spacing
