"""What the second environment runs: concrete-python behind a pipe.

It is started as a script, by the Python that ``SKLEARN_ADVSEC_TFHE`` names, and reads
requests from its standard input; it imports nothing of this package but the framing of
messages, which lies beside it.
"""

import io
import json
import os
import struct
import sys
import tempfile
import traceback
import types
from pathlib import Path


class Worker:
    """One half: a client with its keys, or a server with those of its clients."""

    def __init__(self, fhe, numpy):
        self.fhe, self.numpy = fhe, numpy
        self.client = self.server = self.circuit = None
        self.keys = {}

    # Compiling ------------------------------------------------------------------------
    def compile(self, options, arrays):
        """Compile a network; return both halves' files, and what it costs."""
        fhe, np = self.fhe, self.numpy
        given = np.load(io.BytesIO(arrays), allow_pickle=False)
        network = self.network(options, given)
        configuration = fhe.Configuration(
            p_error=options["error_probability"],
            compress_evaluation_keys=True,
            compress_input_ciphertexts=True,
            show_progress=False,
        )
        compiler = fhe.Compiler(network, {"x": "encrypted"})
        circuit = self.circuit = compiler.compile(list(given["rows"]), configuration)
        cost = {
            "bootstraps": circuit.programmable_bootstrap_count,
            "complexity": circuit.complexity,
            "bootstrap_key_bytes": circuit.size_of_bootstrap_keys,
            "keyswitch_key_bytes": circuit.size_of_keyswitch_keys,
        }
        files = []
        for half in (circuit.client, circuit.server):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "half.zip"
                half.save(path)
                files.append(path.read_bytes())
        return cost, *files

    def network(self, options, given):
        """Return the function that concrete compiles."""
        fhe, np = self.fhe, self.numpy

        def layer(u, k):
            weight, bias, cut = (
                given[f"{name}{k}"] for name in ("weight", "bias", "cut")
            )
            n_bits = options["layers"][k]["n_bits"]
            rounded = options["layers"][k]["rounded_bits"]
            if (cut != cut[0]).any():  # features that are compared: a table for each
                values = np.arange(2**n_bits)
                tables = [fhe.LookupTable([int(v >= c) for v in values]) for c in cut]
                return fhe.LookupTable(np.array(tables))[u[weight.argmax(axis=1)]]
            z = fhe.hint(u @ weight.T + bias, bit_width=n_bits)
            if rounded:
                z = fhe.round_bit_pattern(
                    z, lsbs_to_remove=rounded, exactness=fhe.Exactness.APPROXIMATE
                )
            return fhe.univariate(lambda v: (v >= cut[0]).astype(np.int64))(z)

        def network(x):
            u = fhe.hint(x, bit_width=options["n_bits"])
            for k in range(len(options["layers"])):
                u = layer(u, k)
            sums = u @ given["weight"].T
            return fhe.hint(sums, can_store=given["limits"])

        return network

    def simulate(self, options, rows):
        """Return what the circuit computes on rows, with errors as it makes them."""
        np = self.numpy
        if options.get("first"):
            self.circuit.enable_fhe_simulation()
        rows = np.load(io.BytesIO(rows), allow_pickle=False)
        return {}, self._saved(np.array([self.circuit.simulate(row) for row in rows]))

    # The client -----------------------------------------------------------------------
    def open_client(self, options, file, secret=b""):
        """Open the client's file; make keys, or take those that were saved."""
        self.client = self._opened(self.fhe.Client, file)
        if secret:
            self.client.keys = self.fhe.Keys.deserialize(secret)
        else:
            self.client.keys.generate()
        return ({},)

    def secret(self, options):
        """Return all of the client's keys."""
        return {}, self.client.keys.serialize()

    def evaluation_keys(self, options):
        """Return the keys that a server needs."""
        return {}, self.client.evaluation_keys.serialize()

    def encrypt(self, options, row):
        """Encrypt one row of integers."""
        row = self.numpy.load(io.BytesIO(row), allow_pickle=False)
        return {}, self.client.encrypt(row).serialize()

    def decrypt(self, options, value):
        """Decrypt the sums of one row."""
        value = self.client.decrypt(self.fhe.Value.deserialize(value))
        return {}, self._saved(self.numpy.atleast_1d(value))

    # The server -----------------------------------------------------------------------
    def open_server(self, options, file):
        """Open the server's file."""
        self.server = self._opened(self.fhe.Server, file)
        return ({},)

    def register(self, options, keys):
        """Take a client's keys; those of the client that came first go, if need be."""
        self.keys[options["key"]] = self.fhe.EvaluationKeys.deserialize(keys)
        while len(self.keys) > options["max_clients"]:
            del self.keys[next(iter(self.keys))]
        return ({},)

    def run(self, options, value):
        """Evaluate the circuit on what a client encrypted."""
        value = self.fhe.Value.deserialize(value)
        keys = self.keys[options["key"]]
        return {}, self.server.run(value, evaluation_keys=keys).serialize()

    # ----------------------------------------------------------------------------------
    def _opened(self, half, file):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "half.zip"
            path.write_bytes(file)
            return half.load(path)

    def _saved(self, array):
        buffer = io.BytesIO()
        self.numpy.save(buffer, array, allow_pickle=False)
        return buffer.getvalue()


def main():
    """Answer requests until there are no more."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from _messages import join, split

    # Torch is imported by concrete for convolutions, which are not used: 5 GB less.
    torch = types.ModuleType("torch")
    torch.__getattr__ = lambda name: None
    sys.modules.setdefault("torch", torch)
    import numpy
    from concrete import fhe

    worker = Worker(fhe, numpy)
    while True:
        head = sys.stdin.buffer.read(8)
        if len(head) < 8:
            return
        (length,) = struct.unpack(">Q", head)
        header, *parts = split(sys.stdin.buffer.read(length))
        request = json.loads(header)
        try:
            told, *result = getattr(worker, request.pop("request"))(request, *parts)
        except Exception as error:
            told, result = {"error": f"{type(error).__name__}: {error}"}, []
            traceback.print_exc(file=sys.stderr)
        answer = join([json.dumps(told).encode(), *result])
        answers.write(struct.pack(">Q", len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main()
