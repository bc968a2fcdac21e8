"""Inference on data that the server never sees, by homomorphic encryption.

All cryptography is Microsoft SEAL's, through TenSEAL: ``pip install
"sklearn_advsec[fhe]"``. Everything here imports without it.
"""

from ._array import HomomorphicArray, HomomorphicClient, HomomorphicKeys
from ._discretized import DiscretizedMLPClassifier
from ._estimators import EncryptedClassifier, EncryptedRegressor
from ._graph import register_graph
from ._halves import Client, Server
from ._messages import MessageError
from ._polynomials import PolynomialActivation
from ._ready import EncryptionReadyTraining
from ._service import EncryptedClient, EncryptionService
from ._tfhe import TFHE

__all__ = [
    "Client",
    "DiscretizedMLPClassifier",
    "EncryptedClassifier",
    "EncryptedClient",
    "EncryptedRegressor",
    "EncryptionReadyTraining",
    "EncryptionService",
    "HomomorphicArray",
    "HomomorphicClient",
    "HomomorphicKeys",
    "MessageError",
    "PolynomialActivation",
    "Server",
    "TFHE",
    "register_graph",
]
