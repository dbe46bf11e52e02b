"""A process that has imported what all jobs need, and forks one for each: a job then starts in a tenth of a second.

    python server.py SOCKET

It computes nothing itself. `sitecustomize.py`, in the folder that PYTHONPATH names first, hands it the jobs of
`workflow/scripts`; the code of the project itself is imported by each job anew.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback

IMPORTED = (
    "jsonschema",
    "matplotlib.figure",
    "pandas.io.formats.style",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "safetensors.torch",
    "scipy.linalg",
    "sklearn.datasets",
    "sklearn.manifold",
    "torch._inductor",  # torch imports its compiler when a first step is taken: half of the time of a short job
    "torch.func",
)


def serve(address: str) -> None:
    """Forks a keeper for each job that comes, until it is killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen(64)
    os.rename(address + ".new", address)  # who sees the socket can connect to it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    while os.getppid() == parent:
        if not select.select([listener], [], [], 1)[0]:
            continue
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
        connection.close()


def keep(connection: socket.socket) -> None:
    """Runs a job and sends how it ended; kills it when the process that handed it over is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, files, _, _ = socket.recv_fds(connection, 2**20, 2)
    job = os.fork()
    if job == 0:
        run(json.loads(text), files)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(job)
    if connection in select.select([connection, ended], [], [])[0]:
        os.kill(job, signal.SIGKILL)
    _, status = os.waitpid(job, 0)
    with contextlib.suppress(OSError):
        connection.send(str(status).encode())
    os._exit(0)


def run(job: dict, files: list[int]) -> None:
    """The script as `python SCRIPT ARGUMENTS` would run it."""
    status = 1
    try:
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"])
        sys.argv = job["arguments"]
        sys.path[:0] = [os.path.dirname(os.path.abspath(sys.argv[0])), *os.environ["PYTHONPATH"].split(os.pathsep)]
        if "HESSKETCH_FAULTS" in os.environ:
            import faults

            faults.inject(os.environ["HESSKETCH_FAULTS"], sys.argv)
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    serve(sys.argv[1])
