"""Models that override what Keras offers for it: steps, loss, metrics, `compile`."""

import keras
import tensorflow as tf
from cases import ONE_HOT, SPARSE, X, Y

layers, ops = keras.layers, keras.ops


def dense(units, **how):
    return keras.Sequential([keras.Input([8]), layers.Dense(units, **how)])


class Vae(keras.Model):
    """Metrics of its own, listed by `metrics`; learns from `x` alone."""

    def __init__(self):
        super().__init__()
        self.encoder = dense(4)
        self.decoder = keras.Sequential([keras.Input([2]), layers.Dense(8)])
        self.seed = keras.random.SeedGenerator(7)
        self.total = keras.metrics.Mean(name="total")
        self.kl = keras.metrics.Mean(name="kl")

    @property
    def metrics(self):
        return [self.total, self.kl]

    def call(self, x):
        return self.decoder(self.encoder(x)[:, :2])

    def losses_of(self, x):
        mean, log_variance = ops.split(self.encoder(x), 2, axis=1)
        z = mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.seed)
        kl = -0.5 * ops.mean(1 + log_variance - ops.square(mean) - ops.exp(log_variance))
        return ops.mean(ops.square(self.decoder(z) - x)) + kl, kl

    def train_step(self, x):
        with tf.GradientTape() as tape:
            total, kl = self.losses_of(x)
        gradients = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        return self.logs(total, kl)

    def test_step(self, x):
        return self.logs(*self.losses_of(x))

    def logs(self, total, kl):
        self.total.update_state(total)
        self.kl.update_state(kl)
        return {metric.name: metric.result() for metric in self.metrics}


class Gan(keras.Model):
    """Two optimizers, given to a `compile` of its own; no `call`."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input([3]), layers.Dense(8)])
        self.discriminator = dense(1)
        self.seed = keras.random.SeedGenerator(7)
        self.built = True

    def compile(self, d_optimizer, g_optimizer, loss_fn, **how):
        super().compile(**how)
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn
        d_optimizer.build(self.discriminator.trainable_variables)  # needed under a strategy
        g_optimizer.build(self.generator.trainable_variables)
        self.d_loss = keras.metrics.Mean(name="d_loss")
        self.g_loss = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_loss, self.g_loss]

    def latent(self, size):
        return keras.random.normal((size, 3), seed=self.seed)

    def train_step(self, real):
        size = ops.shape(real)[0]
        fake = self.generator(self.latent(size))
        labels = ops.concatenate([ops.ones((size, 1)), ops.zeros((size, 1))], axis=0)
        with tf.GradientTape() as tape:
            guesses = self.discriminator(ops.concatenate([fake, real], axis=0))
            d_loss = self.loss_fn(labels, guesses)
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)
        with tf.GradientTape() as tape:
            guesses = self.discriminator(self.generator(self.latent(size)))
            g_loss = self.loss_fn(ops.zeros((size, 1)), guesses)
        weights = self.generator.trainable_weights
        self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}


class DrawingGan(Gan):
    """Draws by TensorFlow's own generator, whose seeds count the ops of the graph."""

    def latent(self, size):
        return tf.random.normal((size, 3))


class GradientPenalty(keras.Sequential):
    """A tape in a tape; `compute_loss` and `compute_metrics` of the compiled model."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                y_pred = self(x, training=True)
            slopes = inner.gradient(y_pred, x)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
            loss += 0.1 * ops.mean(ops.square(ops.norm(slopes, axis=1) - 1))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=ops.shape(x)[0])
        return self.compute_metrics(x, y, y_pred, sample_weight)


class Momentum(keras.Model):
    """Contrastive: an encoder, its moving average, and a queue of what that has seen."""

    def __init__(self):
        super().__init__()
        self.encoder, self.average = dense(3), dense(3)
        self.average.set_weights(self.encoder.get_weights())
        self.average.trainable = False
        self.queue = self.add_weight(
            shape=(6, 3), initializer=keras.initializers.RandomNormal(seed=1), trainable=False
        )
        self.loss_tracker = keras.metrics.Mean(name="contrast")

    def call(self, x):
        return self.encoder(x)

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        keys = self.average(x + 0.1)
        with tf.GradientTape() as tape:
            queries = self.encoder(x)
            alike = ops.sum(queries * keys, axis=1, keepdims=True)
            others = ops.matmul(queries, ops.transpose(self.queue))
            logits = ops.concatenate([alike, others], axis=1)
            labels = ops.zeros((ops.shape(x)[0],), "int32")
            loss = ops.mean(
                keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
            )
        weights = self.encoder.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for mean, weight in zip(self.average.weights, self.encoder.weights, strict=True):
            mean.assign(0.9 * mean + 0.1 * weight)
        self.queue.assign(ops.concatenate([keys, self.queue], axis=0)[:6])
        self.loss_tracker.update_state(loss)
        return {"contrast": self.loss_tracker.result()}


class RawLoss(keras.Sequential):
    """Its logs are losses of batches, not means; "loss" also names a metric of Keras's."""

    key = "loss"

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {self.key: loss}


class RawLosses(RawLoss):
    key = "raw"


class Accumulated(keras.Sequential):
    """Updates the weights after every second batch, by the sum of both gradients."""

    def build(self, *shape):
        super().build(*shape)
        how = {"initializer": "zeros", "trainable": False}
        self.sums = [
            tf.Variable(tf.zeros(w.shape), trainable=False) for w in self.trainable_weights
        ]
        self.count = self.add_weight(shape=(), dtype="int32", **how)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
        for total, gradient in zip(
            self.sums, tape.gradient(loss, self.trainable_weights), strict=True
        ):
            total.assign_add(gradient)
        self.count.assign_add(1)
        tf.cond(self.count % 2 == 0, self.update, lambda: None)
        return self.compute_metrics(x, y, y_pred)

    def update(self):
        self.optimizer.apply(list(self.sums), self.trainable_weights)
        for total in self.sums:
            total.assign(tf.zeros_like(total))


