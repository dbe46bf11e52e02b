"""A process that has imported what Snakemake and its jobs need, and forks one for each: it starts in no time.

    python server.py SOCKET

It computes nothing itself. `sitecustomize.py`, in the folder that PYTHONPATH names first, hands it Snakemake and the
jobs of `workflow/scripts`; the code of the project itself is imported by each anew.
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
    "ipykernel.kernelapp",
    "jsonschema",
    "matplotlib.figure",
    "nbconvert.nbconvertapp",
    "pandas.io.formats.style",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "safetensors.torch",
    "scipy.linalg",
    "sklearn.datasets",
    "sklearn.manifold",
    "snakemake.cli",
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
    """Runs a job and sends how it ended; kills it and what it started when the process that handed it over is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, files, _, _ = socket.recv_fds(connection, 2**20, 2)
    job = os.fork()
    with contextlib.suppress(OSError):  # it has done so itself, and is further
        os.setpgid(job, job)
    if job == 0:
        run(json.loads(text), files)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(job)
    if connection in select.select([connection, ended], [], [])[0]:
        os.killpg(job, signal.SIGKILL)
    _, status = os.waitpid(job, 0)
    with contextlib.suppress(OSError):
        connection.send(str(status).encode())
    os._exit(0)


def run(job: dict, files: list[int]) -> None:
    """As `python ARGUMENTS` would run it: a script, or a module after -m."""
    status = 1
    try:
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"])
        os.environ.pop("JPY_PARENT_PID", None)  # a kernel would end when its parent is not that one; its keeper ends it
        paths = os.environ["PYTHONPATH"].split(os.pathsep)
        if job["arguments"][0] == "-m":
            sys.path[:0] = [os.getcwd(), *paths]
            sys.argv = job["arguments"][1:]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            run_script(job["arguments"], paths)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_script(arguments: list[str], paths: list[str]) -> None:
    """A job of the workflow, with the faults that are planned for it."""
    sys.argv = arguments
    sys.path[:0] = [os.path.dirname(os.path.abspath(arguments[0])), *paths]
    if "HESSKETCH_FAULTS" in os.environ:
        import faults

        faults.inject(os.environ["HESSKETCH_FAULTS"], arguments)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    serve(sys.argv[1])
