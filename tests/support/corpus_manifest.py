"""The corpus of hand-written training loops, and what `check` should say of each.

A right loop is a file in `tests/corpus/`, or in `tests/corpus/fresh/` if it was written after
`check` was last changed. A wrong one is a right one in which one piece of text is replaced, so
that it differs from its twin by exactly one mistake and is still a file that somebody could have
written.
"""

import textwrap
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "corpus"
FRESH = "fresh/"
RIGHT = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.py"))


class Mistake(NamedTuple):
    """A wrong loop.

    Attributes:
        name: of the mistake: that of a pitfall where there is one.
        twin: file of the right loop in `tests/corpus/`, without `.py`.
        right, wrong: the text that is replaced, once in the file, and what replaces it. Lines are
            indented to the margin; the file's own indentation is put back.
        stages: where the loop first differs from fit; more than one only with a reason in `why`.
            None: its numbers are those of fit, and the mistake costs time.
        in_catalogue: whether `name` is the name of a pitfall.
        also: further pitfalls whose loops compute the same on this file, with the reason in `why`.
        why: the reason for a second stage or cause.
    """

    name: str
    twin: str
    right: str
    wrong: str
    stages: tuple[str, ...]
    in_catalogue: bool = True
    also: tuple[str, ...] = ()
    why: str = ""


def unknown(name, twin, right, wrong, *stages, also=(), why=""):
    """A mistake that is in no catalogue: `check` should find it, and name no cause."""
    return Mistake(name, twin, right, wrong, stages, in_catalogue=False, also=also, why=why)


DATA_OR_VALIDATION = (
    "rows of the validation are compared in the stage data; the loss shows them too"
)