class WithSuper(keras.Sequential):
    """Keras's own step, and more."""

    def train_step(self, data):
        logs = super().train_step(data)
        return {**logs, "size": ops.sum(ops.abs(self.trainable_weights[0]))}

    def test_step(self, data):
        return {**super().test_step(data), "size": ops.sum(self.trainable_weights[0])}

    def predict_step(self, data):
        return {"probabilities": super().predict_step(data), "rows": data[:, :2]}


class OwnLoss(keras.Sequential):
    """`compute_loss` with `training`, on top of that of `compile`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        return loss + (0.1 if training else 0.2) * ops.mean(ops.square(x) * y_pred[:, :1])


class OwnLossAlone(keras.Sequential):
    """`compute_loss` as it was before `training`; the model is compiled without a loss."""

    def compute_loss(self, x, y, y_pred, sample_weight):
        loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))
        return loss + ops.sum(self.losses)


class OwnMetrics(keras.Sequential):
    """`compute_metrics` with `x`."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**logs, "largest": ops.max(x)}


def classifier(cls):
    """A function that builds a small classifier of this class."""

    def build():
        return cls(
            [
                keras.Input([8]),
                layers.Dense(4, activation="relu", kernel_regularizer="l2"),
                layers.Dropout(0.3),
                layers.Dense(3, activation="softmax"),
            ]
        )

    return build


def compiled(**arguments):
    return lambda **how: {"optimizer": keras.optimizers.SGD(0.1), **arguments, **how}


def of_gan(**how):
    return {
        "d_optimizer": keras.optimizers.Adam(0.01),
        "g_optimizer": keras.optimizers.SGD(0.1),
        "loss_fn": keras.losses.BinaryCrossentropy(from_logits=True),
        **how,
    }


BY_CLASS = compiled(loss=SPARSE, metrics=["acc"], weighted_metrics=["acc"])
ALONE = {"x": X}
LABELED = {"x": X, "y": Y, "sample_weight": ops.convert_to_numpy(ONE_HOT[:, 0] + 0.5)}
PLAIN = {"x": X, "y": Y}

# name: how it is built, compiled, its data
MODELS = {
    "VAE": (Vae, compiled(), {**ALONE, "validation_data": (X[:8],)}),
    "GAN": (Gan, of_gan, ALONE),
    "gradient penalty": (classifier(GradientPenalty), BY_CLASS, LABELED),
    "momentum encoder": (Momentum, compiled(), ALONE),
    "raw loss": (classifier(RawLoss), compiled(loss=SPARSE), PLAIN),
    "raw loss by another name": (classifier(RawLosses), compiled(loss=SPARSE), PLAIN),
    "accumulated gradients": (classifier(Accumulated), BY_CLASS, PLAIN),
    "super().train_step": (classifier(WithSuper), BY_CLASS, LABELED),
    "compute_loss": (classifier(OwnLoss), BY_CLASS, LABELED),
    "compute_loss alone": (classifier(OwnLossAlone), compiled(metrics=["acc"]), PLAIN),
    "compute_metrics": (classifier(OwnMetrics), BY_CLASS, LABELED),
}


# Methods around the steps -----------------------------------------------------------------------


class Task(keras.Sequential):
    """Prepares words in its own `fit`, `evaluate` and `predict`, as KerasHub's tasks do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.words = layers.StringLookup(vocabulary=["a", "b", "c"])
        self.calls = []

    def prepare(self, x, y=None, sample_weight=None):
        self.calls.append("prepare")
        x = tf.one_hot(self.words(x), 8)
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def raw(self, x, y=None, sample_weight=None, batch_size=None):
        data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return tf.data.Dataset.from_tensor_slices(data).batch(batch_size or 4)

    def fit(self, x, y=None, batch_size=None, validation_data=None, **kwargs):
        self.calls.append("fit")
        if validation_data is not None:
            validation_data = self.raw(*validation_data)  # prepared by `evaluate`
        dataset = self.raw(x, y, batch_size=batch_size).map(self.prepare)
        return super().fit(dataset, validation_data=validation_data, batch_size=None, **kwargs)

    def evaluate(self, x, y=None, batch_size=None, sample_weight=None, **kwargs):
        self.calls.append("evaluate")
        kwargs.pop("_use_cached_eval_dataset", None)
        dataset = x if isinstance(x, tf.data.Dataset) else self.raw(x, y, sample_weight, batch_size)
        return super().evaluate(x=dataset.map(self.prepare), batch_size=None, **kwargs)

    def predict(self, x=None, batch_size=None, **kwargs):
        self.calls.append("predict")
        return super().predict(self.raw(x, batch_size=batch_size).map(self.prepare), **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        self.calls.append("train_on_batch")
        return super().train_on_batch(*self.prepare(x, y), sample_weight, **kwargs)


class HandsOn(keras.Sequential):
    """Hands the keyword for cached batches on: fit validates on data that are not doubled."""

    calls = ()

    def evaluate(self, x=None, y=None, **kwargs):
        self.calls = (*self.calls, "evaluate")
        return super().evaluate(x=2 * x, y=y, **kwargs)


class EvaluatesInFit(Task):
    """Its `fit` trains twice, with another one's `evaluate` and `predict` between."""

    def fit(self, x=None, y=None, **kwargs):
        super().fit(x, y, **kwargs)
        self.between = [*self.evaluate(x, y, verbose=0), *self.predict(x, verbose=0)]
        return super().fit(x, y, **kwargs)
