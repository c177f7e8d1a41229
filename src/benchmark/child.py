"""What runs in a child process of the benchmark: loading and invoking artifacts, any of which may crash it.

Run by its path, so that the process holds numpy and LiteRT and nothing else: a JSON request on stdin, a JSON answer on
stdout.
"""

import ctypes
import json
import mmap
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def load(path: str, threads: int) -> Interpreter:
    """An interpreter with random input, ready to invoke."""
    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for details in interpreter.get_input_details():
        shape, dtype = details["shape"], details["dtype"]
        if np.issubdtype(dtype, np.floating):
            values = rng.random(shape).astype(dtype)
        elif np.issubdtype(dtype, np.integer):
            low, high = max(np.iinfo(dtype).min, -128), min(np.iinfo(dtype).max, 255)
            values = rng.integers(low, high, shape, dtype, endpoint=True)
        else:
            values = np.zeros(shape, dtype)
        interpreter.set_tensor(details["index"], values)
    return interpreter


def time_ns(interpreter: Interpreter) -> int:
    start = time.perf_counter_ns()
    interpreter.invoke()
    return time.perf_counter_ns() - start


def probe(path: str, threads: int, seconds: float) -> dict[str, Any]:
    """One artifact in a process of its own: how long it takes to be ready, and about how long it takes from then on."""
    before = memory_bytes("VmRSS")
    start = time.perf_counter_ns()
    interpreter = load(path, threads)
    load_ns = time.perf_counter_ns() - start
    first_ns = time_ns(interpreter)
    peak = memory_bytes("VmHWM")
    rest = [time_ns(interpreter)]
    while len(rest) < 20 and sum(rest) < seconds * 1e9:
        rest.append(time_ns(interpreter))
    return {
        "load_ms": load_ns / 1e6,
        "first_ms": first_ns / 1e6,
        "latency_ms": float(np.median(rest)) / 1e6,
        "peak_memory_bytes": peak - before if peak else None,
        # The wrapper tells the delegate only through the list of nodes, which has one more than the file.
        "delegate": "XNNPACK" if any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()) else None,
    }


def rounds(
    models: dict[str, str], threads: int, warmup: int, rounds: int, invokes: dict[str, int], seed: int, at: str
) -> dict[str, Any]:
    """One fresh instance of each of `models`; in each round every one of them, in random order: one invoke that
    brings its weights back into the caches, then `invokes[name]` timed ones. The file `at` says which one was being
    run.
    """
    names = list(models)
    rng = np.random.default_rng(seed)
    with open(at, "r+b") as file, mmap.mmap(file.fileno(), 0) as current:
        start = time.perf_counter()
        interpreters = {}
        for i in shuffled(rng, names):
            current[:2] = i.to_bytes(2, "little")
            interpreters[names[i]] = load(models[names[i]], threads)
            for _ in range(1 + warmup):
                interpreters[names[i]].invoke()
        loaded = time.perf_counter()
        times: dict[str, list[list[int]]] = {name: [] for name in names}
        for _ in range(rounds):
            for i in shuffled(rng, names):
                current[:2] = i.to_bytes(2, "little")
                interpreter = interpreters[names[i]]
                interpreter.invoke()
                times[names[i]].append([time_ns(interpreter) for _ in range(invokes[names[i]])])
    done = time.perf_counter()
    return {"times_ns": times, "load_s": loaded - start, "rounds_s": done - loaded}


def profile(path: str, threads: int, invokes: int) -> dict[str, Any]:
    """Milliseconds per invoke of each operator that the runtime executes, delegates' own ones included, in their order.

    The Python API of ai-edge-litert 2.3 has no profiler; the C API in the same wheel has one
    (litert/c/litert_profiler.h, a microsecond's resolution), so this goes through ctypes. Handles are never freed:
    the process ends.
    """
    # A wheel that moved or changed the functions must cost this answer, not the process: signatures stay unchecked.
    name = "libLiteRt.dylib" if sys.platform == "darwin" else "libLiteRt.so"
    library = ctypes.CDLL(os.path.join(os.path.dirname(sys.modules["ai_edge_litert"].__file__ or ""), name))
    handle, first, none = ctypes.c_void_p, ctypes.c_size_t(0), ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)

    def call(function: str, *arguments: Any) -> None:
        if status := getattr(library, "LiteRt" + function)(*arguments):
            raise RuntimeError(f"LiteRt{function} gave status {status}")

    def get(function: str, *arguments: Any) -> ctypes.c_void_p:
        result = handle()
        call(function, *arguments, ctypes.byref(result))
        return result

    environment = get("CreateEnvironment", 0, None)
    model = get("CreateModelFromFile", environment, path.encode())
    options = get("CreateOptions")
    call("SetOptionsHardwareAccelerators", options, 1)  # CPU
    texts = (b"runtime_options_string", b"enable_profiling = true\n"), (b"xnnpack", b"num_threads = %d\n" % threads)
    for identifier, text in texts:
        call("AddOpaqueOptions", options, get("CreateOpaqueOptions", identifier, text, none))
    compiled = get("CreateCompiledModel", environment, model, options)
    signature = get("GetModelSignature", model, first)

    def buffers(kind: str) -> tuple[ctypes.c_size_t, Any]:
        number = ctypes.c_size_t()
        call(f"GetNumSignature{kind}s", signature, ctypes.byref(number))
        made = (handle * number.value)()
        for i in map(ctypes.c_size_t, range(number.value)):
            tensor = get(f"GetSignature{kind}TensorByIndex", signature, i)
            # LiteRtRankedTensorType: dtype, rank, dimensions, … of 4 bytes each; -1 is a dimension that may vary.
            shape = (ctypes.c_int32 * 64)()
            call("GetRankedTensorType", tensor, shape)
            shape[2:10] = [abs(n) for n in shape[2:10]]
            needs = get(f"GetCompiledModel{kind}BufferRequirements", compiled, first, i)
            made[i.value] = get("CreateManagedTensorBufferFromRequirements", environment, shape, needs)
        return number, made

    arguments = (compiled, first, *buffers("Input"), *buffers("Output"))
    profiler = get("CompiledModelGetProfiler", compiled)
    for _ in range(max(1, invokes // 4)):
        call("RunCompiledModel", *arguments)
    call("StartProfiler", profiler)
    for _ in range(invokes):
        call("RunCompiledModel", *arguments)
    call("StopProfiler", profiler)
    summary = ctypes.c_char_p()
    call("GetProfileSummary", profiler, compiled, ctypes.byref(summary))
    return {"operators": operators((summary.value or b"").decode())}


def operators(summary: str) -> list[tuple[str, float]]:
    """(name, average milliseconds) of each row of the profiler's first table, "Run Order"."""
    table = summary.split("Run Order", 1)[-1].split("Top by Computation Time", 1)[0]
    # node type, start, first, avg ms, %, cdf%, memory, times called, name
    row = re.compile(r"\s*(\S.*?)\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+\d+\s+(.*)")
    found = (row.match(line) for line in table.splitlines())
    return [(match[1].removeprefix("Delegate/"), float(match[2])) for match in found if match]


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
        request = json.load(sys.stdin)
        actions: dict[str, Callable[..., dict[str, Any]]] = {"probe": probe, "rounds": rounds, "profile": profile}
        try:
            result = actions[request.pop("action")](**request)
        except (ValueError, RuntimeError, OSError, AttributeError) as error:
            result = {"error": " ".join(str(error).split()) or type(error).__name__}
        json.dump(result, answer)


if __name__ == "__main__":
    main()
