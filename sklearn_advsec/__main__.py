"""The command line: ``python -m sklearn_advsec COMMAND``."""

import argparse
import sys


def main(arguments=None):
    """Run a command, and return its exit status: 0, or 2 where the input is bad."""
    parser = argparse.ArgumentParser(prog="python -m sklearn_advsec")
    commands = parser.add_subparsers(dest="command", required=True)
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
    given = parser.parse_args(arguments)
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
