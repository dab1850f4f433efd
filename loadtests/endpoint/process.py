"""The built-in simulated endpoint, as a process: ``overproof load endpoint``.

It speaks the chat completions API of OpenAI, streaming and not, and behaves like an inference server with
continuous batching. It can misbehave on demand. It listens on loopback unless told otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.endpoint.batching import BatchLimits
from loadtests.endpoint.misbehaviour import KINDS, parse_misbehaviour
from loadtests.endpoint.service import Service, ServiceSettings
from loadtests.endpoint.serving import Connection
from probes.child import watch_lifeline
from probes.errors import ConfigError
from probes.event import to_json_line

_LIMITS = BatchLimits()


def make_parser() -> argparse.ArgumentParser:
    """Return the options of the endpoint."""
    parser = argparse.ArgumentParser(
        prog="overproof load endpoint",
        description="Serve simulated chat completions until Ctrl-C. One JSON line says port, pid and name.",
        epilog="faults: " + "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items()),
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="Address to listen on.")
    add("--port", type=int, default=0, help="Port to listen on; 0 takes a free one.")
    add("--name", default="endpoint", help="Sent as x-replica with every answer.")
    add("--model", default="simulated", help="Name of the model it claims to serve.")
    add("--seed", type=int, default=1, help="Seed of every random choice.")
    add("--slots", type=int, default=_LIMITS.slots, help="Sequences that decode together.")
    add("--queue-max", type=int, default=_LIMITS.queue_max, help="Requests that may wait; more get 429.")
    add("--prefill-tokens-per-s", type=float, default=_LIMITS.prefill_tokens_per_s, help="Prompt speed.")
    add("--decode-step-ms", type=float, default=_LIMITS.decode_step_s * 1000, help="Time of one step.")
    add("--step-work-ms", type=float, default=0.0, help="Processor time that each step takes, within it.")
    add("--start-delay-s", type=float, default=0.0, help="Time until /health answers 200.")
    add("--fault", action="append", default=[], metavar="KIND:SHARE@LOAD", help="May be repeated; see below.")
    add("--tls-cert-file", type=Path, default=None, help="Serve TLS with this certificate (PEM).")
    add("--tls-key-file", type=Path, default=None, help="Its private key (PEM); else it is in the same file.")
    add("--sends-file", type=Path, default=None, help="NDJSON file that receives the true send times.")
    add("--lifeline", action="store_true", help="Leave when standard input ends.")
    return parser


def run_endpoint(arguments: Sequence[str]) -> None:
    """Serve until SIGINT, SIGTERM or, with ``--lifeline``, the end of standard input.

    Raises:
        ConfigError: an option is out of range, or the port is taken.
    """
    options = make_parser().parse_args(arguments)
    asyncio.run(_serve(options, _settings(options)))


def _settings(options: argparse.Namespace) -> ServiceSettings:
    for name, least in {"slots": 1, "queue_max": 0, "start_delay_s": 0, "step_work_ms": 0}.items():
        if getattr(options, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')}: must be at least {least}")
    for name in ("prefill_tokens_per_s", "decode_step_ms"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"--{name.replace('_', '-')}: must be above 0, got {getattr(options, name):g}")
    return ServiceSettings(
        name=options.name,
        seed=options.seed,
        model=options.model,
        limits=BatchLimits(
            slots=options.slots,
            queue_max=options.queue_max,
            prefill_tokens_per_s=options.prefill_tokens_per_s,
            decode_step_s=options.decode_step_ms / 1000,
        ),
        step_work_s=options.step_work_ms / 1000,
        start_delay_s=options.start_delay_s,
        faults=tuple(parse_misbehaviour(text) for text in options.fault),
        sends_file=options.sends_file,
    )


async def _serve(options: argparse.Namespace, settings: ServiceSettings) -> None:
    loop = asyncio.get_running_loop()
    service = Service(settings, loop)
    context = None if options.tls_cert_file is None else _tls(options.tls_cert_file, options.tls_key_file)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        server = await loop.create_server(
            lambda: Connection(service),
            options.host,
            options.port,
            ssl=context,
            reuse_address=True,
            backlog=4096,
        )
    except (OSError, OverflowError) as error:
        number_of = error.errno if isinstance(error, OSError) else None
        reason = error if number_of is None or number_of < 0 else os.strerror(number_of)
        raise ConfigError(
            f"{options.host}:{options.port}: cannot listen there: {reason}; choose another --port"
        ) from error
    if options.lifeline:
        watch_lifeline(lambda: _stop_from_thread(loop, stop))
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(to_json_line({"port": port, "pid": os.getpid(), "name": settings.name}))
    sys.stdout.flush()
    await stop.wait()
    server.close()


def _tls(cert_file: Path, key_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls-cert-file {cert_file}: cannot be used: {error}") from error
    return context


def _stop_from_thread(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    loop.call_soon_threadsafe(stop.set)
