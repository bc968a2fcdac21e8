"""
=================================
Digits that the server never sees
=================================

A perceptron reads handwritten digits that arrive encrypted. Its ReLU becomes a
polynomial: the higher the degree, the nearer it is, and the more products in a row the
ciphertexts have to bear, which makes them larger and slower.
"""

# %%
# The model
# ---------

import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

try:
    import tenseal  # noqa: F401
except ImportError:
    sys.exit('This example needs TenSEAL: pip install "sklearn_advsec[fhe]"')

from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from sklearn_advsec.encryption import EncryptedClassifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
network = MLPClassifier((32,), alpha=1.0, max_iter=1000, random_state=0)
network.fit(X_train, y_train)
print(f"accuracy in the clear: {network.score(X_test, y_test):.3f}")

# %%
# Degree against cost
# -------------------
# `fit` compiles: it folds what is affine, fits the polynomial to the values that the
# activation meets, and chooses the smallest ring with 128-bit security. `simulate` says
# what the polynomials alone change, without any keys.

degrees, share, milliseconds, megabytes = (2, 3, 4, 7), [], [], []
for degree in degrees:
    encrypted = EncryptedClassifier(
        FrozenEstimator(network), activation=degree, packing="rows", agreement=0.0
    ).fit(X_train)
    share.append(np.mean(encrypted.simulate(X_test) == network.predict(X_test)))
    client, server = encrypted.client(), encrypted.server()
    keys = client.evaluation_keys()
    server.register(keys)
    (question,) = client.encrypt(X_test[:1])
    started = time.process_time()
    answer = server.evaluate(question)
    milliseconds.append(1e3 * (time.process_time() - started))
    megabytes.append(len(keys) / 1e6)
    label = client.decrypt(answer)[0]
    print(
        f"degree {degree}: a {y_test[0]} is read as {label}; {encrypted.depth_} products "
        f"in a row, {encrypted.parameters_['rows'].degree} coefficients"
    )

# %%
# The two halves
# --------------
# The server held weights and evaluation keys, the client its secret key. What the server
# learns is how often it was asked, and when.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), layout="constrained")
for ax, values, title, top in zip(
    axes,
    (share, milliseconds, megabytes),
    ("share of labels equal to the network's", "server, ms of CPU a row", "keys, MB"),
    (1.05, None, None),  # a share of all, or one digit in 450 would look like a trend
    strict=True,
):
    ax.plot(degrees, values, "o-")
    ax.set(xlabel="degree of the polynomial", title=title, xticks=degrees, ylim=(0, top))

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "encrypted_digits.png", dpi=110)
    print(f"figure: {folder}/encrypted_digits.png")
