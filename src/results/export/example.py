"""Runs model.tflite with ai_edge_litert and numpy: python example.py [IMAGE.npy], and with Pillow any picture."""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

here = Path(__file__).resolve().parent
how = json.loads((here / "preprocessing.json").read_text(encoding="utf-8"))
labels = (here / "labels.txt").read_text(encoding="utf-8").splitlines()
file, shape = sys.argv[1] if len(sys.argv) > 1 else here / "example.npy", how["image_shape"]
takes = f"takes a picture, or a .npy file of uint8 {shape}: height, width, channels"
try:
    if Path(file).suffix == ".npy":
        image = np.load(file)
        if image.dtype != np.uint8 or list(image.shape) != shape:
            raise ValueError
    else:  # decoded and resized as in training
        from decode import decode  # type: ignore[import-not-found]

        image, _ = decode(Path(file).read_bytes(), tuple(shape[:2]), shape[2], how["resize"], how["crop"])
except ImportError:
    sys.exit(f"error: {file}: needs Pillow (pip install pillow); without it, {takes.replace('a picture, or ', '')}")
except Exception as error:  # of the system, of numpy for a file of another kind, or of what is no picture
    other = "is something else" if Path(file).suffix == ".npy" else error
    print(f"error: {file}: {getattr(error, 'strerror', None) or other}; {takes}", file=sys.stderr)
    sys.exit(2)
kernels = OpResolverType.AUTO if how.get("xnnpack", True) else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
interpreter = Interpreter(model_path=str(here / "model.tflite"), experimental_op_resolver_type=kernels)
interpreter.allocate_tensors()
(given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
pre = {name: np.float32(value) for name, value in how["preprocess"].items() if name != "channel_order"}
image = image[..., ::-1] if how["preprocess"]["channel_order"] == "bgr" else image
values = (image.astype(np.float32) * pre["rescale"] - pre["mean"]) / pre["std"]
if given["dtype"] != np.float32:  # full integer: scale and zero point are in the file
    values = np.clip(np.rint(values / np.float32(given["quantization"][0])) + given["quantization"][1], -128, 127)
interpreter.set_tensor(given["index"], values[None].astype(given["dtype"]))
interpreter.invoke()
scores = interpreter.get_tensor(result["index"])[0]
if how.get("outputs"):  # of each class; -1 is what a single output leaves for the other one
    found = (scores.astype(np.float32) - result["quantization"][1]) * np.float32(result["quantization"][0] or 1)
    found = np.append(found, 0 * found[0] if how["logits"] else 1 - found[0])
    scores = found[how["outputs"]]
print(labels[scores.argmax()] if np.isfinite(scores.max()) else "no number")
