"""Hands jobs of the workflow, Snakemake, nbconvert and kernels to the process that has their imports.

Any other Python starts as ever.
"""

import os
import sys


def handed_over(words: list[str]) -> list[str] | None:
    """What the other process is to run: a script with its arguments, or -m, a module and its arguments."""
    if not words or words[0].startswith("workflow/scripts/"):
        return words or None
    if words[0] == "-m":
        return words if words[1] in ("snakemake", "ipykernel_launcher") else None
    program = [os.path.basename(words[0]), *words[1:]]
    if program[:2] == ["jupyter", "nbconvert"]:
        del program[0]
    return ["-m", *program] if program[0] in ("snakemake", "nbconvert") else None


if "WARM_PYTHON" in os.environ and (words := handed_over(sys.orig_argv[1:])):
    import json
    import signal
    import socket

    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["WARM_PYTHON"])
    job = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": words}
    socket.send_fds(connection, [json.dumps(job).encode()], [1, 2])
    status = int(connection.recv(64) or signal.SIGKILL)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))
