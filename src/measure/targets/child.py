"""What runs in a child process while latency is measured: loading and invoking artifacts, any of which may crash it.

Run by its path, so that the process holds numpy and LiteRT and nothing else: a JSON request on stdin, a JSON answer on
stdout.
"""

import ctypes
import functools
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

NUMPY_TYPES = {"string": "bytes"}


Workload = dict[str, Any]  # path, subgraph, index of the signature, inputs; see `src.measure.latency.workload`


@dataclass(frozen=True)
class Ready:
    """An interpreter with its input in place. It is kept since `invoke` does not keep it."""

    interpreter: Interpreter
    invoke: Callable[[], None]


def opened(allocate: Callable[[Interpreter], None] = Interpreter.allocate_tensors, **options: Any) -> Interpreter:
    """An interpreter with its tensors allocated: with XNNPACK, LiteRT's own delegate, or without it for a file that it
    refuses."""
    try:
        interpreter = Interpreter(**options)
        allocate(interpreter)
    except RuntimeError as error:
        if "xnnpack" not in str(error).lower():
            raise
        without = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(**options, experimental_op_resolver_type=without)
        allocate(interpreter)
    return interpreter


def load(workload: Workload, threads: int) -> Ready:
    """The Python API of ai-edge-litert 2.3 runs a signature only together with copies of its inputs and outputs. What
    it is made of takes the number of a subgraph, so that nothing but the invoke is timed."""
    subgraph = workload["subgraph"]

    def allocate(interpreter: Interpreter) -> None:
        for each in workload["inputs"]:
            if each["resized"]:
                shape = np.array(each["shape"], np.int32)
                interpreter._interpreter.ResizeInputTensor(each["tensor"], shape, False, subgraph)
        interpreter._interpreter.AllocateTensors(subgraph)

    interpreter = opened(allocate, model_path=workload["path"], num_threads=threads)
    wrapper = interpreter._interpreter
    for each, values in zip(workload["inputs"], filled(workload["inputs"]), strict=True):
        wrapper.SetTensor(each["tensor"], values, subgraph)
    return Ready(interpreter, functools.partial(wrapper.Invoke, subgraph))


def filled(inputs: list[dict[str, Any]]) -> Iterator[np.ndarray]:
    """Random values for each input, the same ones every time."""
    rng = np.random.default_rng(0)
    for each in inputs:
        shape, dtype = each["shape"], np.dtype(NUMPY_TYPES.get(each["dtype"], each["dtype"]))
        if np.issubdtype(dtype, np.floating):
            yield rng.random(shape).astype(dtype)
        elif np.issubdtype(dtype, np.integer):
            low, high = each["low"], each["high"]
            if low is None:
                low, high = max(np.iinfo(dtype).min, -128), min(np.iinfo(dtype).max, 255)
            yield rng.integers(low, high, shape, dtype, endpoint=True)
        else:
            yield np.zeros(shape, dtype)


def time_ns(ready: Ready) -> int:
    start = time.perf_counter_ns()
    ready.invoke()
    return time.perf_counter_ns() - start


def probe(workload: Workload, threads: int, seconds: float) -> dict[str, Any]:
    """One artifact in a process of its own: how long it takes to be ready, and about how long it takes from then on."""
    before = memory_bytes("VmRSS")
    start = time.perf_counter_ns()
    ready = load(workload, threads)
    load_ns = time.perf_counter_ns() - start
    first_ns = time_ns(ready)
    peak = memory_bytes("VmHWM")
    rest = [time_ns(ready)]
    while len(rest) < 20 and sum(rest) < seconds * 1e9:
        rest.append(time_ns(ready))
    return {
        "load_ms": load_ns / 1e6,
        "first_ms": first_ns / 1e6,
        "latency_ms": float(np.median(rest)) / 1e6,
        "peak_memory_bytes": peak - before if peak else None,
        "delegate": delegate(ready.interpreter, workload["subgraph"]),
    }


def delegate(interpreter: Interpreter, subgraph: int) -> str | None:
    """The wrapper tells the delegate only through the list of nodes, which has one more than the file; and the nodes
    of the first subgraph only."""
    if subgraph:
        return "delegate unknown"
    return "XNNPACK" if any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()) else None


