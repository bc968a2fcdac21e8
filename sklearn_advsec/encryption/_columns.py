"""Packing by columns: a ciphertext a feature, with as many rows as it has slots."""

import numpy as np
from scipy import sparse

from ._levels import Bound
from ._program import row_norm


class Columns:
    """How a program is evaluated on many rows at once (as in CryptoNets).

    Every weight is one product of a ciphertext with a number, whatever the number of
    rows: the cost of a batch is that of one row.

    Parameters
    ----------
    program : Program
        The network.
    parameters : Parameters
        The ring.

    References
    ----------
    .. [1] R. Gilad-Bachrach et al., "CryptoNets: applying neural networks to encrypted
       data with high throughput and accuracy", ICML 2016 (Section 3).
    """

    name = "columns"
    steps = ()
    special_bits = 0

    def __init__(self, program, parameters):
        self.program = program
        self.parameters = parameters
        self.rows_per_message = parameters.n_slots
        self._layers = [_sparse(layer) for layer in program.layers]

    def n_ciphertexts(self, layer):
        """Return how many ciphertexts hold the outputs of a layer."""
        return len(layer.bias)

    def bounded(self, k, x, arithmetic):
        """Bound the error of an affine layer, and count its products."""
        layer, weight = self.program.layers[k], self._layers[k]
        norm = row_norm(layer)
        # Weights are rounded when they are encoded: one unit of the factor's scale.
        n_terms = int(np.diff(weight.indptr).max(initial=1))
        error = norm * x.error + n_terms * x.value / arithmetic.prime(x.level)
        error += arithmetic.noise.rescaling / arithmetic.scale
        arithmetic.counts["plain_products"] += weight.nnz
        value = norm * x.value + float(np.abs(layer.bias).max())
        return Bound(x.level - 1, arithmetic.scale, value, error)

    def pack(self, T):
        """Return the numbers of the ciphertexts: an array for each feature."""
        return list(T.T)

    def evaluate(self, ciphertexts, arithmetic):
        """Evaluate the program.

        Parameters
        ----------
        ciphertexts : list of ciphertext
            One per feature.
        arithmetic : Arithmetic
            With the client's keys.

        Returns
        -------
        scores : list of ciphertext
            One per score.
        """
        values = ciphertexts
        for k, weight in enumerate(self._layers):
            bias = self.program.layers[k].bias
            level, scale = arithmetic.level(values[0]), arithmetic.ring.scale
            factor = arithmetic.factor_scale(values[0])
            # What is encoded as 0 would give a ciphertext that shows its content.
            least = 1.0 / factor
            outputs = []
            for j in range(weight.shape[0]):
                part = slice(weight.indptr[j], weight.indptr[j + 1])
                terms = zip(weight.indices[part], weight.data[part], strict=True)
                terms = [(i, w) for i, w in terms if abs(w) >= least] or [(0, least)]
                # One by one: as a list, the plaintexts of a neuron would fill the caches.
                total = arithmetic.weighted_sum(
                    (values[i], arithmetic.plain(float(w), level, factor))
                    for i, w in terms
                )
                total.scale = scale  # exact up to the last bit of a double
                outputs.append(arithmetic.add_plain(total, float(bias[j])))
            values = outputs
            if k < len(self.program.plans):
                plan = self.program.plans[k]
                values = [plan.encrypted(value, arithmetic) for value in values]
        return values

    def unpack(self, arrays, n_rows):
        """Return scores of shape (n_rows, n_scores)."""
        return np.stack([array[:n_rows] for array in arrays], axis=1)


def _sparse(layer):
    weight = layer.weight
    return weight if sparse.issparse(weight) else sparse.csr_array(weight)
