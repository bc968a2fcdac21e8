"""Views of regressors agree with their predictions, and have their gradients."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_diabetes
from sklearn.ensemble import BaggingRegressor, StackingRegressor, VotingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lars,
    LinearRegression,
    OrthogonalMatchingPursuit,
    PoissonRegressor,
    RANSACRegressor,
    Ridge,
    RidgeCV,
    TheilSenRegressor,
    TweedieRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVR, NuSVR

from sklearn_advsec._rows import RowCodec
from sklearn_advsec.differentiable import view
from sklearn_advsec.exceptions import NoGradientError

X, y = load_diabetes(return_X_y=True)
X, y = X[:100] / X.std(axis=0), y[:100] / 100
Mlp = MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, tol=1e9, random_state=0)
# MLPRegressor knows other losses since scikit-learn 1.7.
POISSON_MLP = MLPRegressor(
    hidden_layer_sizes=(5,), loss="poisson", max_iter=20, tol=1e9, random_state=0
)
SCALES = np.linspace(2, 4, X.shape[1])
KERNELS = {
    "rbf": 2.0 * kernels.RBF(SCALES) + kernels.WhiteKernel(0.1),
    **{f"matern-{nu}": kernels.Matern(3.0, nu=nu) for nu in (0.5, 1.5, 2.5, np.inf)},
    "rational": kernels.RationalQuadratic(3.0, alpha=0.7),
    "periodic": kernels.ExpSineSquared(2.0, periodicity=9.0) + kernels.WhiteKernel(50.0),
    "dot": (kernels.DotProduct(2.0) ** 2) * 0.1 + kernels.ConstantKernel(0.3),
}
TWO = [("a", Ridge()), ("out", "drop"), ("b", SVR())]

REGRESSORS = {
    "elastic-net": ElasticNet(0.01),
    "huber": HuberRegressor(max_iter=1000),
    "lars": Lars(),
    "omp": OrthogonalMatchingPursuit(),
    "ridge-cv": RidgeCV(),
    "theil-sen": TheilSenRegressor(max_subpopulation=100, random_state=0),
    "ransac": RANSACRegressor(Ridge(), min_samples=50, random_state=0),
    "pls": PLSRegression(3),
    "poisson": PoissonRegressor(),
    "gamma": GammaRegressor(),
    "tweedie": TweedieRegressor(power=0),
    "tweedie-log": TweedieRegressor(power=1.5),
    "tweedie-link": TweedieRegressor(power=0, link="log"),
    **{f"svr-{kernel}": SVR(kernel=kernel) for kernel in ("linear", "rbf", "poly")},
    "nu-svr": NuSVR(gamma=0.1),
    **{
        f"kernel-ridge-{kernel}": KernelRidge(kernel=kernel)
        for kernel in ("linear", "rbf", "laplacian", "polynomial")
    },
    **{
        f"gaussian-process-{name}": GaussianProcessRegressor(
            kernel, alpha=0.1, optimizer=None, normalize_y=True
        )
        for name, kernel in KERNELS.items()
    },
    "neighbours": KNeighborsRegressor(7, weights="distance"),
    "neighbours-manhattan": KNeighborsRegressor(3, weights="distance", p=1),
    "mlp": Mlp,
    "mlp-poisson": POISSON_MLP,
    "bagging": BaggingRegressor(Ridge(), 3, max_features=0.6, random_state=0),
    "voting": VotingRegressor(TWO, weights=[2, 9, 1]),
    "stacking": StackingRegressor(TWO, SVR(), cv=2),
    "stacking-passthrough": StackingRegressor(TWO, Ridge(), cv=2, passthrough=True),
    "target-log": TransformedTargetRegressor(
        Ridge(), func=np.log1p, inverse_func=np.expm1
    ),
    "target-scaler": TransformedTargetRegressor(SVR(), transformer=RobustScaler()),
    "search": GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [1, 10]}, cv=2
    ),
}


@pytest.mark.parametrize("regressor", REGRESSORS.values(), ids=REGRESSORS)
def test_values_and_gradients(regressor):
    regressor.fit(X, y)
    x = torch.tensor(X[:4] + 1e-3, requires_grad=True)
    values = view(regressor).logits(x)
    assert values.shape == (4, 1)
    told = np.ravel(regressor.predict(x.detach().numpy()))
    np.testing.assert_allclose(values.detach()[:, 0], told, rtol=1e-7)
    gradient = torch.autograd.grad(values.sum(), x)[0].numpy()
    step = 1e-5 * np.random.default_rng(0).normal(size=X.shape[1])
    ends = [np.ravel(regressor.predict(x.detach().numpy() + s * step)) for s in (1, -1)]
    np.testing.assert_allclose(
        gradient @ (2 * step), ends[0] - ends[1], rtol=1e-3, atol=1e-9
    )


def test_neighbours_that_count_alike_have_their_values_and_a_slope():
    regressor = KNeighborsRegressor(9).fit(X, y)
    x = torch.tensor(X + 1e-3, requires_grad=True)
    values = view(regressor).logits(x)
    np.testing.assert_allclose(values.detach()[:, 0], regressor.predict(X + 1e-3))
    slope = torch.autograd.grad(values.sum(), x)[0]
    with torch.no_grad():
        moved = x + slope / slope.norm(dim=1, keepdim=True)
    # Their mean is 0 where a slope says nothing of what the regressor does.
    assert np.mean(regressor.predict(moved.numpy()) - regressor.predict(X)) > 0.1


@pytest.mark.parametrize("name", ["target-log", "target-scaler", "stacking", "voting"])
def test_behind_categories(name):
    frame = pd.DataFrame(X[:, :3], columns=list("abc"))
    frame["kind"] = np.tile(list("uvwx"), 25)
    columns = make_column_transformer(
        (StandardScaler(), ["a", "b", "c"]), (OneHotEncoder(), ["kind"])
    )
    inner = clone(REGRESSORS[name])
    if name.startswith("target"):
        regressor = inner.set_params(regressor=make_pipeline(columns, Ridge()))
    else:
        regressor = make_pipeline(columns, inner)
    regressor.fit(frame, y)
    codec = RowCodec(frame)
    values = view(regressor, codec.columns).logits(torch.as_tensor(codec.encode(frame)))
    np.testing.assert_allclose(values[:, 0], regressor.predict(frame), rtol=1e-7)


@pytest.mark.parametrize(
    ("regressor", "target", "message"),
    [
        (LinearRegression(), np.column_stack([y, y]), "2 values a row"),
        (KernelRidge(), np.column_stack([y, y]), "2 values a row"),
        (KNeighborsRegressor(), np.column_stack([y, y]), "2 values a row"),
        (KNeighborsRegressor(weights=np.exp), y, "function as weights"),
        (GaussianProcessRegressor(), np.column_stack([y, y]), "2 values a row"),
        (
            GaussianProcessRegressor(kernels.Matern(nu=0.7), optimizer=None),
            y,
            "no differentiable form",
        ),
        (
            TransformedTargetRegressor(Ridge(), transformer=PowerTransformer()),
            y,
            "inverse of PowerTransformer",
        ),
        (
            TransformedTargetRegressor(
                Ridge(), func=np.sqrt, inverse_func=lambda v: np.array(v.tolist()) ** 2
            ),
            y,
            "FunctionTransformer",
        ),
    ],
)
def test_what_has_no_view(regressor, target, message):
    regressor.fit(X, target)
    with pytest.raises(NoGradientError, match=message):
        view(regressor).logits(torch.tensor(X[:2]))
