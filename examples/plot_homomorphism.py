"""
==========================
Arithmetic without looking
==========================

A homomorphic scheme lets anybody compute on numbers that nobody but the owner of the key
can read: ``ENC(x + y) = ENC(x) + ENC(y)``, and the same of products. Integers come out
exactly, reals with an error that is bounded beforehand.
"""

# %%
# Two parties
# -----------
# The client makes keys. What it hands out is enough to encrypt and to compute, and not to
# decrypt.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

try:
    import tenseal  # noqa: F401
except ImportError:
    sys.exit('This example needs TenSEAL: pip install "sklearn_advsec[fhe]"')

from sklearn_advsec.encryption import HomomorphicArray, HomomorphicClient

client = HomomorphicClient(depth=3, max_value=10)
public = client.public()

# %%
# Exact integers
# --------------
# Salaries of two firms, in thousands, are added up by somebody who sees neither.

x = HomomorphicArray([3, 1, 4, 1, 5], public, exact=True)
y = HomomorphicArray([2, 7, 1, 8, 2], public, exact=True)
print("sum:     ", client.decrypt(x + y))
print("product: ", client.decrypt(x * y))
print("dot:     ", client.decrypt(x @ y))

# %%
# Reals, and how far off they are
# -------------------------------
# Each operation adds noise. Its bound follows from the operations alone and tells nothing
# of the values; what is seen stays well below it, since worst cases do not meet.

rng = np.random.RandomState(0)
values = rng.uniform(-2, 2, 2000)
plain, power = values.copy(), HomomorphicArray(values, public)
seen, bounds = [], []
for _ in range(3):
    seen.append(np.abs(client.decrypt(power) - plain).max())
    bounds.append(power.error_bound)
    plain, power = plain * values, power * HomomorphicArray(values, public)
seen.append(np.abs(client.decrypt(power) - plain).max())
bounds.append(power.error_bound)

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.semilogy(range(1, 5), bounds, "s--", label="bound, for any values")
ax.semilogy(range(1, 5), seen, "o-", label="seen, of 2,000 values")
ax.set(
    xlabel="power that is computed under encryption",
    ylabel="error",
    xticks=range(1, 5),
    title="x, x², x³ and x⁴ of encrypted numbers",
)
ax.legend()

# %%
# Run as a script, the figure is written to the folder ``figures``, or to the one that is
# given as an argument.

if __name__ == "__main__" and "sphinx_gallery" not in sys.modules:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "homomorphism.png", dpi=110)
    print(f"figure: {folder}/homomorphism.png")
