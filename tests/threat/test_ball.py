from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import brentq

from sklearn_advsec.threat import Box, LpBall, _projection
from sklearn_advsec.threat._ball import as_norm, resolve_eps

DTYPES = [torch.float32, torch.float64]


def _points(dtype=torch.float64, n=40, d=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    delta = 2 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    lower = -torch.rand(n, d, generator=generator, dtype=torch.float64)
    upper = torch.rand(n, d, generator=generator, dtype=torch.float64)
    lower[:, 0] = 0.0  # one feature cannot go down, one not at all
    lower[:, 1] = upper[:, 1] = 0.0
    return delta.to(dtype), lower.to(dtype), upper.to(dtype)


def _nearest(point, norm, eps, lower, upper):
    """The projection by its multiplier: one equation, which the radius solves."""
    eps = np.broadcast_to(eps, point.shape)
    moves = eps > 0
    low, high = np.where(moves, lower, 0), np.where(moves, upper, 0)
    weight = np.divide(1, eps, out=np.zeros(point.shape), where=moves)

    def solution(multiplier):
        """Minimise (x - point)^2 / 2 + multiplier * (size of x) in the box."""
        if norm == 1:
            shrunk = np.abs(point) - multiplier * weight
            moved = np.sign(point) * np.maximum(shrunk, 0)
        else:
            moved = point / (1 + multiplier * weight**2)
        return np.clip(moved, low, high)

    def excess(multiplier):
        return np.sum((np.abs(solution(multiplier)) * weight) ** norm) - 1

    if excess(0) <= 0:
        return solution(0)
    return solution(brentq(excess, 0, 1e4, xtol=1e-13))


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("norm", [1, 2])
def test_projection_is_the_nearest_point(norm, scaled, boxed):
    delta, lower, upper = _points()
    eps = np.array([0.5, 1.0, 2.0, 0.0, 0.3, 1.0, 1.5]) if scaled else 0.9
    box = (lower, upper) if boxed else (None, None)
    projected = LpBall(norm, eps).project(delta, *box)
    for i in range(len(delta)):
        low = lower[i].numpy() if boxed else np.full(7, -50.0)
        high = upper[i].numpy() if boxed else np.full(7, 50.0)
        expected = _nearest(delta[i].numpy(), norm, eps, low, high)
        np.testing.assert_allclose(projected[i].numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [np.inf, 2, 1, 0])
def test_projection_lands_in_ball_and_box_and_keeps_what_is_inside(norm, dtype):
    delta, lower, upper = _points(dtype, n=200, d=30)
    eps = 3 if norm == 0 else 0.7
    ball = LpBall(norm, eps)
    projected = ball.project(delta, lower, upper)
    assert projected.dtype == dtype
    assert (ball.size(projected) <= eps * (1 + 1e-5)).all()
    assert ((projected >= lower) & (projected <= upper)).all()
    torch.testing.assert_close(ball.project(projected, lower, upper), projected)
    # Where the box leaves enough room, the whole budget is used.
    if norm in (1, 2):
        full = torch.linalg.vector_norm(torch.clamp(delta, lower, upper), norm, dim=1)
        size = ball.size(projected)
        assert torch.allclose(size, full.clamp_max(eps), rtol=1e-5)


def test_l0_projection_keeps_the_entries_that_matter():
    delta = torch.tensor([[3.0, -2.0, 1.0, 0.5]])
    torch.testing.assert_close(
        LpBall(0, 2).project(delta), torch.tensor([[3.0, -2.0, 0.0, 0.0]])
    )
    # The large entry has little room in its box: it is not worth one of two changes.
    upper = torch.tensor([[0.1, 9.0, 9.0, 9.0]])
    torch.testing.assert_close(
        LpBall(0, 2).project(delta, -9 * torch.ones(1, 4), upper),
        torch.tensor([[0.0, -2.0, 1.0, 0.0]]),
    )


def test_linf_eps_per_feature():
    delta = torch.full((1, 3), 5.0)
    ball = LpBall(np.inf, [0.0, 1.0, 2.0])
    torch.testing.assert_close(ball.project(delta), torch.tensor([[0.0, 1.0, 2.0]]))
    assert ball.size(torch.tensor([[0.0, 1.0, 1.0]])).item() == 1.0


@pytest.mark.parametrize("norm", [np.inf, 2, 1])
def test_random_points_are_uniform_in_the_ball(norm):
    d, n = 3, 20_000
    ball = LpBall(norm, 2.0)
    like = torch.zeros(n, d, dtype=torch.float64)
    delta = ball.random(like, torch.Generator().manual_seed(0))
    size = ball.size(delta) / 2.0
    assert size.max() <= 1
    # In a uniform ball, the share of points within radius r is r^d.
    for r in (0.3, 0.6, 0.9):
        assert abs((size <= r).double().mean() - r**d) < 0.015
    assert delta.mean(0).abs().max() < 0.03


def test_random_l0_changes_exactly_k_features():
    like = torch.zeros(50, 9)
    delta = LpBall(0, 4).random(
        like, torch.Generator().manual_seed(0), like + 0.1, like + 1
    )
    assert ((delta != 0).sum(1) == 4).all()
    with pytest.raises(ValueError, match="bounds"):
        LpBall(0, 4).random(like)


@pytest.mark.parametrize(
    ("norm", "scaled"),
    [(np.inf, False), (2, False), (1, False), (0, False)]
    + [(np.inf, True), (2, True), (1, True)],
)
def test_maximize_beats_every_point_of_ball_and_box(norm, scaled):
    gradient, lower, upper = _points(d=6, n=20)
    eps = 2 if norm == 0 else 0.8
    if scaled:
        eps = np.array([0.5, 1.0, 2.0, 0.7, 0.3, 1.0])
    ball = LpBall(norm, eps)
    best = ball.maximize(gradient, lower, upper)
    limit = 1 if scaled else eps
    assert (ball.size(best) <= limit * (1 + 1e-9)).all()
    assert ((best >= lower) & (best <= upper)).all()
    value = (gradient * best).sum(1)
    generator = torch.Generator().manual_seed(1)
    for scale in (0.3, 1.0, 5.0):
        for _ in range(100):
            other = scale * torch.randn(20, 6, generator=generator, dtype=torch.float64)
            other = ball.project(other, lower, upper)
            assert ((gradient * other).sum(1) <= value + 1e-9).all()
    # and the projection of a far step along the gradient comes to the same point
    if norm in (np.inf, 2) and not scaled:
        far = ball.project(1e9 * gradient, lower, upper)
        torch.testing.assert_close(best, far, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("norm", "eps", "name"),
    [
        (3, 1.0, "norm"),
        ("l3", 1.0, "norm"),
        (2, -0.1, "eps"),
        (2, np.nan, "eps"),
        (np.inf, np.inf, "eps"),
        (0, [1.0, 2.0], "eps"),
    ],
)
def test_bad_ball(norm, eps, name):
    with pytest.raises(ValueError, match=name):
        LpBall(norm, eps)


def test_eps_that_does_not_fit_the_rows():
    with pytest.raises(ValueError, match="eps has shape"):
        LpBall(np.inf, [1.0, 2.0]).project(torch.zeros(4, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_box_holds_every_point_of_its_room(dtype):
    rng = np.random.RandomState(0)
    X = rng.uniform(-1.7, 3.3, size=(500, 4))
    box = Box((-1.7, 3.3), X)
    x = torch.as_tensor(X, dtype=dtype)
    lower, upper = box.perturbation_bounds(x)
    assert (lower <= 0).all() and (upper >= 0).all()
    assert (x + lower >= torch.tensor(-1.7, dtype=dtype)).all()
    assert (x + upper <= torch.tensor(3.3, dtype=dtype)).all()


def test_box_learned_from_data():
    X = np.array([[0.0, 10.0], [1.0, 30.0]])
    box = Box("data", X)
    np.testing.assert_array_equal(box.lower, [0.0, 10.0])
    np.testing.assert_array_equal(box.upper, [1.0, 30.0])
    # A row outside of the range stays where it is, but may come back.
    lower, upper = box.perturbation_bounds(torch.tensor([[2.0, 20.0]]))
    assert lower.tolist() == [[-2.0, -10.0]] and upper.tolist() == [[0.0, 10.0]]
    images = np.zeros((2, 1, 2, 2))
    images[0, 0, 0, 0] = 5.0
    assert Box("data", images).upper == 5.0


@pytest.mark.parametrize(
    "bounds", [(1, 0), (0, 1, 2), ("a", "b"), (np.zeros(3), np.ones(3)), (0.0, 0.5)]
)
def test_bad_bounds(bounds):
    with pytest.raises(ValueError, match="bounds"):
        Box(bounds, np.ones((2, 2)))


# Norms and radii as they are written ----------------------------------------------------


def test_norms_have_names():
    for norm, text in [
        (np.inf, "inf"),
        (np.inf, "Linf"),
        (2, "l2"),
        (1, "l1"),
        (0, "l0"),
    ]:
        assert as_norm(norm) == as_norm(text) == norm
        assert LpBall(text, 1).norm == norm
    for wrong in (3, 0.5, np.nan, "max", None, [2], True, -1):
        with pytest.raises(ValueError, match="norm must be one of np.inf, 2, 1, 0"):
            LpBall(wrong, 1.0)
    with pytest.raises(ValueError, match="norm must be one of np.inf, 2 .or 'inf'"):
        as_norm("l1", allowed=(np.inf, 2))


@pytest.mark.parametrize(
    "eps", [-1, np.nan, np.inf, "a", None, [1, [2, 3]], [1.0, np.nan], True, 1j]
)
def test_radii_that_are_none_are_refused_by_name(eps):
    with pytest.raises(ValueError, match="eps must be"):
        LpBall(2, eps)
    with pytest.raises(ValueError, match="eps must be"):
        resolve_eps(eps, np.eye(3))
    with pytest.raises(ValueError, match="eps must be one whole number for norm=0"):
        LpBall(0, 1.5)


def test_eps_by_column_and_by_spread():
    X = pd.DataFrame(
        {
            "age": [20.0, 40, 60, np.nan],
            "job": list("abcd"),
            "rare": [0, 0, 0, 5],
            "same": 7.0,
        }
    )
    named = {"rare": 2, "age": 0.5}
    assert resolve_eps(0.3, X) == 0.3
    np.testing.assert_array_equal(resolve_eps(named, X), [0.5, 0, 2, 0])
    np.testing.assert_array_equal(resolve_eps(pd.Series(named), X), [0.5, 0, 2, 0])
    np.testing.assert_array_equal(LpBall("inf", named, X.columns).eps, [0.5, 0, 2, 0])
    np.testing.assert_allclose(resolve_eps(0.1, X, unit="range"), [4, 0, 0.5, 0])
    # Quartiles of `rare` do not differ: its range stands for them.
    np.testing.assert_allclose(resolve_eps(named, X, unit="iqr"), [10, 0, 2.5, 0])
    std = [X["age"].std(ddof=0), 0, X["rare"].std(ddof=0), 0]
    np.testing.assert_allclose(resolve_eps(1, X, unit="std"), std)
    array = X[["age", "rare"]].to_numpy()
    np.testing.assert_allclose(resolve_eps({1: 2}, array, unit="range"), [0, 10])
    np.testing.assert_allclose(resolve_eps([1, 0.1], array, unit="range"), [40, 0.5])
    images = np.arange(24.0).reshape(2, 3, 2, 2)
    assert resolve_eps(0.5, images, unit="range") == 11.5


@pytest.mark.parametrize(
    ("eps", "options", "message"),
    [
        ({"aeg": 1}, {}, "unknown column 'aeg'.*did you mean 'age'"),
        ({"job": 1}, {}, "'job', which holds no numbers"),
        ({"age": -1}, {}, "not negative"),
        ({"age": 1}, {"norm": 0}, "norm=0"),
        (2, {"norm": "l0", "unit": "std"}, "norm=0"),
        (1, {"unit": "mad"}, "eps_unit must be one of"),
        ([1, 2, 3], {"unit": "std"}, "eps has shape"),
    ],
)
def test_eps_that_names_or_fits_nothing_is_refused(eps, options, message):
    X = pd.DataFrame({"age": [1.0, 2.0], "job": ["a", "b"]})
    with pytest.raises(ValueError, match=message):
        resolve_eps(eps, X, **options)


def test_eps_by_name_needs_columns():
    with pytest.raises(ValueError, match="give the columns"):
        LpBall(2, {"age": 1.0})


@contextmanager
def counted_looks(monkeypatch):
    """Count how often something waits for what a device computes."""
    looks = []

    def counted(function):
        def look(*args, **kwargs):
            looks.append(function)
            return function(*args, **kwargs)

        return look

    with monkeypatch.context() as patch:
        for name in (
            "__bool__",
            "__int__",
            "__float__",
            "item",
            "cpu",
            "tolist",
            "numpy",
        ):
            patch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
        for name in ("nonzero", "equal"):
            patch.setattr(torch, name, counted(getattr(torch, name)))
        yield looks


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_projections_wait_for_no_gpu(norm, scaled, monkeypatch):
    torch.manual_seed(0)
    delta = torch.randn(500, 40, dtype=torch.float64)
    delta[::3] *= 0.01  # inside
    delta[1] = 0
    lower, upper = -torch.rand_like(delta), torch.rand_like(delta)
    upper[:, ::7] = 0  # features that stay
    eps = 0.1 + torch.rand(40, dtype=torch.float64).numpy() if scaled else 0.9
    ball = LpBall(norm, eps)
    for box in ((), (lower, upper)):
        expected = ball.project(delta, *box)
        with counted_looks(monkeypatch) as usual:
            ball.project(delta, *box)
        monkeypatch.setattr(_projection, "_SEEN_AT_ONCE", ())
        with counted_looks(monkeypatch) as looks:
            found = ball.project(delta, *box)
        monkeypatch.undo()
        assert len(looks) == 0 and (scaled or len(usual) > 0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", [1, 2])
def test_a_projection_that_stops_early_is_inside(norm, monkeypatch):
    monkeypatch.setattr(_projection, "_SEEN_AT_ONCE", ())
    monkeypatch.setattr(_projection, f"_ROUNDS_L{norm}", 1)
    torch.manual_seed(0)
    delta = 3 * torch.randn(200, 40, dtype=torch.float64)
    upper = torch.rand_like(delta)
    found = LpBall(norm, 0.9).project(delta, -upper, upper)
    assert (torch.linalg.vector_norm(found, ord=norm, dim=1) <= 0.9 + 1e-9).all()
    assert (found.abs() <= upper).all()
