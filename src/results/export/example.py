"""Runs model.tflite with ai_edge_litert and numpy alone: python example.py [IMAGE.npy]"""

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

how = json.loads(Path("preprocessing.json").read_text(encoding="utf-8"))
labels = Path("labels.txt").read_text(encoding="utf-8").splitlines()
image = np.load(sys.argv[1] if len(sys.argv) > 1 else "example.npy")  # uint8 [height, width, channels]
interpreter = Interpreter(model_path="model.tflite")
interpreter.allocate_tensors()
given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
pre = {name: np.float32(value) for name, value in how["preprocess"].items() if name != "channel_order"}
values = image[..., ::-1] if how["preprocess"]["channel_order"] == "bgr" else image
values = (values.astype(np.float32) * pre["rescale"] - pre["mean"]) / pre["std"]
if given["dtype"] != np.float32:  # full integer: scale and zero point are in the file
    scale, zero_point = given["quantization"]
    values = np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127).astype(given["dtype"])
interpreter.set_tensor(given["index"], values[None])
interpreter.invoke()
scores = interpreter.get_tensor(result["index"])[0]
print(labels[scores.argmax()] if np.isfinite(scores.max()) else "no number")
