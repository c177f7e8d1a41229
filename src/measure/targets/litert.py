"""LiteRT on the CPU of this machine."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from src.machine.output import quiet
from src.measure.targets import Port, Target
from src.measure.targets.child import opened
from src.settings.check import UserError


class Interpreter:
    """See `src.measure.targets.Interpreter`."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            with quiet():  # LiteRT tells which delegate it made
                self._interpreter = opened(model_path=str(path), num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path}: can't be loaded: {' '.join(str(error).split())}") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or len(outputs) != 1 or len(outputs[0]["shape"]) != 2:
            shapes = [[d["shape"].tolist() for d in details] for details in (inputs, outputs)]
            raise UserError(f"{path}: inputs {shapes[0]}, outputs {shapes[1]}; takes one of images and one of classes")
        self.input, self.output = _port(inputs[0]), _port(outputs[0])
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self._batch_size = self.input.shape[0]

    def run(self, images: np.ndarray) -> np.ndarray:
        if len(images) != self._batch_size:
            # Before it is tried: where it fails, the next images have to resize again.
            self._batch_size = len(images)
            self._interpreter.resize_tensor_input(self._input, images.shape)
            self._interpreter.allocate_tensors()
        self._interpreter.reset_all_variables()  # what a recurrent layer remembers is of other images
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)

    def activation_bytes(self) -> int:
        tensors = self._interpreter.get_tensor_details()
        # A dimension of -1 is the batch, which weights do not have.
        activations = [t for t in tensors if len(t["shape_signature"]) and t["shape_signature"][0] == -1]
        return max((int(np.prod(t["shape"])) * np.dtype(t["dtype"]).itemsize for t in activations), default=1 << 16)


def _port(details: dict[str, Any]) -> Port:
    scale, zero_point = details["quantization"]
    return Port(tuple(int(n) for n in details["shape"]), details["dtype"], float(scale), int(zero_point))


def runtime() -> str:
    return f"LiteRT {version('ai-edge-litert')}"


CPU = Target("cpu", runtime, Interpreter, Path(__file__).with_name("child.py"))