MISTAKES = [
    # data --------------------------------------------------------------------------------------
    Mistake(
        "unequal_first_weights",
        "own_callbacks",
        "recorder = Recorder()",
        """
        for weight in model.weights:
            weight.assign(weight * 0.5)
        recorder = Recorder()
        """,
        ("initial_weights",),
    ),
    Mistake(
        "unequal_first_weights",
        "sgd_by_hand",
        "sgd = HandMadeSGD(model.trainable_variables, lr=0.2, momentum=0.9)",
        """
        init = keras.initializers.GlorotNormal(seed=1)
        for w in model.trainable_variables:
            if len(w.shape) > 1:
                w.assign(init(w.shape))
        sgd = HandMadeSGD(model.trainable_variables, lr=0.2, momentum=0.9)
        """,
        ("initial_weights",),
    ),
    Mistake(
        "x_shuffled_without_y",
        "numpy_slices",
        "y_shuf = y[idx]",
        "y_shuf = y",
        ("data",),
    ),
    Mistake(
        "x_shuffled_without_y",
        "korean_classifier",
        "loss, acc = self.one_pass(x[shuffled], y[shuffled], self.train_on_batch)",
        "loss, acc = self.one_pass(x[shuffled], y, self.train_on_batch)",
        ("data",),
    ),
    Mistake(
        "partial_batch_dropped",
        "generator_batches",
        "for i in range(0, len(x), batch_size):",
        "for i in range(0, len(x) - batch_size + 1, batch_size):",
        ("data",),
    ),
    Mistake(
        "partial_batch_dropped",
        "subclassed_eager",
        "n_batches = int(np.ceil(len(x) / batch_size))",
        "n_batches = len(x) // batch_size",
        ("data",),
    ),
    Mistake(
        "partial_batch_dropped",
        "regularised_autoencoder",
        "images = tf.data.Dataset.from_tensor_slices(x).shuffle(1000).batch(batch_size)",
        "images = tf.data.Dataset.from_tensor_slices(x).shuffle(1000).batch(batch_size, True)",
        ("data",),
    ),
    Mistake(
        "validation_rows_leak",
        "hold_out",
        """
        train_rows = rows.take(n_train).shuffle(len(x))
        val_rows = rows.skip(n_train)
        """,
        """
        rows = rows.shuffle(len(x))
        train_rows = rows.take(n_train)
        val_rows = rows.skip(n_train)
        """,
        ("data",),
    ),
    Mistake(
        "shuffled_split",
        "hold_out",
        "rows = tf.data.Dataset.from_tensor_slices((x, y))",
        """
        mixed = np.random.permutation(len(x))
        rows = tf.data.Dataset.from_tensor_slices((x[mixed], y[mixed]))
        """,
        ("data",),
    ),
    Mistake(
        "shuffled_split",
        "transfer",
        "split = int(len(x) * (1 - validation_split))",
        """
        split = int(len(x) * (1 - validation_split))
        order = np.random.permutation(len(x))
        x, y = x[order], y[order]
        """,
        ("data",),
    ),
    Mistake(
        "small_shuffle_buffer",
        "sorted_rows",
        "dataset = dataset.shuffle(buffer_size=150)",
        "dataset = dataset.shuffle(buffer_size=batch_size)",
        ("data",),
    ),
    Mistake(
        "one_permutation",
        "sorted_rows",
        "dataset = dataset.shuffle(buffer_size=150)",
        "dataset = dataset.shuffle(buffer_size=150, reshuffle_each_iteration=False)",
        ("data",),
    ),
    Mistake(
        "one_permutation",
        "numpy_slices",
        """
        for ep in range(epochs):
            idx = np.random.permutation(N)
        """,
        """
        idx = np.random.permutation(N)
        for ep in range(epochs):
        """,
        ("data",),
    ),
    unknown(
        "labels shifted by one row",
        "three_functions",
        "images, labels = x[lo : lo + batch_size], y[lo : lo + batch_size]",
        "images, labels = x[lo : lo + batch_size], np.roll(y, 1)[lo : lo + batch_size]",
        "data",
    ),
    unknown(
        "the data are not shuffled",
        "weighted_samples",
        "rows = rows.shuffle(buffer_size=len(x)).batch(batch_size)",
        "rows = rows.batch(batch_size)",
        "data",
        also=("one_permutation", "small_shuffle_buffer"),
        why="the same order in every epoch, and that of a buffer of one row",
    ),
    unknown(
        "another batch size",
        "smooth_labels",
        """
        log = {"loss": [], "acc": [], "recall": []}
        """,
        """
        batch_size = 32
        log = {"loss": [], "acc": [], "recall": []}
        """,
        "data",
    ),
    unknown(
        "inputs scaled a second time",
        "tiny_convnet",
        "ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).cache().prefetch(1)",
        """
        x = x / 255.0
        ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).cache().prefetch(1)
        """,
        "data",
        "forward",
        why="the loop's rows are none of the training set's; so are the outputs none of fit's",
    ),
    # forward -----------------------------------------------------------------------------------
    Mistake(
        "dropout_without_training",
        "digits_guide",
        "logits = model(x, training=True)",
        "logits = model(x)",
        ("forward",),
    ),
    Mistake(
        "dropout_without_training",
        "fast_dropout",
        "out = model(tf.gather(x, rows), training=True)",
        "out = model(tf.gather(x, rows), training=False)",
        ("forward",),
    ),
    Mistake(
        "batchnorm_without_training",
        "trainer_class",
        "loss, predictions = self.compute_loss(inputs, targets, training=True)",
        "loss, predictions = self.compute_loss(inputs, targets, training=None)",
        ("forward",),
    ),
    Mistake(
        "other_jit_compile",
        "fast_dropout",
        """
        @tf.function
        def step(first):
        """,
        """
        @tf.function(jit_compile=True)
        def step(first):
        """,
        ("forward",),
    ),
    Mistake(
        "layer_built_in_step",
        "subclassed_eager",
        "logits = model(xb, training=True)",
        "logits = keras.layers.Dense(3)(model.hidden(xb))",
        ("forward",),
    ),
    unknown(
        "a second forward pass for the metrics moves the averages twice",
        "trainer_class",
        """
        variables = self.net.trainable_variables
        """,
        """
        predictions = self.net(inputs, training=True)
        variables = self.net.trainable_variables
        """,
        "forward",
    ),
    # loss --------------------------------------------------------------------------------------
    Mistake(
        "broadcast_labels",
        "numpy_slices",
        "err = yb - tf.squeeze(pred, axis=-1)",
        "err = yb - pred",
        ("loss",),
    ),
    Mistake(
        "logits_as_probabilities",
        "digits_guide",
        """
        # Instantiate a loss function.
        loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        """,
        """
        # Instantiate a loss function.
        loss_fn = keras.losses.SparseCategoricalCrossentropy()
        """,
        ("loss",),
    ),
    Mistake(
        "mean_over_weights",
        "weighted_samples",
        "return tf.reduce_mean(per_sample * weights)",
        "return tf.reduce_sum(per_sample * weights) / tf.reduce_sum(weights)",
        ("loss",),
    ),
    Mistake(
        "class_weight_twice",
        "rare_class",
        "loss = scce(y, y_pred, sample_weight=w)",
        "loss = scce(y, y_pred, sample_weight=w * tf.gather(table, y))",
        ("loss",),
    ),
    Mistake(
        "class_weight_normalized",
        "rare_class",
        "weights = table.numpy()[y]",
        """
        weights = table.numpy()[y]
        weights /= weights.mean()
        """,
        ("loss",),
    ),
    Mistake(
        "class_weight_normalized",
        "rare_class",
        "loss = scce(y, y_pred, sample_weight=w)",
        "loss = scce(y, y_pred, sample_weight=w / sum(class_weight.values()))",
        ("loss",),
    ),
    Mistake(
        "regularizers_left_out",
        "korean_ridge",
        """
        # 규제 항을 손실에 더한다
        loss += tf.add_n(model.losses)
        """,
        "",
        ("loss",),
    ),
    Mistake(
        "regularizers_twice",
        "korean_ridge",
        "loss += tf.add_n(model.losses)",
        """
        loss += tf.add_n(model.losses)
        loss += 0.02 * sum(tf.reduce_sum(w**2) for w in model.trainable_weights[::2])
        """,
        ("loss",),
    ),
    Mistake(
        "regularizers_divided",
        "regularised_autoencoder",
        "penalty = tf.add_n(model.losses)",
        "penalty = tf.add_n(model.losses) / tf.cast(tf.shape(images)[0], tf.float32)",
        ("loss",),
    ),
    Mistake(
        "loss_weights_ignored",
        "two_heads",
        """total = sum(CONFIG["weights"][name] * losses[name] for name in losses)""",
        "total = sum(losses.values())",
        ("loss",),
    ),
    Mistake(
        "mask_left_out",
        "tagger_lstm",
        """
        mask = tf.cast(tokens != 0, loss.dtype)
        return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)
        """,
        "return tf.reduce_mean(loss)",
        ("loss",),
    ),
    unknown(
        "padding counted in the mean",
        "tagger_lstm",
        "return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)",
        "return tf.reduce_mean(loss * mask)",
        "loss",
    ),
    unknown(
        "sample weights ignored",
        "weighted_samples",
        "loss = weighted_loss(ys, probs, ws)",
        "loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(ys, probs))",
        "loss",
    ),
    unknown(
        "label smoothing ignored",
        "smooth_labels",
        "smooth = target * (1.0 - SMOOTHING) + 0.5 * SMOOTHING",
        "smooth = target",
        "loss",
    ),
    unknown(
        "another loss",
        "forecast_gru",
        "loss = mae(target, forecast)",
        "loss = tf.reduce_mean(tf.square(target - forecast))",
        "loss",
    ),
    unknown(
        "sum in place of mean",
        "fast_dropout",
        "loss = tf.reduce_mean(tf.square(out - tf.gather(y, rows)))",
        "loss = tf.reduce_sum(tf.square(out - tf.gather(y, rows)))",
        "loss",
    ),
    unknown(
        "divided by the full batch size in the partial batch",
        "two_inputs",
        "loss = huber(target, guess)",
        "loss = huber(target, guess) * tf.cast(len(target), tf.float32) / batch_size",
        "loss",
    ),
    # gradients ---------------------------------------------------------------------------------
    Mistake(
        "loss_not_scaled",
        "half_precision",
        "gradients = tape.gradient(scaled_loss, model.trainable_variables)",
        "gradients = tape.gradient(loss, model.trainable_variables)",
        ("gradients", "loss"),
        why="the scalar that is differentiated is the unscaled loss",
    ),
    Mistake(
        "gradients_not_unscaled",
        "half_precision",
        "optimizer.apply_gradients(zip(gradients, model.trainable_variables))",
        "inner.apply_gradients(zip(gradients, model.trainable_variables))",
        ("gradients", "update"),
        why="the gradients are scaled as fit's are; what the plain optimizer is given is not",
    ),
    Mistake(
        "frozen_layers_trained",
        "transfer",
        "trained = head.trainable_variables",
        """
        model.get_layer("base").trainable = True
        trained = model.trainable_variables
        """,
        ("gradients",),
    ),
    Mistake(
        "accumulation_not_divided",
        "accumulate",
        "grads = [buffer / ACCUMULATE for buffer in buffers]",
        "grads = [buffer + 0.0 for buffer in buffers]",
        ("gradients",),
    ),
    Mistake(
        "clipped_before_averaging",
        "accumulate",
        """
        for buffer, grad in zip(buffers, grads):
            buffer.assign_add(grad)
        return loss
        """,
        """
        grads, _ = tf.clip_by_global_norm(grads, CLIP)
        for buffer, grad in zip(buffers, grads):
            buffer.assign_add(grad)
        return loss
        """,
        ("gradients",),
    ),
    Mistake(
        "clipped_per_variable",
        "tiny_convnet",
        "grads, norm = tf.clip_by_global_norm(grads, max_norm)",
        "grads = [tf.clip_by_norm(grad, max_norm) for grad in grads]",
        ("gradients",),
    ),
    unknown(
        "not clipped",
        "forecast_gru",
        "gradients = [tf.clip_by_norm(g, 1.0) for g in gradients]",
        "gradients = list(gradients)",
        "gradients",
        "update",
        why="fit clips in the optimizer, which is given the same gradients here",
    ),
    unknown(
        "the gradient of another tensor",
        "own_callbacks",
        "grads = tape.gradient(loss, self.model.trainable_variables)",
        "grads = tape.gradient(y_pred, self.model.trainable_variables)",
        "gradients",
        "loss",
        why="the tensor that is differentiated is not the loss",
    ),
    unknown(
        "only the last layer is trained",
        "two_inputs",
        "parameters = model.trainable_variables",
        "parameters = model.layers[-1].trainable_variables",
        "gradients",
    ),
    unknown(
        "a part of the model is cut off by stop_gradient",
        "korean_ridge",
        "y_hat = model(x_batch, training=True)",
        """
        y_hat = model.layers[-1](tf.stop_gradient(model.layers[0](x_batch)))
        """,
        "gradients",
        "forward",
        "loss",
        why="the model is not called as a whole, so that model.losses may be empty",
    ),
    # update ------------------------------------------------------------------------------------
    Mistake(
        "value_frozen_at_tracing",
        "sgd_by_hand",
        """
            self.lr = tf.Variable(lr, dtype=tf.float32)
            self.momentum = momentum
            self.velocity = [tf.Variable(tf.zeros_like(p)) for p in params]

        def step(self, grads):
            for p, v, g in zip(self.params, self.velocity, grads):
                v.assign(self.momentum * v - self.lr * g)
                p.assign_add(v)

        def halve(self):
            self.lr.assign(self.lr * 0.5)
        """,
        """
            self.lr = lr
            self.momentum = momentum
            self.velocity = [tf.Variable(tf.zeros_like(p)) for p in params]

        def step(self, grads):
            for p, v, g in zip(self.params, self.velocity, grads):
                v.assign(self.momentum * v - self.lr * g)
                p.assign_add(v)

        def halve(self):
            self.lr *= 0.5
        """,
        ("update",),
    ),
    Mistake(
        "optimizer_made_anew",
        "numpy_slices",
        "for ep in range(epochs):",
        """
        for ep in range(epochs):
            opt = keras.optimizers.Adam(0.05)
        """,
        ("update",),
    ),
    Mistake(
        "optimizer_made_anew",
        "averaged_weights",
        """
        loss, grads = loss_and_grads(x[part], y[part])
        """,
        """
        optimizer = make_optimizer()
        loss, grads = loss_and_grads(x[part], y[part])
        """,
        ("update",),
    ),
    Mistake(
        "schedule_by_epoch",
        "schedule_by_hand",
        "optimizer.learning_rate.assign(learning_rate(global_step))",
        "optimizer.learning_rate.assign(learning_rate(epoch))",
        ("update",),
    ),
    unknown(
        "another momentum",
        "sorted_rows",
        "optimizer = keras.optimizers.SGD(learning_rate=0.1, momentum=0.5)",
        "optimizer = keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)",
        "update",
    ),
    unknown(
        "another beta_1",
        "smooth_labels",
        "adam = keras.optimizers.Adam(learning_rate=0.004, beta_1=0.8)",
        "adam = keras.optimizers.Adam(learning_rate=0.004)",
        "update",
    ),
    unknown(
        "the learning rate of another optimizer",
        "dataset_given",
        "optimizer = keras.optimizers.Adam()",
        "optimizer = keras.optimizers.Adam(learning_rate=1e-4)",
        "update",
    ),
    unknown(
        "each update made twice",
        "three_functions",
        """
        update(grads)
        """,
        """
        update(grads)
        update(grads)
        """,
        "update",
        "epoch",
        why="two updates for one batch: also twice as many steps in an epoch",
    ),
    unknown(
        "no weight decay",
        "averaged_weights",
        """
        optimizer = make_optimizer()
        """,
        """
        optimizer = keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.8)
        """,
        "update",
    ),
    # metrics -----------------------------------------------------------------------------------
    Mistake(
        "mean_of_batches",
        "generator_batches",
        """
            loss_sum += loss.numpy() * len(target)
            correct += hits.numpy()
            seen += len(target)
        history["loss"].append(loss_sum / seen)
        """,
        """
            loss_sum += loss.numpy()
            correct += hits.numpy()
            seen += len(target)
        history["loss"].append(loss_sum / np.ceil(len(x) / batch_size))
        """,
        ("metrics",),
    ),
    Mistake(
        "mean_of_batches",
        "endless_iterator",
        "loss_metric.update_state(loss, sample_weight=tf.shape(inputs)[0])",
        "loss_metric.update_state(loss)",
        ("metrics",),
    ),
    Mistake(
        "metrics_not_reset",
        "digits_guide",
        """
        # Reset training metrics at the end of each epoch
        train_loss.reset_state()
        train_acc_metric.reset_state()
        """,
        "",
        ("metrics",),
    ),
    Mistake(
        "metrics_not_reset",
        "endless_iterator",
        """
        loss_metric.reset_state()
        accuracy_metric.reset_state()
        """,
        "",
        ("metrics",),
    ),
    Mistake(
        "metrics_after_update",
        "subclassed_eager",
        """
        epoch_loss.update_state(losses)
        """,
        """
        logits = model(xb, training=False)
        epoch_loss.update_state(losses)
        """,
        ("metrics",),
    ),
    unknown(
        "the last batch's loss in place of the mean",
        "digits_guide",
        """history["loss"].append(float(train_loss.result()))""",
        """history["loss"].append(float(loss_value))""",
        "metrics",
    ),
    unknown(
        "the loss shown lacks the regularizers",
        "regularised_autoencoder",
        "return loss",
        "return mse",
        "metrics",
    ),
    unknown(
        "another threshold in the accuracy",
        "smooth_labels",
        """
        metrics = [
            keras.metrics.BinaryAccuracy(threshold=0.0, name="acc"),
        """,
        """
        metrics = [
            keras.metrics.BinaryAccuracy(name="acc"),
        """,
        "metrics",
    ),
    # epoch -------------------------------------------------------------------------------------
    Mistake(
        "averages_not_written",
        "averaged_weights",
        """
        optimizer.finalize_variable_values(model.trainable_variables)
        """,
        "",
        ("epoch",),
    ),
    Mistake(
        "best_weights_not_restored",
        "early_stopping",
        """
        model.set_weights(best_weights)
        """,
        "",
        ("epoch",),
    ),
    unknown(
        "one epoch too few",
        "tiny_convnet",
        "for epoch in range(1, epochs + 1):",
        "for epoch in range(1, epochs):",
        "epoch",
    ),
    unknown(
        "stops an epoch too early",
        "early_stopping",
        "if waited >= patience:",
        "if waited >= patience - 1:",
        "epoch",
    ),
    # validation --------------------------------------------------------------------------------
    Mistake(
        "evaluating_in_training_mode",
        "digits_guide",
        "val_logits = model(x, training=False)",
        "val_logits = model(x, training=True)",
        ("validation",),
    ),
    Mistake(
        "evaluating_in_training_mode",
        "trainer_class",
        "loss, predictions = self.compute_loss(inputs, targets, training=False)",
        "loss, predictions = self.compute_loss(inputs, targets, training=True)",
        ("validation",),
    ),
    Mistake(
        "class_weight_in_validation",
        "rare_class",
        """
        y_pred = model(x, training=False)
        return scce(y, y_pred)
        """,
        """
        y_pred = model(x, training=False)
        return scce(y, y_pred, sample_weight=tf.gather(table, y))
        """,
        ("validation",),
    ),
    unknown(
        "validation on training rows",
        "two_inputs",
        "validation_set = tf.data.Dataset.from_tensor_slices(validation_data).batch(batch_size)",
        "validation_set = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).take(2)",
        "data",
        "validation",
        why=DATA_OR_VALIDATION,
    ),
    unknown(
        "validation before the training of the epoch",
        "korean_classifier",
        """
        loss, acc = self.one_pass(x[shuffled], y[shuffled], self.train_on_batch)
        val_loss, val_acc = self.one_pass(x_val, y_val, self.test_on_batch)
        """,
        """
        val_loss, val_acc = self.one_pass(x_val, y_val, self.test_on_batch)
        loss, acc = self.one_pass(x[shuffled], y[shuffled], self.train_on_batch)
        """,
        "validation",
    ),
    Mistake(
        "metrics_not_reset",
        "digits_guide",
        """
        val_loss.reset_state()
        val_acc_metric.reset_state()
        """,
        "",
        ("validation",),
    ),
    # costs: the numbers are those of fit -------------------------------------------------------
    Mistake(
        "no_graph",
        "two_heads",
        """
        @tf.function(reduce_retracing=True)
        def step(inputs, targets):
        """,
        "def step(inputs, targets):",
        (),
    ),
    Mistake(
        "retraced_for_shapes",
        "dataset_given",
        "@tf.function(reduce_retracing=True)",
        "@tf.function",
        (),
    ),
    Mistake(
        "retraced_for_numbers",
        "fast_dropout",
        "loss = step(tf.constant(first))",
        "loss = step(first)",
        (),
    ),
    Mistake(
        "loop_in_one_function",
        "epoch_in_graph",
        """
        losses = []
        for epoch in range(epochs):
            losses.append(float(run_epoch()))
        return {"loss": losses}
        """,
        """
        @tf.function
        def run():
            return [run_epoch() for epoch in range(epochs)]

        return {"loss": [float(loss) for loss in run()]}
        """,
        (),
    ),
    Mistake(
        "tape_around_optimizer",
        "korean_classifier",
        """
        with tf.GradientTape() as tape:
            losses, correct = self.forward(x, y, training=True)
            loss = tf.reduce_mean(losses)
        # 역전파
        grads = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.model.trainable_variables))
        """,
        """
        with tf.GradientTape(persistent=True) as tape:
            losses, correct = self.forward(x, y, training=True)
            loss = tf.reduce_mean(losses)
            # 역전파
            grads = tape.gradient(loss, self.model.trainable_variables)
            self.optimizer.apply_gradients(zip(grads, self.model.trainable_variables))
        """,
        (),
    ),
    # loops written after check was last changed ------------------------------------------------
    Mistake(
        "batchnorm_without_training",
        "fresh/own_sequence",
        "p = model(waves, training=True)",
        "p = model(waves)",
        ("forward",),
    ),
    Mistake(
        "x_shuffled_without_y",
        "fresh/own_sequence",
        "self.ids = np.random.permutation(len(self.waves))",
        """
        self.ids = np.arange(len(self.waves))
        self.waves = np.random.permutation(self.waves)
        """,
        ("data",),
    ),
    Mistake(
        "optimizer_made_anew",
        "fresh/train_state",
        """
        state = fresh_state(model, tx)
        """,
        """
        for variable in tx.variables:
            if variable is not tx.learning_rate:
                variable.assign(tf.zeros_like(variable))
        state = fresh_state(model, tx)
        """,
        ("update",),
    ),
    unknown(
        "the learning rate decays by itself",
        "fresh/train_state",
        "tx.apply(grads, model.trainable_variables)",
        """
        tx.apply(grads, model.trainable_variables)
        tx.learning_rate.assign(tx.learning_rate * 0.95)
        """,
        "update",
    ),
    Mistake(
        "metrics_not_reset",
        "fresh/steps_counted",
        "for m in (mean_loss, mse):",
        "for m in (mse,):",
        ("metrics",),
    ),
    unknown(
        "a batch is lost at the start of each epoch",
        "fresh/steps_counted",
        "for features, target in itertools.islice(stream, steps_per_epoch):",
        "for features, target in itertools.islice(stream, 1, steps_per_epoch + 1):",
        "data",
    ),
    Mistake(
        "mean_of_batches",
        "fresh/plateau",
        "return float(np.average(values, weights=[len(xc) for xc, _ in pieces]))",
        "return float(np.average(values))",
        ("metrics",),
    ),
    unknown(
        "the learning rate waits an epoch too long",
        "fresh/plateau",
        "if self.bad_epochs >= PATIENCE:",
        "if self.bad_epochs > PATIENCE:",
        "update",
    ),
    Mistake(
        "logits_as_probabilities",
        "fresh/many_labels",
        """
        elementwise = tf.nn.sigmoid_cross_entropy_with_logits(labels=true, logits=logits)
        return tf.reduce_mean(elementwise)
        """,
        "return tf.reduce_mean(keras.losses.binary_crossentropy(true, logits))",
        ("loss",),
    ),
    unknown(
        "sum over the labels in place of the mean",
        "fresh/many_labels",
        "return tf.reduce_mean(elementwise)",
        "return tf.reduce_mean(tf.reduce_sum(elementwise, axis=-1))",
        "loss",
    ),
    Mistake(
        "dropout_without_training",
        "fresh/tiny_transformer",
        "logits = model(tokens, training=True)",
        "logits = model(tokens)",
        ("forward",),
    ),
    Mistake(
        "schedule_by_epoch",
        "fresh/tiny_transformer",
        "adam.learning_rate.assign(rate(step))",
        "adam.learning_rate.assign(rate(epoch))",
        ("update",),
    ),
    Mistake(
        "regularizers_left_out",
        "fresh/variational",
        "loss = reconstruction + divergence",
        "loss = reconstruction",
        ("loss",),
    ),
    unknown(
        "the added loss counts half",
        "fresh/variational",
        "loss = reconstruction + divergence",
        "loss = reconstruction + 0.5 * divergence",
        "loss",
    ),
    Mistake(
        "evaluating_in_training_mode",
        "fresh/every_second_epoch",
        "p = model(x, training=False)",
        "p = model(x, training=True)",
        ("validation",),
    ),
    unknown(
        "validation after the other epochs",
        "fresh/every_second_epoch",
        "if epoch % validation_freq == 0:",
        "if epoch % validation_freq == 1:",
        "validation",
    ),
    Mistake(
        "mean_over_weights",
        "fresh/zaehldaten",
        """return poisson(teil["anzahl"], vorhersage, sample_weight=teil["dauer"])""",
        """
        anteil = teil["dauer"] / tf.reduce_mean(teil["dauer"])
        return poisson(teil["anzahl"], vorhersage, sample_weight=anteil)
        """,
        ("loss",),
    ),
    unknown(
        "the loss shown counts weights in place of rows",
        "fresh/zaehldaten",
        """mittel.update_state(fehler, sample_weight=tf.shape(teil["x"])[0])""",
        """mittel.update_state(fehler, sample_weight=tf.reduce_sum(teil["dauer"]))""",
        "metrics",
    ),
    Mistake(
        "clipped_per_variable",
        "fresh/summed_loss",
        "grads, _ = tf.clip_by_global_norm(grads, MAX_NORM)",
        "grads = [tf.clip_by_norm(grad, MAX_NORM) for grad in grads]",
        ("gradients",),
    ),
    unknown(
        "mean in place of sum",
        "fresh/summed_loss",
        "loss = tf.reduce_sum(tf.reduce_mean((yb - pred) ** 2, axis=-1))",
        "loss = tf.reduce_mean((yb - pred) ** 2)",
        "loss",
    ),
    Mistake(
        "class_weight_twice",
        "fresh/epochs_yielded",
        "loss = scce(labels, probs, weights)",
        "loss = scce(labels, probs, weights * weights)",
        ("loss",),
    ),
    Mistake(
        "small_shuffle_buffer",
        "fresh/epochs_yielded",
        "dataset = dataset.shuffle(len(x)).batch(batch_size)",
        "dataset = dataset.shuffle(10).batch(batch_size)",
        ("data",),
    ),
    Mistake(
        "shuffled_split",
        "fresh/padded_reviews",
        "cut = int(len(x) * (1 - validation_split))",
        """
        cut = int(len(x) * (1 - validation_split))
        mixed = random.sample(range(len(x)), len(x))
        x, y = x[mixed], y[mixed]
        """,
        ("data",),
    ),
    Mistake(
        "one_permutation",
        "fresh/padded_reviews",
        """
        for epoch in range(epochs):
            random.shuffle(order)
        """,
        """
        random.shuffle(order)
        for epoch in range(epochs):
        """,
        ("data",),
    ),
    Mistake(
        "predict_in_a_loop",
        "fresh/many_labels",
        """
        return total / rows, float(precision.result())
        """,
        """
        for words, _ in dataset.batch(batch_size):
            print((model.predict(words, verbose=0) > 0).sum(), "labels")
        return total / rows, float(precision.result())
        """,
        (),
    ),
    Mistake(
        "tensors_kept",
        "fresh/train_state",
        """
        total, hits, n = compute(tf.constant(xb), tf.constant(yb))
        """,
        """
        total, hits, n = compute(tf.constant(xb), tf.constant(yb))
        vars(model).setdefault("seen", []).append((tf.constant(xb), total))
        """,
        (),
    ),
]


