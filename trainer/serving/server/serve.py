"""The parent of a server's processes: opens the ports, starts one process per core, starts those that die again.

It imports no torch and answers nothing itself. All processes listen on the same ports (SO_REUSEPORT), so the kernel
spreads connections over them; the weights are mapped, so they lie in memory once. SIGTERM and Ctrl-C stop all: open
requests are finished first. SIGHUP loads what lies in the bundles' folders now.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from configs.choices import did_you_mean
from configs.errors import UserError
from configs.serve_config import ServeConfig
from trainer.serving.server.board import Board
from trainer.serving.server.state import first_state, request_load

_ROOT = Path(__file__).parents[3]
_AGAIN_S = 1.0  # between two starts of a process: one that cannot live must not take a core to try
Say = Callable[[str], None]


def serve(bundles: Sequence[str], settings: ServeConfig, say: Say, *, verify: bool = True) -> None:
    """Answers requests until it is stopped (SIGINT, SIGTERM: open requests are finished first).

    Args:
        bundles: folders, or NAME=FOLDER.
        say: given a line when it answers.
        verify: compare the checksums of the bundles' files.

    Raises:
        UserError: a folder holds no whole bundle, or it cannot listen where the settings say.
    """
    folders = [named(bundle) for bundle in bundles]
    state = first_state([(name or settings.name, folder) for name, folder in folders])
    token = token_of(settings)
    _check_tls(settings)
    with ExitStack() as stack:
        http = stack.enter_context(_bound(settings.host, settings.port, "http-port"))
        grpc = None
        if settings.grpc_port is not None:
            grpc = stack.enter_context(_bound(settings.host, settings.grpc_port, "grpc-port"))
        board = Board.create(settings.processes or len(os.sched_getaffinity(0)), len(state))
        board.write(state)
        stack.enter_context(_handling({signal.SIGHUP: lambda: _reload(board, say)}))
        processes = stack.enter_context(_processes(board, settings, http, grpc, verify, token))
        for name, model in state.items():
            say(f"model     {name}, version {', '.join(model['versions'])}")
        scheme = "https" if settings.tls_certificate else "http"
        say(f"serving   {scheme}://{_shown(settings.host)}:{_port(http)}, {len(processes.running)} processes")
        if grpc is not None:
            say(f"gRPC      {_shown(settings.host)}:{_port(grpc)}")
        processes.watch(say)


def named(bundle: str) -> tuple[str | None, str]:
    """NAME=FOLDER; a folder that exists is one, whatever its name. UserError: what looks like neither."""
    name, equals, folder = bundle.partition("=")
    if not equals or Path(bundle).exists():
        return None, bundle
    if not name:
        raise UserError(f"{bundle!r} has no name before the =\nWrite NAME=FOLDER, or the folder alone.")
    if "." in name and not Path(folder).is_dir():
        keys = [f"serve.{key}" for key in ServeConfig.model_fields]
        advice = did_you_mean(name, keys)
        raise UserError(f"{bundle!r} is no setting of serve, and no NAME=FOLDER: {folder} is not a folder\n{advice}")
    return name, folder


def token_of(settings: ServeConfig) -> str | None:
    """The token that requests must bring. UserError: its file cannot be read, or is empty."""
    if settings.token_file is None:
        return None
    try:
        token = Path(settings.token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(
            f"serve.token_file={settings.token_file} cannot be read: {why}\n"
            "Give a file that holds the token which clients send, or leave the key out: all are answered then."
        ) from None
    if not token:
        raise UserError(f"serve.token_file={settings.token_file} is empty\nWrite the token that clients send into it.")
    return token


def _check_tls(settings: ServeConfig) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        given, lacks = ("tls_key", "tls_certificate") if certificate is None else ("tls_certificate", "tls_key")
        raise UserError(f"serve.{given} is given without serve.{lacks}\nGive both; they may be in one file.")
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"serve.{name}={path} cannot be read: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise UserError(
            f"serve.tls_certificate={certificate} and serve.tls_key={key} are no pair: {error}\n"
            "Give a certificate (chain) and its own key, both in PEM, the key without a password."
        ) from None


class Processes:
    """The processes of a server."""

    def __init__(self, board: Board, settings: ServeConfig, order: dict[str, Any], http: socket.socket) -> None:
        self._board, self._settings, self._order, self._http = board, settings, order, http
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._is_stopping = False

    def start(self, number: int) -> None:
        """Starts process `number`. The limit of threads is in its environment before it begins."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": _python_path()}
        with _listening(self._http) as listener:
            order = self._order | {"process": number, "http": listener.fileno(), "board": self._board.fd}
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trainer.serving.server.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                pass_fds=(listener.fileno(), self._board.fd),
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        self.running[number], self._started[number] = process, time.monotonic()

    def wait_ready(self, number: int) -> None:
        """Until a process answers. UserError: it does not."""
        process = self.running[number]
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith(b'{"ready"'):
            process.wait()
            raise UserError(_error_in(line) or f"process {number} ended with {process.returncode}; see its lines above")

    def watch(self, say: Say) -> None:
        """Until a signal: starts again what dies."""
        with _handling({signal.SIGINT: self._stop, signal.SIGTERM: self._stop}):
            while not self._is_stopping:
                for number, process in list(self.running.items()):
                    rested = time.monotonic() - self._started[number] > _AGAIN_S
                    if process.poll() is not None and rested and not self._is_stopping:
                        self._board.apply(number, -1)
                        assert process.stdout is not None
                        why = _error_in(process.stdout.read()) or f"it ended with {process.returncode}"
                        say(f"process {number} is started again: {why}")
                        self.start(number)
                time.sleep(_AGAIN_S / 5)

    def _stop(self) -> None:
        self._is_stopping = True

    def stop(self) -> None:
        """Ends all processes; those that do not finish in time are killed."""
        for process in self.running.values():
            process.terminate()
        deadline = time.monotonic() + self._settings.stop_timeout_s + self._settings.drain_s + 5
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _error_in(said: bytes) -> str | None:
    """What a process said when it could not start."""
    last = (said.splitlines() or [b""])[-1]
    return json.loads(last).get("error") if last.startswith(b"{") else None


