"""Starts the program with a socket of ours as descriptor 3, as a socket unit of systemd does."""

from __future__ import annotations

import os
import socket
import sys

kind, host = os.environ["KIND"], os.environ.get("AT", "127.0.0.1")
if kind == "listening":
    sock = socket.create_server((host, 0))
elif kind == "udp":
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
elif kind == "connected":
    server = socket.create_server((host, 0))
    sock = socket.create_connection(server.getsockname())
else:
    sock = open(os.devnull)  # noqa: SIM115 - it is handed on
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)  # it may have been that already
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "gateway-trio.socket"}
os.execv(sys.executable, [sys.executable, "-m", "gateway_trio", *sys.argv[1:]])
