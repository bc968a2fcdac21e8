"""The command line: ``sklearn-advsec COMMAND``, or ``python -m sklearn_advsec``."""

import argparse
import sys

# What a bar of an audit is about.
_BARS = {
    "min-robust-accuracy": "accuracy under all attacks",
    "min-certified-accuracy": "accuracy that is proved",
    "max-tpr-at-fpr": "members that are found",
    "max-fidelity": "agreement of the best copy",
    "max-poisoned-error": "test error under poison",
}


def main(arguments=None):
    """Run a command, and return its exit status.

    0 is fine, 1 is a bar that was missed, 2 is bad input, and 130 an interruption.
    """
    parser = argparse.ArgumentParser(
        prog="sklearn-advsec", description="Security audits of models."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_audit(commands)
    _add_others(commands)
    _add_serve(commands)
    given = parser.parse_args(arguments)
    if given.command == "serve":
        return _serve(given)
    try:
        from .audit._command_line import run
    except KeyboardInterrupt:
        return 130
    return run(given)


def _add_audit(commands):
    audit = commands.add_parser(
        "audit",
        help="attack a model in all the ways that it allows",
        description="Attack a fitted model, and write what was found. Exit status: 0; 1 "
        "where a bar is missed; 2 where the input is bad; 130 after Ctrl-C (what was "
        "done by then is written).",
    )
    add = audit.add_argument
    add(
        "model",
        help="a file of skops; a pickle or joblib file with --allow-pickle; or "
        "package.module:factory, a function without arguments",
    )
    add("data", help="rows that it was not trained on: CSV, parquet, npz (X and y)")
    add("--target", help="the column of the labels")
    add(
        "--train",
        help="the rows it was trained on; without them, half of the data takes their "
        "place, and privacy is not tested",
    )
    add("--constraints", help="a TOML file; see the command constraints")
    add(
        "--threats",
        default="evasion,extraction,privacy,poisoning",
        help="what to test, by commas (%(default)s)",
    )
    add("--budget", default="quick", help="quick, standard, thorough, or seconds")
    add("--eps", type=float, help="size of changes, in ranges of the features")
    add("--image-shape", help="such as 28x28, of images in flat rows")
    add("--seed", type=int, default=0, help="seed (%(default)s)")
    add("--jobs", type=int, help="processes (1)")
    add("--memory", help="folder where finished tasks are kept")
    add("--output", help="the page (security-audit.html, if nothing else is written)")
    add("--json", help="the report for machines")
    add("--csv", help="its figures as a table")
    add("--trust", action="append", default=[], help="a type in a file of skops")
    add(
        "--allow-pickle",
        action="store_true",
        help="load a pickle, which runs whatever its author put into it",
    )
    for name, text in _BARS.items():
        add(f"--{name}", type=float, metavar="BAR", help=f"bar: {text}")


def _add_others(commands):
    listed = commands.add_parser("list", help="show every attack and defense")
    listed.add_argument("--family", help="of one family only")
    listed.add_argument("--kind", choices=("attack", "defense"))
    listed.add_argument("--csv", action="store_true", help="as CSV, with references")
    constraints = commands.add_parser("constraints", help="what may change in a row")
    infer = constraints.add_subparsers(dest="action", required=True).add_parser(
        "infer", help="write what data says, for a person to edit"
    )
    infer.add_argument("data", help="CSV, parquet or npz")
    infer.add_argument("--target", help="the column of the labels, which is left out")
    compare = commands.add_parser("compare", help="hold two reports side by side")
    compare.add_argument("before", help="a report as JSON")
    compare.add_argument("after", help="another one")
    compare.add_argument("--output", help="write a page")


def _add_serve(commands):
    serve = commands.add_parser(
        "serve",
        help="answer encrypted questions over HTTP",
        description="Serve what sklearn_advsec.encryption.Server.save wrote.",
    )
    serve.add_argument("model", help="the file")
    serve.add_argument("--host", default="127.0.0.1", help="address (%(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port (%(default)s)")
    serve.add_argument(
        "--workers", type=int, default=1, help="number of processes (%(default)s)"
    )
    serve.add_argument(
        "--max-clients", type=int, default=16, help="clients' keys kept (%(default)s)"
    )


def _serve(given):
    from .encryption import EncryptionService

    try:
        service = EncryptionService(
            given.model,
            host=given.host,
            port=given.port,
            n_workers=given.workers,
            max_clients=given.max_clients,
        )
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"listening at {service.url}", flush=True)
    try:
        service.serve_forever()
    except KeyboardInterrupt:
        service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