@contextmanager
def _processes(
    board: Board,
    settings: ServeConfig,
    http: socket.socket,
    grpc: socket.socket | None,
    verify: bool,
    token: str | None,
) -> Iterator[Processes]:
    """All processes, ready to answer. The first is waited for alone: what is wrong is said once."""
    order = {
        "settings": settings.model_dump(),
        "processes": board.processes,
        "models": board.models,
        "grpc": None if grpc is None else f"{_shown(settings.host)}:{_port(grpc)}",
        "verify": verify,
        "token": token,
    }
    processes = Processes(board, settings, order, http)
    try:
        for number in range(board.processes):
            processes.start(number)
        for number in range(board.processes):
            processes.wait_ready(number)
        yield processes
    finally:
        processes.stop()


def _reload(board: Board, say: Say) -> None:
    for name in board.read()[1]:
        try:
            request_load(board, name)
        except UserError as error:
            say(f"model {name} stays as it is: {error}")


@contextmanager
def _handling(handlers: Mapping[int, Callable[[], None]]) -> Iterator[None]:
    """Of signals: while the block runs."""
    before = {
        number: signal.signal(number, lambda *_, handler=handler: handler()) for number, handler in handlers.items()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bound(host: str, port: int, option: str) -> Iterator[socket.socket]:
    """A socket that holds a port for all processes; nobody can connect to it itself."""
    if not 0 <= port <= 65535:  # of which getaddrinfo would take the last 16 bits
        raise _cannot_listen(host, port, option, ValueError("there is no such port"))
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:  # with SO_REUSEPORT, two servers would share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        holder = _reusable(family, kind, protocol, address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, option, error) from None
    with holder:
        yield holder


def _reusable(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made


@contextmanager
def _listening(holder: socket.socket) -> Iterator[socket.socket]:
    """One more socket on the holder's port, for one process; it stays open there."""
    with _reusable(holder.family, holder.type, holder.proto, holder.getsockname()) as made:
        made.set_inheritable(True)
        yield made


def _cannot_listen(host: str, port: int, option: str, error: Exception) -> UserError:
    why = getattr(error, "strerror", None) or error
    return UserError(f"cannot listen on {host}, port {port}: {why}\nGive another --host or --{option}.")


def _port(listener: socket.socket) -> int:
    return listener.getsockname()[1]


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _python_path() -> str:
    """So that processes import this code, wherever the command was called."""
    return os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
