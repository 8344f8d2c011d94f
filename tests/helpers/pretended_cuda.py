"""Run CUDA code on a machine without a GPU, on real values: what would fail there, and where the host would wait.

Every tensor stays a CPU tensor, but its storage may be *marked* as being on cuda:0. Python code sees `x.device ==
cuda:0` and `x.is_cuda`; factories and `.to("cuda")` mark, `.cpu()` unmarks. Below autograd a dispatch mode checks each
operator: whether all operands are on one device, whether CUDA has a kernel for the dtype, whether the host would wait
(`item`, `nonzero`, boolean masks, `bincount`, blocking copies), and what fused optimizers require. Values are real, so
data-dependent shapes, backward passes, hooks, optimizers and checkpoints run.

It does not show the numerics of CUDA kernels, failures of cuDNN and cuBLAS, memory, races of streams, or NCCL. Modes
belong to a thread, so it does not see what other threads do.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ssltransfer.data.transfer import constant

CUDA = torch.device("cuda", 0)
INTEGRAL = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}

# Operators whose CPU kernel takes dtypes that the CUDA kernel refuses ("... not implemented for 'Byte'"). From the
# AT_DISPATCH macros of aten/src/ATen/native/cuda; OpInfo.dtypesIfCUDA of torch.testing says the same.
FLOAT_ONLY = {
    *("aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa", "aten::upsample_bilinear2d"),
    *("aten::upsample_bicubic2d", "aten::grid_sampler_2d", "aten::_adaptive_avg_pool2d", "aten::adaptive_max_pool2d"),
    *("aten::max_pool2d_with_indices", "aten::avg_pool2d", "aten::convolution", "aten::native_batch_norm"),
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::segment_reduce", "aten::_softmax"),
    *("aten::_log_softmax", "aten::linalg_qr", "aten::_linalg_eigh", "torchvision::nms", "torchvision::roi_align"),
    "torchvision::roi_pool",
}
# Kernels that ask the device for a number before they return: times that the host waits.
WAITING = {
    **dict.fromkeys(("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal"), 1),
    **dict.fromkeys(("aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::unique_consecutive"), 1),
    **dict.fromkeys(("aten::_unique2", "aten::repeat_interleave", "torchvision::nms"), 1),
    **dict.fromkeys(("aten::bincount", "aten::segment_reduce"), 2),
}
# Operands that may lie on the CPU beside cuda ones: indices (copied over, which waits), and numbers in tensors.
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
NO_WRAPPED_NUMBERS = {
    *("aten::cat", "aten::stack", "aten::mm", "aten::addmm", "aten::bmm", "aten::convolution", "aten::gather"),
    *("aten::scatter", "aten::scatter_", "aten::scatter_add_", "aten::index_select", "aten::index_copy_"),
    *("aten::index_add_", "aten::lerp_", "aten::searchsorted"),
}


class DeviceMismatch(RuntimeError):
    """Torch would say: Expected all tensors to be on the same device."""


class PretendCuda(TorchDispatchMode):
    """Marks storages as lying on cuda:0 and watches what is done to them.

    Args:
        strict: raise at the first fault; else they are gathered in `faults`.

    Attributes:
        faults: sentences, with how often.
        waits: place in the code -> how often the host waited there.
        launches: operators that would start a kernel.
        copied: host-to-device copies: (bytes, pinned).
        aside: how many of them are on a stream of their own.
    """

    def __init__(self, *, strict: bool = False, package: str = "ssltransfer"):
        super().__init__()
        self.strict, self.package = strict, package
        self._there: dict[int, StorageWeakRef] = {}
        self._pinned: dict[int, StorageWeakRef] = {}
        self._target: bool | None = None
        self._aside = False
        self.reset()
        self._stack = contextlib.ExitStack()

    def reset(self) -> None:
        """Forget what was counted, not what is where."""
        self.faults: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.dtypes: set[tuple[str, torch.dtype]] = set()
        self.shapes: set[tuple[Any, ...]] = set()
        self.launches = 0
        self.copied: list[tuple[int, bool]] = []
        self.aside = 0

    # ---- marks

    def is_cuda(self, x: Tensor) -> bool:
        found = self._there.get(x.untyped_storage()._cdata)
        return found is not None

    def mark(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        self._there[storage._cdata] = StorageWeakRef(storage)  # keeps the address from being used again
        return x

    def _pin(self, x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        self._pinned[storage._cdata] = StorageWeakRef(storage)
        return x

    @contextlib.contextmanager
    def onto(self, cuda: bool) -> Iterator[None]:
        """Tensors made in this context are on the GPU, or on the CPU, whatever they are made from."""
        before, self._target = self._target, cuda
        try:
            yield
        finally:
            self._target = before

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        """What is copied in this context is copied beside other work."""
        before, self._aside = self._aside, stream is not None
        try:
            yield
        finally:
            self._aside = before

    # ---- records

    def _where(self) -> str:
        frame: types.FrameType | None = sys._getframe(2)
        last = "?"
        while frame is not None:
            file = frame.f_code.co_filename
            if f"/{self.package}/" in file and "site-packages/torch" not in file:
                return f"{file.rpartition('/' + self.package + '/')[2]}:{frame.f_lineno}"
            if "site-packages/torch" not in file and file != __file__ and last == "?":
                last = f"{file.rpartition('/')[2]}:{frame.f_lineno}"
            frame = frame.f_back
        return last

    def fault(self, text: str, kind: type[Exception] = RuntimeError) -> None:
        self.faults[f"{self._where()}: {text}"] += 1
        if self.strict:
            raise kind(text)

    def wait(self, what: str, times: int = 1) -> None:
        self.waits[f"{self._where()} {what}"] += times

    def moved(self, x: Tensor) -> None:
        pinned = x.untyped_storage()._cdata in self._pinned
        self.copied.append((x.numel() * x.element_size(), pinned))
        self.aside += self._aside
        if not pinned:
            self.wait(f"pageable copy to the device ({x.numel() * x.element_size()} bytes)")

    # ---- the modes

    def __enter__(self) -> PretendCuda:
        constant.cache_clear()  # those of another pretended device
        super().__enter__()
        self._stack.enter_context(_Spoof(self))
        for patch in _patches(self):
            self._stack.enter_context(patch)
        return self

    def __exit__(self, *given: Any) -> None:
        self._stack.close()
        super().__exit__(*given)
        constant.cache_clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        marks = [self.is_cuda(x) for x in tensors]
        cuda = any(marks)
        if self._target is None and cuda:
            self.dtypes.add((name, tensors[0].dtype))
            self._check(func, name, tensors, marks, args)
            if name in WAITING and marks[0] and not kwargs.get("unsafe"):  # segment_reduce without its checks
                self.wait(name, WAITING[name])
        out = func(*args, **kwargs)
        place = cuda if self._target is None else self._target
        if name == "aten::copy_":
            place = marks[0]
        if place:
            for x in tree_iter(out):
                if isinstance(x, Tensor) and x.layout == torch.strided:
                    self.mark(x)
            if not func.is_view and name not in ("aten::detach", "aten::empty", "aten::empty_like", "aten::alias"):
                self.launches += 1
                self.kernels[name] += 1
            if name in ("aten::convolution", "aten::convolution_backward"):
                self.shapes.add((name, tuple(args[0].shape), tuple(args[1].shape)))
        return out

    def _check(self, func: Any, name: str, tensors: list[Tensor], marks: list[bool], args: Any) -> None:
        if name == "aten::copy_":
            src, (to, of) = tensors[1], marks[:2]
            if to and not of and src.numel() > 0:
                self.moved(src)
            if of and not to and not (len(args) > 2 and args[2]):
                self.wait("copy to the host")
            return
        for x, mark in zip(tensors, marks, strict=True):
            if mark:
                continue
            number = x.ndim == 0 and name not in NO_WRAPPED_NUMBERS
            index = name in INDEXED and x.dtype in INTEGRAL and x is not tensors[0]
            if index:
                self.wait(f"indices of {func._schema.name} on the CPU")
            elif not number:
                shapes = ", ".join(
                    f"{'cuda' if m else 'CPU'} {tuple(t.shape)}" for t, m in zip(tensors, marks, strict=True)
                )
                self.fault(f"{name}: operands on different devices: {shapes}", DeviceMismatch)
        if name in FLOAT_ONLY and tensors[0].dtype in INTEGRAL:
            self.fault(f"{name}: CUDA has no kernel for {tensors[0].dtype}")
        if name in INDEXED:
            masks = [x for x in tensors[1:] if x.dtype in (torch.bool, torch.uint8) and x.ndim]
            if masks and isinstance(args[1], list | tuple) and any(m is i for m in masks for i in args[1]):
                self.wait(f"{name} by a mask")
        if name.startswith("aten::_fused_"):
            self._check_fused(name, args)

    def _check_fused(self, name: str, args: Any) -> None:
        """The CUDA kernels of fused optimizers require equal strides (torch: check_fast_path_restrictions)."""
        lists = [one for one in args if isinstance(one, list | tuple) and one and isinstance(one[0], Tensor)]
        for tensors in zip(*(one for one in lists if len(one) == len(lists[0])), strict=True):
            first = tensors[0]
            for other in tensors[1:]:
                if other.shape != first.shape:
                    continue  # steps
                if any(s != 1 and a != b for s, a, b in zip(first.shape, first.stride(), other.stride(), strict=True)):
                    self.fault(
                        f"{name}: parameter {tuple(first.shape)} has strides {first.stride()}, its gradient or state "
                        f"{other.stride()}: 'params, grads, ... must have same dtype, device, and layout'"
                    )


@contextlib.contextmanager
def on_gpu() -> Iterator[PretendCuda]:
    """A pretended GPU. With SSLTRANSFER_TEST_CUDA=1 the real one, which raises its faults and shows no waits.

    Products and convolutions are in true float32 where float32 is asked for.
    """
    cuda = PretendCuda()
    if not torch.cuda.is_available():
        with cuda:
            yield cuda
        return
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    try:
        yield cuda
    finally:
        convolutions.fp32_precision = before


_GET = {
    torch.Tensor.device.__get__: lambda cuda: CUDA if cuda else torch.device("cpu"),
    torch.Tensor.is_cuda.__get__: lambda cuda: cuda,  # type: ignore[attr-defined]
    torch.Tensor.is_cpu.__get__: lambda cuda: not cuda,  # type: ignore[attr-defined]
}


def _is_cuda_device(device: Any) -> bool:
    if isinstance(device, str):
        device = torch.device(device)
    return isinstance(device, torch.device) and device.type == "cuda"


class _Spoof(TorchFunctionMode):
    """Spoofs the devices that Python code reads."""

    def __init__(self, mode: PretendCuda):
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        mode = self.mode
        if func in _GET:
            return _GET[func](mode.is_cuda(args[0]))
        if func is torch.Tensor.to:
            return self._to(args, kwargs)
        if func is torch.Tensor.cpu:
            return self._to((args[0], "cpu"), kwargs)
        if func is torch.Tensor.cuda:
            return self._to((args[0], "cuda"), kwargs)
        if func is torch.Tensor.pin_memory:
            return mode._pin(args[0].clone())
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and mode.is_cuda(args[0]):
            mode.fault("numpy() of a cuda tensor", TypeError)
        if func is torch.Tensor.tolist and mode.is_cuda(args[0]):
            mode.wait("tolist")
            with mode.onto(False):
                return func(args[0].clone())
        if func is torch.Tensor.new_tensor and kwargs.get("device") is None:
            cuda = mode.is_cuda(args[0])
            if cuda:
                mode.wait("new_tensor copies from pageable memory")
            with mode.onto(cuda):
                return func(*args, **kwargs)
        pinned = kwargs.pop("pin_memory", False)
        if "device" in kwargs and kwargs["device"] is not None:
            cuda = _is_cuda_device(kwargs["device"])
            kwargs["device"] = torch.device("cpu")
            data: Any = args[0] if args else None
            there = isinstance(data, Tensor) and mode.is_cuda(data)
            if cuda and func in (torch.tensor, torch.as_tensor) and not there:
                mode.wait(f"{func.__name__}(..., device=cuda) copies from pageable memory")
            with mode.onto(cuda):
                out = func(*args, **kwargs)
            if isinstance(out, Tensor) and out is data and cuda and not mode.is_cuda(out):
                out = mode.mark(out.clone())
            return out
        out = func(*args, **kwargs)
        return mode._pin(out) if pinned else out

    def _to(self, args: Any, kwargs: Any) -> Tensor:
        mode, x, rest = self.mode, args[0], list(args[1:])
        target: bool | None = None
        if "device" in kwargs:
            device = kwargs.pop("device")
            target = None if device is None else _is_cuda_device(device)
        elif rest and isinstance(rest[0], str | torch.device):
            target = _is_cuda_device(rest.pop(0))
        elif rest and rest[0] is None:
            rest.pop(0)
        elif rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
            target, kwargs["dtype"] = mode.is_cuda(other), other.dtype
        if rest and isinstance(rest[0], torch.dtype):
            kwargs["dtype"] = rest.pop(0)
        names = [name for name in ("non_blocking", "copy") if name not in kwargs]
        kwargs |= dict(zip(names, rest, strict=False))
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        waits = not kwargs.pop("non_blocking", False)
        cuda = mode.is_cuda(x)
        if target is None or target == cuda:
            return x.to(**kwargs) if kwargs else x
        kwargs["copy"] = True
        if target:
            mode.moved(x)
            if waits and x.untyped_storage()._cdata in mode._pinned:
                mode.wait("blocking copy to the device")
        elif waits:
            mode.wait("copy to the host")
        with mode.onto(target):
            return x.to(**kwargs)


class _Event:
    def __init__(self, mode: PretendCuda):
        self._mode = mode

    def record(self, *_: Any) -> None: ...
    def synchronize(self) -> None:
        self._mode.wait("event")

    def wait(self, *_: Any) -> None: ...


class _Stream:
    """All work is done when it is asked for."""

    def __init__(self, *_: Any) -> None: ...
    def wait_stream(self, *_: Any) -> None: ...


def _patches(mode: PretendCuda) -> Iterator[Any]:
    """What asks for a real device, not through tensors."""
    import torch._dynamo  # an optimizer imports it, which must not happen under the patches

    init, scaler = torch.autocast.__init__, torch.amp.GradScaler

    def autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        init(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    yield mock.patch.object(torch.autocast, "__init__", autocast)
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        real = getattr(torch, name)
        yield mock.patch.object(torch, name, lambda kind="cpu", real=real: real("cpu" if kind == "cuda" else kind))

    class Generator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> Any:
            return super().__new__(cls, "cpu")  # type: ignore[call-arg]

    yield mock.patch.object(torch, "Generator", Generator)
    yield mock.patch.object(torch.amp, "GradScaler", lambda kind="cuda", **given: scaler("cpu", **given))
    yield mock.patch.object(torch.cuda, "Event", lambda **_: _Event(mode))
    yield mock.patch.object(torch.cuda, "Stream", _Stream)
    yield mock.patch.object(torch.cuda, "stream", mode.stream)
    yield mock.patch.object(torch.cuda, "current_stream", _Stream)
    yield mock.patch.object(torch.Tensor, "record_stream", lambda *_: None)
    yield mock.patch.object(torch.cuda, "is_bf16_supported", lambda **_: True)
    yield mock.patch.object(torch.cuda, "mem_get_info", lambda *_: (70 << 30, 80 << 30))
    for name in ("memory_reserved", "memory_allocated"):
        yield mock.patch.object(torch.cuda, name, lambda *_: 0)
    yield mock.patch.object(torch.cuda, "get_device_name", lambda *_: "pretended GPU")
    about = types.SimpleNamespace(total_memory=80 << 30)
    yield mock.patch.object(torch.cuda, "get_device_properties", lambda *_: about)
    fork = torch.random.fork_rng
    yield mock.patch.object(torch.random, "fork_rng", lambda devices: fork(devices=[]))
    mm = torch.mm

    def with_dtype(one: Tensor, two: Tensor, **given: Any) -> Tensor:
        """Only CUDA has `out_dtype`."""
        dtype = given.pop("out_dtype", None)
        return mm(one.to(dtype), two.to(dtype), **given) if dtype else mm(one, two, **given)

    yield mock.patch.object(torch, "mm", with_dtype)
