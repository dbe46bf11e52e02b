"""Choosing a device, and numbers that do not change from run to run on it."""

import ctypes
import os
import sys

from hessketch.errors import InputError
from hessketch.gpus import visible_gpus


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for the next allocation; does nothing with another C library.

    A product allocates and frees hundreds of megabytes. By default each of them goes back to the kernel, which clears
    it page by page before it is used again: keeping it made Hessian products of ResNet18 (width 1/16, 1360 images,
    one core) 1.7 times as fast, at the same peak memory.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def prepare_device(name: str, jobs_per_gpu: int = 1):
    """The torch device for 'auto', 'cpu' or 'cuda', with deterministic algorithms on and TF32 off.

    Of several GPUs it is one that no other process of this user has taken, or one shared by up to `jobs_per_gpu` that
    all said so; waits for it (`gpu_leases`). Also tunes the process for large allocations (`keep_freed_memory`).

    Raises InputError when a GPU is asked for and torch sees none.
    """
    # cuBLAS is deterministic only with a fixed workspace, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {name!r} is unknown; allowed: auto, cpu, cuda")
    _take_gpu(name, jobs_per_gpu)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch sees no GPU; use 'auto' or 'cpu'")
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # "warn": some CUDA kernels (max pooling backward) have no deterministic twin and would stop the run. This does what
    # use_deterministic_algorithms(True, warn_only=True) does, but for importing torch's compiler: 1.2 s a job.
    torch.set_deterministic_debug_mode("warn")
    # A check for bugs that costs a pass over memory; torch sets it by a property of the module.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # Processes that torchrun started on one machine take a GPU each.
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _take_gpu(name: str, jobs_per_gpu: int) -> None:
    """Leases a GPU where there is one, unless CUDA has started and the choice is made; keeps it if torch can use it."""
    import torch

    if name == "cpu" or torch.cuda.is_initialized() or not visible_gpus():
        return
    from hessketch.gpu_leases import lease_gpus, release_gpus

    lease_gpus(places=jobs_per_gpu)
    if not torch.cuda.is_available():
        release_gpus()
