"""The listening sockets that outlive the program: taken when it starts, kept while it runs, handed over by exec.

Trio closes its listeners when the doors close, so copies of the descriptors are kept. While one is open the kernel
goes on taking connections into its queue, and none is refused; the successor answers them. The copies are closed
on exec, so that no child has them, but for the one exec that hands them over.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import MutableMapping
from typing import NoReturn

import trio

from gateway_trio.core.handover import FIRST, NAMES, Handed, words
from gateway_trio.core.lifecycle import Action
from gateway_trio.core.phases import FINAL, Reason
from gateway_trio.gateway import Gateway
from gateway_trio.log import get_logger
from gateway_trio.tables import ServerConfig

__all__ = ["Handover"]

log = get_logger("handover")


class Handover:
    """The listening sockets of this process.

    Args:
        environ: of this process. What was handed to it by the variables there is taken, and the variables with it.
        server: where the config wants to listen.

    Raises OSError where what was handed over are no listening TCP sockets.

    """

    def __init__(self, environ: MutableMapping[str, str], server: ServerConfig) -> None:
        self._environ = environ
        handed = Handed.read(environ, os.getpid())
        for name in NAMES:
            environ.pop(name, None)
        of_a_unit = handed.count > 0 and handed.bound is None
        self._bound = None if of_a_unit else Handed.place(server.host, server.port)
        self._sockets = [_adopt(FIRST + number) for number in range(handed.count)]
        if handed.count:
            used = handed.fits(server.host, server.port)
            log.info("sockets were handed over", count=handed.count, used=used)
            if not used:
                self.drop()

    def listeners(self) -> list[trio.SocketListener] | None:
        """Return listeners on the sockets that were handed over, None if there are none. They may be closed."""
        if not self._sockets:
            return None
        return [trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup())) for sock in self._sockets]

    def follow(self, gateway: Gateway, *, in_place: bool) -> None:
        """Keep the sockets that a gateway listens on until it is clear that there will be no successor.

        With `in_place` there is one if the gateway closes for a restart and nothing else; without, there is none.
        """
        if not in_place:
            self.drop()
            return
        if not self._sockets:  # what was handed over is kept already
            listening = [each.socket for each in gateway.listeners if isinstance(each, trio.SocketListener)]
            self._sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in listening]

        def look() -> None:
            if gateway.coordinator.state.reasons & FINAL != {Reason.RESTART}:
                self.drop()

        gateway.coordinator.on(Action.CLOSE_SOCKETS, look)

    def drop(self) -> None:
        """Keep them no longer: there will be no successor, and who connects is to be refused."""
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def replace_process(self) -> NoReturn:
        """Start this program again in this process, with the same words and the sockets that are kept.

        What is pending of blocked signals, the directory, the umask and the standard streams stay as they are
        (execve(2)). Only for the main thread, whose mask of signals is the successor's. Raises OSError where the
        program cannot be started; descriptors from `FIRST` on may be others then, and the process had better exit.
        """
        count = len(self._sockets)
        # First out of the way of each other, and of what stands where they go.
        above = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST + count) for sock in self._sockets]
        for number, descriptor in enumerate(above, FIRST):
            os.dup2(descriptor, number)
        environ = Handed(count, self._bound).write(self._environ, os.getpid())
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, words(sys.executable, sys.orig_argv), environ)  # noqa: S606 - ourselves, no shell


def _adopt(descriptor: int) -> socket.socket:
    """Return the listening TCP socket that a descriptor is; raises OSError if it is none."""
    os.set_inheritable(descriptor, False)
    sock = socket.socket(fileno=descriptor)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM or not listens:
        sock.close()
        raise OSError(f"descriptor {descriptor}, which was handed to us, is no listening TCP socket")
    return sock
