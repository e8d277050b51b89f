"""붓꽃 분류: 클래스로 감싼 학습 루프."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris

학습률 = 0.05


def compile():
    return {
        "optimizer": keras.optimizers.SGD(학습률),
        "loss": keras.losses.SparseCategoricalCrossentropy(),
        "metrics": ["accuracy"],
    }


FIT = {"epochs": 3, "batch_size": 32}


def data():
    iris = load_iris()
    # 항상 같은 순서로 섞는다
    순서 = np.random.default_rng(7).permutation(150)
    x, y = iris.data[순서].astype("float32"), iris.target[순서]
    return {"x": x[:120], "y": y[:120], "validation_data": (x[120:], y[120:])}


def build():
    model = keras.Sequential()
    model.add(keras.Input(shape=(4,)))
    model.add(keras.layers.Dense(8, activation="relu"))
    model.add(keras.layers.Dense(3, activation="softmax"))
    return model


class 학습기:
    def __init__(self, model, batch_size):
        self.model = model
        self.batch_size = batch_size
        self.optimizer = keras.optimizers.SGD(학습률)
        self.loss_fn = keras.losses.SparseCategoricalCrossentropy(reduction=None)

    def forward(self, x, y, training):
        prob = self.model(x, training=training)
        losses = self.loss_fn(y, prob)  # 샘플마다의 손실
        correct = tf.equal(tf.argmax(prob, axis=1), y)
        return losses, tf.reduce_sum(tf.cast(correct, tf.int32))

    def train_on_batch(self, x, y):
        with tf.GradientTape() as tape:
            losses, correct = self.forward(x, y, training=True)
            loss = tf.reduce_mean(losses)
        # 역전파
        grads = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.model.trainable_variables))
        return tf.reduce_sum(losses), correct

    def test_on_batch(self, x, y):
        losses, correct = self.forward(x, y, training=False)
        return tf.reduce_sum(losses), correct

    def one_pass(self, x, y, function):
        loss_sum, correct_sum = 0.0, 0
        for i in range(0, len(x), self.batch_size):
            loss, correct = function(x[i : i + self.batch_size], y[i : i + self.batch_size])
            loss_sum += float(loss)
            correct_sum += int(correct)
        return loss_sum / len(x), correct_sum / len(x)

    def fit(self, x, y, x_val, y_val, epochs):
        history = {"loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}
        for epoch in range(epochs):
            # 에포크마다 새로 섞기
            shuffled = np.random.permutation(len(x))
            loss, acc = self.one_pass(x[shuffled], y[shuffled], self.train_on_batch)
            val_loss, val_acc = self.one_pass(x_val, y_val, self.test_on_batch)
            for key, value in zip(history, [loss, acc, val_loss, val_acc]):
                history[key].append(value)
            print(f"{epoch + 1}번째 에포크: 손실 {loss:.3f}, 검증 손실 {val_loss:.3f}")
        return history


def train(model, x, y, validation_data, epochs, batch_size):
    return 학습기(model, batch_size).fit(x, y, *validation_data, epochs)
