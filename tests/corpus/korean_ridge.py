"""L2 규제가 있는 회귀 모델을 직접 만든 학습 루프로 학습합니다."""

import keras
import tensorflow as tf
from sklearn.datasets import load_diabetes

COMPILE = {"optimizer": "rmsprop", "loss": "mean_squared_error", "metrics": ["mae"]}
FIT = {"epochs": 3, "batch_size": 20, "shuffle": False}


def data():
    # 당뇨병 데이터: 특성 10개, 목표값은 100으로 나누어 사용
    bunch = load_diabetes()
    x = bunch.data.astype("float32") * 10
    y = (bunch.target / 100).astype("float32").reshape(-1, 1)
    return {"x": x[:110], "y": y[:110]}


def build():
    regularizer = keras.regularizers.L2(0.02)
    return keras.Sequential(
        [
            keras.Input([10]),
            keras.layers.Dense(12, activation="relu", kernel_regularizer=regularizer),
            keras.layers.Dense(1, kernel_regularizer=regularizer),
        ]
    )


def train(model, x, y, epochs, batch_size):
    # 최적화 알고리즘과 손실 함수
    optimizer = keras.optimizers.RMSprop()
    mse = keras.losses.MeanSquaredError()

    # 에포크마다 평균을 내기 위한 지표
    loss_metric = keras.metrics.Mean()
    mae_metric = keras.metrics.MeanAbsoluteError()

    @tf.function
    def step(x_batch, y_batch):
        with tf.GradientTape() as tape:
            y_hat = model(x_batch, training=True)
            loss = mse(y_batch, y_hat)
            # 규제 항을 손실에 더한다
            loss += tf.add_n(model.losses)
        # 기울기를 계산하고 가중치를 갱신한다
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        loss_metric.update_state(loss, sample_weight=tf.shape(x_batch)[0])
        mae_metric.update_state(y_batch, y_hat)

    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)
    result = {"loss": [], "mae": []}
    for epoch in range(epochs):
        # 에포크를 시작할 때 지표를 초기화한다
        loss_metric.reset_state()
        mae_metric.reset_state()
        for x_batch, y_batch in dataset:
            step(x_batch, y_batch)
        result["loss"].append(float(loss_metric.result()))
        result["mae"].append(float(mae_metric.result()))
    return result
