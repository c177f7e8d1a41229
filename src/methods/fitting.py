"""How a model is fitted to images: the settings that every stage that trains has, and what Keras makes of them.

`keras` is the module of the Keras that the model is of, 2 or 3.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as schema

from src.methods.distillation import Distillation
from src.models.kerases import tensors
from src.settings import own_code
from src.settings.check import STRICT, Count, Positive, Share, UserError
from src.settings.head import Head
from src.settings.own_code import ImportPath
from src.settings.sections import Augment

ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
SGD = {"momentum": 0.0, "nesterov": False}


@schema(frozen=True, config=STRICT)
class Fitting:
    """Of every training and every fine-tuning. The defaults are Adam with a cosine decay to 0."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    jit_compile: bool = False
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    beta_1: Share = ADAM["beta_1"]
    beta_2: Share = ADAM["beta_2"]
    epsilon: Positive = ADAM["epsilon"]
    momentum: Share = SGD["momentum"]
    nesterov: bool = False
    learning_rate_schedule: Literal["cosine", "constant", "exponential"] = "cosine"
    decay_rate: Annotated[float, Field(gt=0, le=1)] = 0.95
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Share = 0.0
    class_weight: Literal["balanced"] | None = None
    patience: Count | None = None
    loss: ImportPath | None = None
    distillation: Distillation = Distillation()

    def __post_init__(self) -> None:
        others, takes = (ADAM, "adam or adamw") if self.optimizer == "sgd" else (SGD, "sgd")
        for name, default in others.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)}: optimizer={self.optimizer} has none; takes optimizer={takes}"
                )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=true: needs a momentum; takes momentum above 0, such as 0.9")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs:g}: takes a number below epochs={self.epochs}")


def soft_labels(config: Fitting, augment: Augment) -> bool:
    """Whether the loss takes a share of each class, `[n, classes]`, and not the number of one."""
    return config.loss is not None or config.label_smoothing > 0 or augment.mixup > 0


def loss(config: Fitting, augment: Augment, keras: Any, head: Head, classes: int) -> Callable[[Any, Any], Any]:
    """The loss of the outputs of a model that ends in `head`: a function of labels, `[n]` or float32 `[n, classes]`,
    and outputs, `[n, outputs]`, to a number per image. The user's own takes labels and scores, both `[n, classes]`.
    Raises `UserError` where that can't be computed."""
    import tensorflow as tf

    if config.loss:
        own = own_loss(config.loss, classes)
        return lambda labels, outputs: own(labels, head.scores(outputs, tf))
    losses = keras.losses
    if head.kind == "softmax" and not head.outputs:
        soft = soft_labels(config, augment)
        of_each = losses.categorical_crossentropy if soft else losses.sparse_categorical_crossentropy
        return partial(of_each, from_logits=head.logits)
    of_kind = losses.categorical_crossentropy if head.kind == "softmax" else losses.binary_crossentropy

    def of_outputs(labels: Any, outputs: Any) -> Any:
        shares = labels if labels.shape.rank == 2 else tf.one_hot(labels, classes)
        return of_kind(tf.matmul(shares, head.targets(classes, outputs.shape[1])), outputs, from_logits=head.logits)

    return of_outputs


def own_loss(path: str, classes: int, key: str = "loss") -> Callable[[Any, Any], Any]:
    """The user's function at an import path, once it has been tried. Errors start with `key`."""
    import tensorflow as tf

    function, images = own_code.load(path, key), tf.TensorSpec((2, classes), tf.float32)
    takes = f"takes a function of labels and scores, both [n, {classes}], that gives a number per image, [n]"
    try:
        given = tf.function(lambda labels, scores: function(labels, scores)).get_concrete_function(images, images)
        shape = given.output_shapes
    except Exception as error:
        raise UserError(f"{key}={path}: fails ({own_code.in_short(error)}); {takes}") from None
    if shape != tf.TensorShape(2):
        raise UserError(f"{key}={path}: gives {shape} for two images; {takes}")
    return function


def optimizer(config: Fitting, keras: Any, steps: int) -> Any:
    """The Keras optimizer of a training of `steps` steps an epoch."""
    rate = learning_rate(config, keras, steps)
    decay = {} if config.weight_decay is None else {"weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov, **decay)
    kind = keras.optimizers.AdamW if config.optimizer == "adamw" else keras.optimizers.Adam
    return _in_one_pass(kind)(rate, beta_1=config.beta_1, beta_2=config.beta_2, epsilon=config.epsilon, **decay)


def _in_one_pass(kind: Any) -> Any:
    """Keras's Adam by the kernel that TensorFlow has for its formula: Keras's own operators go over all weights ten
    times, a tenth of each step of a network with large dense layers."""
    import tensorflow as tf

    class InOnePass(kind):
        def update_step(self, gradient: Any, variable: Any, *rate: Any) -> None:
            if isinstance(gradient, tf.IndexedSlices):  # of an embedding
                super().update_step(gradient, variable, *rate)
                return
            # Keras 3 gives the rate and finds a place by the variable, Keras 2 by a key of it.
            place = self._get_variable_index(variable) if rate else self._index_dict[self._var_key(variable)]
            own, first, second = tensors([variable, self._momentums[place], self._velocities[place]])
            step = tf.cast(self.iterations + 1, tf.float32)
            tf.raw_ops.ResourceApplyAdam(
                var=own.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=tf.pow(self.beta_1, step),
                beta2_power=tf.pow(self.beta_2, step),
                lr=tf.cast(rate[0] if rate else self.learning_rate, tf.float32),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )

    return InOnePass


def learning_rate(config: Fitting, keras: Any, steps: int) -> Any:
    """The learning rate, or a Keras schedule of it over the steps of all epochs, `steps` an epoch.

    Warm-up is linear (Goyal et al. 2017, arXiv:1706.02677) and reaches `learning_rate` at its last step; the schedule
    follows it, and a cosine ends with the last step of all.
    """
    schedules = keras.optimizers.schedules
    warmup = round(config.warmup_epochs * steps)
    rate: Any = config.learning_rate
    match config.learning_rate_schedule:
        case "cosine":
            rate = schedules.CosineDecay(rate, steps * config.epochs - warmup)
        case "exponential":
            rate = schedules.ExponentialDecay(rate, steps, config.decay_rate)
    return _warmed_up(rate, config.learning_rate, warmup, schedules.LearningRateSchedule) if warmup else rate


def _warmed_up(after: Any, highest: float, warmup: int, base: Any) -> Any:
    import tensorflow as tf

    class WarmUp(base):
        def __call__(self, step: Any) -> Any:
            step = tf.cast(tf.convert_to_tensor(step), tf.float32)
            later = after(tf.maximum(step - warmup, 0)) if callable(after) else after
            return tf.where(step < warmup, highest * (step + 1) / warmup, later)

        def get_config(self) -> dict[str, Any]:
            return {}

    return WarmUp()
