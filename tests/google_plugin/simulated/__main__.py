"""The process that Terraform starts: `python -m simulated SCHEMA`."""

from __future__ import annotations

import base64
import os
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from tf import runner
from tf.gen import grpc_controller_pb2 as controller
from tf.gen import grpc_controller_pb2_grpc as controller_rpc
from tf.gen import grpc_stdio_pb2_grpc as stdio_rpc
from tf.gen import tfplugin_pb2_grpc as rpc

from .schema import Schema
from .service import Service

_COOKIE = (
    "TF_PLUGIN_MAGIC_COOKIE",
    "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2",
)
_THREADS = 256
"""As many resources may wait at once."""


class Controller(controller_rpc.GRPCControllerServicer):
    def __init__(self) -> None:
        self.ended = threading.Event()

    def Shutdown(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.ended.set()
        return controller.Empty()


class Output(stdio_rpc.GRPCStdioServicer):
    def StreamStdio(self, request: Any, context: Any) -> Any:  # noqa: N802
        return iter(())


def main(schema: Path) -> None:
    if os.environ.get(_COOKIE[0]) != _COOKIE[1]:
        sys.exit("This is a plugin for Terraform, for tests. Terraform starts it.")
    # A Ctrl-C reaches the whole process group: Terraform says what is to end, and when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    service, control = Service(Schema(schema)), Controller()
    server = grpc.server(
        ThreadPoolExecutor(_THREADS), options=[("grpc.max_receive_message_length", 64 << 20)]
    )
    rpc.add_ProviderServicer_to_server(service, server)
    controller_rpc.add_GRPCControllerServicer_to_server(control, server)
    stdio_rpc.add_GRPCStdioServicer_to_server(Output(), server)
    with tempfile.TemporaryDirectory(prefix="plugin-") as folder:
        # The library keeps its certificate in the home folder. Here: nowhere, it is quickly made.
        runner._get_cert_cache_path = lambda: Path(folder, "certificate.json")
        certificate, credentials = runner._self_signed_cert()
        address = f"{folder}/socket"
        server.add_secure_port(f"unix://{address}", credentials)
        server.start()
        encoded = base64.b64encode(certificate).decode().rstrip("=")
        sys.stdout.write(f"1|6|unix|{address}|grpc|{encoded}\n")
        sys.stdout.flush()
        # A Terraform that is killed tells nobody.
        while not control.ended.wait(0.5) and os.getppid() == parent:
            pass
        service.stop.set()
        server.stop(grace=1).wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