def loops():
    """All loops: dict of name -> `Mistake`, or None for a right one.

    A wrong loop is named `TWIN.MISTAKE`, with a number where a file has two of the same name.
    """
    found = dict.fromkeys(RIGHT)
    for mistake in MISTAKES:
        name = first = f"{mistake.twin}.{mistake.name.replace(' ', '_')}"
        number = 1
        while name in found:
            number += 1
            name = f"{first}_{number}"
        found[name] = mistake
    return found


def sets():
    """The loops by set: those that `check` was mended with, and the fresh ones."""
    found = {"corpus": {}, "fresh": {}}
    for name, mistake in loops().items():
        found["fresh" if name.startswith(FRESH) else "corpus"][name] = mistake
    return found


def source(name, mistake):
    """The text of a loop's file.

    Raises:
        LookupError: the text that is to be replaced does not stand in the file exactly once.
    """
    if mistake is None:
        return (FOLDER / f"{name}.py").read_text()
    lines = (FOLDER / f"{mistake.twin}.py").read_text().splitlines()
    right = textwrap.dedent(mistake.right).strip("\n").splitlines()
    places = []
    for i in range(len(lines) - len(right) + 1):
        window = "\n".join(lines[i : i + len(right)])
        if textwrap.dedent(window).splitlines() == right:
            places.append(i)
    if len(places) != 1:
        raise LookupError(f"{name}: the right text stands {len(places)} times in its file")
    here = slice(places[0], places[0] + len(right))
    margin = min(len(line) - len(line.lstrip()) for line in lines[here] if line)
    wrong = textwrap.indent(textwrap.dedent(mistake.wrong).strip("\n"), " " * margin)
    lines[here] = wrong.splitlines()
    return "\n".join(lines) + "\n"