def rounds(
    models: dict[str, Workload], threads: int, warmup: int, rounds: int, invokes: dict[str, int], seed: int, at: str
) -> dict[str, Any]:
    """One fresh instance of each of `models`; in each round every one of them, in random order: one invoke that
    brings its weights back into the caches, then `invokes[name]` timed ones. The file `at` says which one was being
    run.
    """
    names = list(models)
    rng = np.random.default_rng(seed)
    with open(at, "r+b") as file, mmap.mmap(file.fileno(), 0) as current:
        start = time.perf_counter()
        instances = {}
        for i in shuffled(rng, names):
            current[:2] = i.to_bytes(2, "little")
            instances[names[i]] = load(models[names[i]], threads)
            for _ in range(1 + warmup):
                instances[names[i]].invoke()
        loaded = time.perf_counter()
        times: dict[str, list[list[int]]] = {name: [] for name in names}
        for _ in range(rounds):
            for i in shuffled(rng, names):
                current[:2] = i.to_bytes(2, "little")
                instance = instances[names[i]]
                instance.invoke()
                times[names[i]].append([time_ns(instance) for _ in range(invokes[names[i]])])
    done = time.perf_counter()
    return {"times_ns": times, "load_s": loaded - start, "rounds_s": done - loaded}


class Event(ctypes.Structure):
    """ProfiledEventData of litert/c/litert_profiler_event.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("node", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


OPERATOR_EVENTS = 2 | 8  # of the interpreter, and of a delegate
FEWEST_CALLS = 5  # of which one may be interrupted
HANDLE, SIZE = ctypes.c_void_p, ctypes.c_size_t
# LiteRtRankedTensorType holds its dtype, then a LiteRtLayout: rank, eight dimensions and as many strides, each of four
# bytes.
LAYOUT, RANKED = ctypes.c_int32 * 17, ctypes.c_int32 * 18


class Compiled:
    """A model that LiteRT's C API has compiled for the CPU, with its inputs and outputs in place.

    The Python API of ai-edge-litert 2.3 has no profiler; the C API in the same wheel has one
    (litert/c/litert_profiler.h), so this goes through ctypes. Handles are never freed: the process ends.
    """

    def __init__(self, workload: Workload, threads: int) -> None:
        # A wheel that moved or changed the functions must cost this answer, not the process: signatures stay unchecked.
        name = "libLiteRt.dylib" if sys.platform == "darwin" else "libLiteRt.so"
        folder = os.path.dirname(sys.modules["ai_edge_litert"].__file__ or "")
        self.library = ctypes.CDLL(os.path.join(folder, name))
        none = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
        self.environment = self.get("CreateEnvironment", 0, None)
        model = self.get("CreateModelFromFile", self.environment, workload["path"].encode())
        options = self.get("CreateOptions")
        self.call("SetOptionsHardwareAccelerators", options, 1)  # CPU
        texts = (b"runtime_options_string", b"enable_profiling = true\n"), (b"xnnpack", b"num_threads = %d\n" % threads)
        for identifier, text in texts:
            self.call("AddOpaqueOptions", options, self.get("CreateOpaqueOptions", identifier, text, none))
        self.compiled = self.get("CreateCompiledModel", self.environment, model, options)
        self.index = SIZE(workload["index"])
        self.signature = self.get("GetModelSignature", model, self.index)
        inputs, outputs = self._inputs(workload), self._outputs()
        self.arguments = (self.compiled, self.index, SIZE(len(inputs)), inputs, SIZE(len(outputs)), outputs)
        self.profiler = self.get("CompiledModelGetProfiler", self.compiled)

    def call(self, function: str, *arguments: Any) -> None:
        if status := getattr(self.library, "LiteRt" + function)(*arguments):
            raise RuntimeError(f"LiteRt{function} gave status {status}")

    def get(self, function: str, *arguments: Any, kind: Any = HANDLE) -> Any:
        result = kind()
        self.call(function, *arguments, ctypes.byref(result))
        return result

    def _described(self, kind: str, i: int) -> tuple[Any, Any]:
        tensor = self.get(f"GetSignature{kind}TensorByIndex", self.signature, SIZE(i))
        return tensor, self.get("GetRankedTensorType", tensor, kind=RANKED)

    def _buffer(self, kind: str, i: int, ranked: Any) -> ctypes.c_void_p:
        needs = self.get(f"GetCompiledModel{kind}BufferRequirements", self.compiled, self.index, SIZE(i))
        made: ctypes.c_void_p = self.get("CreateManagedTensorBufferFromRequirements", self.environment, ranked, needs)
        return made

    def _handles(self, kind: str) -> Any:
        return (HANDLE * int(self.get(f"GetNumSignature{kind}s", self.signature, kind=SIZE).value))()

    def _inputs(self, workload: Workload) -> Any:
        given = {
            each["tensor"]: (each, values)
            for each, values in zip(workload["inputs"], filled(workload["inputs"]), strict=True)
        }
        inputs = self._handles("Input")
        for i in range(len(inputs)):
            tensor, ranked = self._described("Input", i)
            # The order is the subgraph's, which need not be the signature's.
            each, values = given[self.get("GetTensorIndex", tensor, kind=ctypes.c_uint32).value]
            shape = each["shape"]
            if each["resized"] or any(n < 0 for n in ranked[2 : 2 + len(shape)]):
                sizes = (ctypes.c_int * len(shape))(*shape)
                resize = "CompiledModelResizeInputTensorNonStrict"
                self.call(resize, self.compiled, self.index, SIZE(i), sizes, SIZE(len(shape)))
                ranked[2 : 2 + len(shape)] = shape
            inputs[i] = made = self._buffer("Input", i, ranked)
            content = values.tobytes()
            if len(content) > self.get("GetTensorBufferSize", made, kind=SIZE).value:
                raise RuntimeError(f"the buffer of {each['name']} is too small")
            address = HANDLE()
            self.call("LockTensorBuffer", made, ctypes.byref(address), 1)  # to write
            ctypes.memmove(address, content, len(content))
            self.call("UnlockTensorBuffer", made)
        return inputs

    def _outputs(self) -> Any:
        outputs = self._handles("Output")
        layouts = (LAYOUT * len(outputs))()
        count = SIZE(len(outputs))
        self.call("GetCompiledModelOutputTensorLayouts", self.compiled, self.index, count, layouts, True)
        for i in range(len(outputs)):
            _, ranked = self._described("Output", i)
            ranked[1:18] = layouts[i][:]
            outputs[i] = self._buffer("Output", i, ranked)
        return outputs

    def run(self) -> None:
        self.call("RunCompiledModel", *self.arguments)

    def profiled(self) -> list[tuple[str, int, int, int]]:
        """The operators of one call, in their order: name, node, subgraph, and microseconds."""
        self.call("ResetProfiler", self.profiler)
        self.call("StartProfiler", self.profiler)
        self.run()
        self.call("StopProfiler", self.profiler)
        number = self.get("GetNumProfilerEvents", self.profiler, kind=ctypes.c_int).value
        events = (Event * number)()
        self.call("GetProfilerEvents", self.profiler, number, events)
        return [
            (event.name.decode(errors="replace"), event.node, event.subgraph, event.elapsed_us)
            for event in events
            if event.kind & OPERATOR_EVENTS
        ]


def profile(workload: Workload, threads: int, invokes: int, seconds: float, at_most_seconds: float) -> dict[str, Any]:
    """Of each call the operators that the runtime executed in it, delegates' own ones included, in their order: name,
    node, subgraph, and how long it took in whole microseconds. At least `invokes` calls, and more within `seconds`;
    fewer where `at_most_seconds` are over, since being watched can slow a loop down by a thousand."""
    model = Compiled(workload, threads)
    for _ in range(max(1, invokes // 4)):
        model.run()
    calls: list[list[tuple[str, int, int, int]]] = []
    start = time.perf_counter()
    while len(calls) < FEWEST_CALLS or (
        (passed := time.perf_counter() - start) < at_most_seconds
        and (len(calls) < invokes or (passed < seconds and len(calls) < 10 * invokes))
    ):
        calls.append(model.profiled())
    return {"calls": calls}


def shuffled(rng: np.random.Generator, names: list[str]) -> Iterator[int]:
    return map(int, rng.permutation(len(names)))


def memory_bytes(field: str) -> int:
    """A field of /proc/self/status, 0 where there is none. Unlike getrusage, it starts anew with the program."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":")), 0)
    except OSError:
        return 0


def main() -> None:
    # LiteRT may print: stdout is for the answer alone.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        told = sys.stdin.read()
        if not told:  # whoever started it did not need it
            return
        request = json.loads(told)
        actions: dict[str, Callable[..., dict[str, Any]]] = {"probe": probe, "rounds": rounds, "profile": profile}
        try:
            result = actions[request.pop("action")](**request)
        except (ValueError, RuntimeError, OSError, AttributeError, TypeError, KeyError, MemoryError) as error:
            result = {"error": " ".join(str(error).split()) or type(error).__name__}
        json.dump(result, answer)


if __name__ == "__main__":
    main()
