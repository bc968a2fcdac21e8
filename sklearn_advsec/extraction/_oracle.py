"""The query oracle: rows go in, answers come back, each is paid for once."""

from hashlib import blake2b

import numpy as np

from ..exceptions import BadAnswerError, QueryBudgetExceeded


class QueryLog:
    """The rows that the victim was asked about, and its answers: what was paid for.

    Parameters
    ----------
    codec : RowCodec
        How encoded rows become rows that the victim takes.
    kind : str
        What the answers are: "label", "score", or a kind of the attack's own.

    Attributes
    ----------
    array : ndarray of shape (n_queries, ...)
        The encoded rows, in the order in which they were sent.
    answers : ndarray of shape (n_queries,) or (n_queries, n_outputs)
        The answer to each.
    """

    def __init__(self, codec, kind):
        self.codec = codec
        self.kind = kind
        self._position = {}
        self._rows = _Growing()
        self._answers = _Growing()

    def __len__(self):
        return len(self._position)

    def __repr__(self):
        return f"QueryLog(n_queries={len(self)}, kind={self.kind!r})"

    @property
    def array(self):
        """The encoded rows."""
        return self._rows.view()

    @property
    def answers(self):
        """The answers."""
        return self._answers.view()

    @property
    def X(self):
        """The rows in the form in which the victim got them."""
        return self.codec.decode(self.array)

    def positions(self, keys):
        """Where the rows of these keys are, -1 for those that were never sent."""
        return np.array([self._position.get(key, -1) for key in keys], dtype=np.int64)

    def append(self, array, keys, answers):
        """Keep answers to rows that are new."""
        start = len(self)
        self._position.update((key, start + i) for i, key in enumerate(keys))
        self._rows.extend(array)
        self._answers.extend(answers)

    def recoded(self, codec):
        """Return the same log with its rows encoded by another codec."""
        log = QueryLog(codec, self.kind)
        if len(self):
            array = codec.encode(self.X)
            log.append(array, row_keys(array), self.answers)
        return log


class Oracle:
    """Ask the victim, never twice about the same row, and never more than allowed.

    Answers enter the log as soon as a batch of them is there, so whatever happens next
    (a spent budget, a victim that fails, Ctrl-C), none of them is lost.

    Parameters
    ----------
    respond : callable
        Takes rows as the victim takes them, and returns one answer per row.
    log : QueryLog
        Receives the answers, and may hold earlier ones, which are then free.
    dtype : dtype
        Precision in which rows are sent.
    max_queries : int, default=None
        How many rows may be sent, those of the log included.
    batch_size : int, default=1024
        How many rows are sent at once.
    name : str, default=None
        Whose progress is printed; None prints nothing.
    tasks : callable, default=iter
        Goes through the batches of an `ask`, and reports them.

    Raises
    ------
    QueryBudgetExceeded
        By `ask`, once the budget is spent; what it still allowed has been asked.
    """

    def __init__(
        self,
        respond,
        log,
        *,
        dtype,
        max_queries=None,
        batch_size=1024,
        name=None,
        tasks=iter,
    ):
        self.respond = respond
        self.log = log
        self.dtype = np.dtype(dtype)
        self.max_queries = max_queries
        self.batch_size = batch_size
        self.name = name
        self.tasks = tasks
        self._next_report = self.n_queries + 1

    @property
    def n_queries(self):
        """Number of rows that were sent and answered."""
        return len(self.log)

    @property
    def affordable(self):
        """Number of rows that may still be sent; infinite without a budget."""
        if self.max_queries is None:
            return np.inf
        return max(self.max_queries - self.n_queries, 0)

    def as_sent(self, array):
        """Round rows to what the victim would receive."""
        return np.asarray(array, dtype=self.dtype) + 0.0  # no negative zeros

    def positions(self, array):
        """Where rows are in the log; -1 for those that were not asked about."""
        return self.log.positions(row_keys(self.as_sent(array)))

    def known(self, array):
        """Whether each row was asked about before."""
        return self.positions(array) >= 0

    def ask(self, array):
        """Return the answers to encoded rows; only rows that are new cost anything."""
        array = self.as_sent(array)
        keys = row_keys(array)
        new = self._new(keys)
        within = int(min(len(new), self.affordable))
        for start in self.tasks(range(0, within, self.batch_size)):
            batch = new[start : min(start + self.batch_size, within)]
            answers = np.asarray(self.respond(self.log.codec.decode(array[batch])))
            self._check_shape(answers, len(batch))
            self.log.append(array[batch], [keys[i] for i in batch], answers)
            if self.name is not None and self.n_queries >= self._next_report:
                of = "" if self.max_queries is None else f" of {self.max_queries}"
                print(f"[{self.name}] {self.n_queries}{of} queries")
                self._next_report = max(1.25 * self.n_queries, self.n_queries + 100)
        if within < len(new):
            raise QueryBudgetExceeded(
                f"max_queries={self.max_queries} queries are spent, and "
                f"{len(new) - within} more are needed."
            )
        return self.log.answers[self.log.positions(keys)]

    def _check_shape(self, answers, n_rows):
        """Raise where answers are too few, or of another width than all before."""
        if answers.ndim == 0 or len(answers) != n_rows:
            given = len(answers) if answers.ndim else answers.item()
            raise BadAnswerError(
                f"estimator returned {given!r} answers for {n_rows} rows."
            )
        before = self.log.answers.shape[1:]
        if len(self.log) and answers.shape[1:] != before:
            raise BadAnswerError(
                f"estimator answered rows {len(self.log)} and after with arrays of shape "
                f"{answers.shape[1:]}, and those before with {before}."
            )

    def ask_what_fits(self, array):
        """Ask about the first rows, as many as the budget allows, and all that are free.

        Returns
        -------
        within : ndarray of bool, shape (n_rows,)
            Which rows have an answer.
        answers : ndarray of shape (n_within,) or (n_within, n_outputs)
            The answers to these; empty if there are none.
        """
        keys = row_keys(self.as_sent(array))
        new = self._new(keys)
        allowed = {keys[i] for i in new[: int(min(len(new), self.affordable))]}
        within = self.log.positions(keys) >= 0
        within |= np.array([key in allowed for key in keys], dtype=bool)
        return within, self.ask(array[within])

    def _new(self, keys):
        """Where rows are that were never asked about, each once."""
        first = {}
        for i, at in enumerate(self.log.positions(keys)):
            if at < 0:
                first.setdefault(keys[i], i)
        return list(first.values())


def row_keys(array):
    """Return one short key per row; equal rows have equal ones in any precision."""
    array = np.ascontiguousarray(array, dtype=np.float64)
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in array]


class _Growing:
    """An array that grows at the end, by doubling, so that many small steps are cheap."""

    def __init__(self):
        self._buffer = np.empty(0)
        self._size = 0

    def view(self):
        return self._buffer[: self._size]

    def extend(self, part):
        size = self._size + len(part)
        if not self._size:
            self._buffer = np.array(part)
        elif size > len(self._buffer) or self._widens(part):
            dtype = np.result_type(self._buffer, part)
            grown = np.empty((2 * size, *part.shape[1:]), dtype=dtype)
            grown[: self._size] = self.view()
            self._buffer = grown
        self._buffer[self._size : size] = part
        self._size = size

    def _widens(self, part):  # longer text labels, say
        return np.result_type(self._buffer, part) != self._buffer.dtype

    def __getstate__(self):
        return {"_buffer": self.view().copy(), "_size": self._size}
