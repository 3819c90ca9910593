"""Entry of every child: `python -P -m service.child_main DESCRIPTOR PARENT_PID LOGS MODULE`.

Binds the child's life to its parent's *before* anything slow or dangerous is imported, then calls
`MODULE.serve(channel)`, which returns when the parent closes its end.
"""

import ctypes
import importlib
import os
import signal
import socket
import sys
from typing import Final

from service.channel import Channel
from service.logs import configure_child

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Run the child; never returns to a shell: exits with the status of `serve`."""
    descriptor, parent, log_choice, module = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        sys.argv[3],
        sys.argv[4],
    )
    # Ctrl-C reaches the whole terminal group; the parent decides what becomes of its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # End of file on the channel tells an idle child that its parent is gone; only the kernel can
    # tell one that is busy in C code.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    configure_child(log_choice)
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(True)
    importlib.import_module(module).serve(Channel(connection))


if __name__ == "__main__":
    main()
