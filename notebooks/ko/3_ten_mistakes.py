# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 훈련 루프의 실수 열 가지
#
# 실수가 있는 훈련 루프도 훈련은 됩니다. 오류는 나지 않고 손실도 감소하지만, `fit`과 똑같이
# 감소하지는 않습니다. 이 노트북에는 `fit`처럼 훈련하는 작은 루프와 연습 문제 열 개가 있습니다.
# 문제마다 루프의 함수 하나에 실수가 있습니다. 먼저 읽고 추측하세요. 그다음 셀을 실행하고, 함수를
# 고친 뒤 다시 실행하세요. 판정은 `check`가 합니다. 여러분의 루프의 모든 단계를 `fit`의 단계와
# 비교하여, 처음으로 달라지는 단계와 그 줄을 알려 줍니다.
#
# 아래 셀은 Colab처럼 프로젝트가 설치되어 있지 않은 곳에 프로젝트를 설치합니다.

# %% tags=["setup"]
import importlib.util
import shutil
import socket
from urllib.parse import urlsplit

from IPython import get_ipython

REPOSITORY = ""


def why_nothing_is_installed():
    """설치를 건너뛰는 이유. 없으면 ""."""
    if importlib.util.find_spec("fit_unfolded"):
        return "fit-unfolded가 이미 있습니다"
    if not REPOSITORY:
        return "이 노트북에는 저장소의 주소가 없습니다"
    try:
        socket.create_connection((urlsplit(REPOSITORY).hostname, 443), timeout=5).close()
    except OSError:
        return "네트워크에 연결되어 있지 않습니다"
    return ""


if reason := why_nothing_is_installed():
    print(f"설치하지 않습니다: {reason}.")
else:
    extra = "[gpu]" if shutil.which("nvidia-smi") else ""
    package = f'"fit-unfolded{extra} @ git+{REPOSITORY}"'
    get_ipython().run_line_magic("pip", f"install --quiet {package}")

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()  # TensorFlow의 로그 없이

# %% [markdown]
# ## 모델과 데이터
#
# 데이터는 점의 무리 세 개입니다. 이 훈련에는 루프가 가장 자주 틀리는 것이 모두 있습니다. Dropout,
# 규제, 그리고 다른 배치보다 작은 마지막 배치입니다. `COMPILE`과 `FIT`에는 `compile`과 `fit`의
# 인수가 들어 있으며, 어떤 훈련을 하려는지 나타냅니다.

# %%
import inspect
import itertools
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from fit_unfolded.check import check

COMPILE = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["acc"]}
FIT = {"epochs": 2, "batch_size": 16}


def data():
    """훈련에 쓸 40행(배치 크기 16, 16, 8)과 검증에 쓸 24행."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=64)
    x = (rng.normal(size=[3, 8])[y] + rng.normal(size=[64, 8])).astype("float32")
    return {"x": x[:40], "y": y[:40], "validation_data": (x[40:], y[40:])}


def build():
    """입력 여덟 개, Dropout이 절반을 남기는 은닉층, 클래스 세 개."""
    return keras.Sequential(
        [
            keras.Input([8]),
            keras.layers.Dense(16, activation="relu", kernel_regularizer="l2"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


# %% [markdown]
# ## 루프
#
# `compile`과 `fit`이 이 모델로 하는 일을 함수 여섯 개로 적었습니다. 문제마다 그중 하나를 바꿉니다.


# %%
def compiled(model):
    """`compile`이 인수로 만드는 것."""
    return SimpleNamespace(
        model=model,
        optimizer=keras.optimizers.Adam(),
        loss_fn=keras.losses.SparseCategoricalCrossentropy(),
        mean_loss=keras.metrics.Mean(),
        accuracy=keras.metrics.SparseCategoricalAccuracy(),
    )


def train_step(loop, x, y):
    """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


def test_step(loop, x, y):
    """순방향 전달, 손실, 메트릭."""
    y_pred = loop.model(x, training=False)
    loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


# %%
def batches(x, y, batch_size, shuffle=False):
    """한 에포크의 행을 배치로 나눈 데이터세트."""
    order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
    return tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(batch_size)


def run_epoch(loop, step, dataset):
    """데이터를 한 번 반복하여 평균 손실과 정확도를 구합니다."""
    loop.mean_loss.reset_state()
    loop.accuracy.reset_state()
    for x, y in dataset:
        step(x, y)
    return float(loop.mean_loss.result()), float(loop.accuracy.result())


def train(model, x, y, validation_data, epochs, batch_size):
    """`fit`이 하는 일: 훈련하고 검증하고 히스토리를 남깁니다."""
    loop = compiled(model)
    train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
    test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
        values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
        for name, value in zip(history, values, strict=True):
            history[name].append(value)
    return history


# %% [markdown]
# ## 판정
#
# `check`는 파일을 받습니다. `check_loop`는 위의 함수 대신 전달받은 함수를 넣어 파일을 만들고,
# `check`가 찾은 것을 반환합니다. 인수 없이 호출하면 루프를 있는 그대로 판정합니다. 이 루프는
# `fit`처럼 훈련해야 합니다.

# %%
LOOP = (data, build, compiled, train_step, test_step, batches, run_epoch, train)
HEADER = f"""import keras
import numpy as np
import tensorflow as tf
from functools import partial
from types import SimpleNamespace

COMPILE = {COMPILE}
FIT = {FIT}
"""
folder = Path(tempfile.mkdtemp())
numbers = itertools.count()


def check_loop(*changed):
    """이 함수들을 넣은 루프에서 `check`가 찾은 것."""
    functions = {function.__name__: function for function in (*LOOP, *changed)}
    file = folder / f"loop_{next(numbers)}.py"
    sources = [inspect.getsource(function) for function in functions.values()]
    file.write_text("\n\n".join([HEADER, *sources]), encoding="utf-8")
    return check(file)


check_loop()

# %% [markdown]
# 표에는 단계마다 한 줄이 있으며, 스텝에서 일어나는 순서대로 나옵니다. 그 아래에는 스텝을 하나씩
# 따라가며 여러분의 소스를 Keras의 소스와 나란히 보여 주는 화면이 접혀 있습니다.
#
# ## 1. 모델이 지나치게 잘 맞습니다
#
# 훈련 손실이 `fit`보다 빠르게 감소합니다. 새로운 데이터에서는 모델이 더 나쁩니다.


# %%
def train_step(loop, x, y):
    """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>dropout-without-training</code></summary>
#
# `training` 없이 호출한 모델은 추론 모드로 실행됩니다. Dropout은 모든 유닛을 켜 두고,
# BatchNormalization은 이동 평균을 사용합니다. `fit`은 `training=True`를 전달합니다.
#
# ```python
# def train_step(loop, x, y):
#     """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 2. 첫 배치부터 손실이 너무 낮습니다
#
# 또한 첫 레이어의 가중치가 `fit`에서보다 커집니다.


# %%
def train_step(loop, x, y):
    """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>regularizers-left-out</code></summary>
#
# 규제 항은 `model.losses`에 텐서 하나씩 들어 있습니다. `fit`은 스텝마다 규제 항을 손실에 더하며,
# 루프는 이것을 직접 해야 합니다. `test_step`에 있는 같은 줄은 이미 맞습니다.
#
# ```python
# def train_step(loop, x, y):
#     """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 3. 정확도가 손실보다 앞서갑니다
#
# 손실은 맞습니다. 정확도는 다른 시점의 값입니다.


# %%
def train_step(loop, x, y):
    """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, loop.model(x))


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>metrics-after-update</code></summary>
#
# `fit`은 손실을 계산한 바로 그 예측으로 메트릭을 업데이트합니다. 두 번째 순방향 전달에는 시간이
# 들고, Dropout이 꺼진 채 업데이트한 뒤의 가중치를 봅니다.
#
# ```python
# def train_step(loop, x, y):
#     """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 4. 첫 에포크는 맞고 두 번째 에포크는 틀립니다
#
# 두 번째 에포크부터 스텝이 너무 큽니다.


# %%
def train(model, x, y, validation_data, epochs, batch_size):
    """`fit`이 하는 일: 훈련하고 검증하고 히스토리를 남깁니다."""
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        loop = compiled(model)
        train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
        test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
        values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
        values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
        for name, value in zip(history, values, strict=True):
            history[name].append(value)
    return history


check_loop(train)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>optimizer-made-anew</code></summary>
#
# Adam은 가중치마다 모멘트 두 개와 스텝 수를 유지합니다. 새 옵티마이저에는 둘 다 없습니다.
# 옵티마이저는 에포크를 시작하기 전에 한 번만 만드세요. 함수도 새로 만들 때마다 다시 추적되므로 한
# 번만 만드세요.
#
# ```python
# def train(model, x, y, validation_data, epochs, batch_size):
#     """`fit`이 하는 일: 훈련하고 검증하고 히스토리를 남깁니다."""
#     loop = compiled(model)
#     train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
#     test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
#     history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
#     for _ in range(epochs):
#         values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
#         values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
#         for name, value in zip(history, values, strict=True):
#             history[name].append(value)
#     return history
# ```
#
# </details>
#
# ## 5. 정확도가 무작위 추측 수준에 머뭅니다
#
# 학습률이 얼마이든 모델은 아무것도 학습하지 못합니다.


# %%
def batches(x, y, batch_size, shuffle=False):
    """한 에포크의 행을 배치로 나눈 데이터세트."""
    if shuffle:
        x = np.random.permutation(x)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


check_loop(batches)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>x-shuffled-without-y</code></summary>
#
# `x`와 `y`에는 같은 순열이 필요합니다. 그러지 않으면 레이블이 다른 행에 붙습니다.
#
# ```python
# def batches(x, y, batch_size, shuffle=False):
#     """한 에포크의 행을 배치로 나눈 데이터세트."""
#     order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
#     return tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(batch_size)
# ```
#
# </details>
#
# ## 6. 모델이 보지 못하는 행이 있습니다
#
# 에포크마다 모델이 받는 행은 실제로 있는 행보다 적습니다.


# %%
def batches(x, y, batch_size, shuffle=False):
    """한 에포크의 행을 배치로 나눈 데이터세트."""
    order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
    dataset = tf.data.Dataset.from_tensor_slices((x[order], y[order]))
    return dataset.batch(batch_size, drop_remainder=True)


check_loop(batches)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>partial-batch-dropped</code></summary>
#
# 40행은 크기가 16인 배치 두 개와 8인 배치 하나가 됩니다. `fit`은 마지막 배치로도 훈련합니다.
#
# ```python
# def batches(x, y, batch_size, shuffle=False):
#     """한 에포크의 행을 배치로 나눈 데이터세트."""
#     order = np.random.permutation(len(x)) if shuffle else np.arange(len(x))
#     dataset = tf.data.Dataset.from_tensor_slices((x[order], y[order]))
#     return dataset.batch(batch_size)
# ```
#
# </details>
#
# ## 7. 표시되는 손실이 실제 손실보다 느리게 감소합니다
#
# 가중치는 맞습니다. 히스토리는 두 번째 에포크부터 틀립니다.


# %%
def run_epoch(loop, step, dataset):
    """데이터를 한 번 반복하여 평균 손실과 정확도를 구합니다."""
    for x, y in dataset:
        step(x, y)
    return float(loop.mean_loss.result()), float(loop.accuracy.result())


check_loop(run_epoch)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>metrics-not-reset</code></summary>
#
# 메트릭은 누적 평균입니다. `reset_state`가 없으면 모든 에포크는 물론 검증까지 이어서 누적됩니다.
# `fit`은 에포크를 시작할 때마다, 그리고 검증을 시작할 때마다 모든 메트릭을 재설정합니다.
#
# ```python
# def run_epoch(loop, step, dataset):
#     """데이터를 한 번 반복하여 평균 손실과 정확도를 구합니다."""
#     loop.mean_loss.reset_state()
#     loop.accuracy.reset_state()
#     for x, y in dataset:
#         step(x, y)
#     return float(loop.mean_loss.result()), float(loop.accuracy.result())
# ```
#
# </details>
#
# ## 8. 에포크의 손실이 조금 어긋납니다
#
# 40행을 크기가 16인 배치로 나누면 다르지만, 20인 배치로 나누면 다르지 않을 것입니다.


# %%
def train_step(loop, x, y):
    """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
    with tf.GradientTape() as tape:
        y_pred = loop.model(x, training=True)
        loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    weights = loop.model.trainable_weights
    gradients = tape.gradient(loss, weights)
    loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    loop.mean_loss.update_state(loss)
    loop.accuracy.update_state(y, y_pred)


check_loop(train_step)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>mean-of-batches</code></summary>
#
# 배치의 손실은 그 배치의 행에 대한 평균입니다. 에포크의 평균을 구할 때는 각 배치를 행의 수만큼
# 반영해야 합니다. 그러지 않으면 크기가 8인 마지막 배치가 16인 배치와 똑같이 반영됩니다.
#
# ```python
# def train_step(loop, x, y):
#     """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
#     with tf.GradientTape() as tape:
#         y_pred = loop.model(x, training=True)
#         loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     weights = loop.model.trainable_weights
#     gradients = tape.gradient(loss, weights)
#     loop.optimizer.apply_gradients(zip(gradients, weights, strict=True))
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 9. 검증 손실이 너무 높고 불규칙하게 흔들립니다
#
# 같은 모델을 연달아 두 번 검증하면 두 값이 서로 다릅니다.


# %%
def test_step(loop, x, y):
    """순방향 전달, 손실, 메트릭."""
    y_pred = loop.model(x, training=True)
    loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
    loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
    loop.accuracy.update_state(y, y_pred)


check_loop(test_step)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>evaluating-in-training-mode</code></summary>
#
# 검증에서 Dropout이 동작합니다. `fit`은 `training=False`로 검증합니다.
#
# ```python
# def test_step(loop, x, y):
#     """순방향 전달, 손실, 메트릭."""
#     y_pred = loop.model(x, training=False)
#     loss = loop.loss_fn(y, y_pred) + tf.add_n(loop.model.losses)
#     loop.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
#     loop.accuracy.update_state(y, y_pred)
# ```
#
# </details>
#
# ## 10. 수는 맞는데 루프가 느립니다
#
# `check`는 이 루프가 `fit`과 같다고 판정합니다. 표 아래를 보세요.


# %%
def train(model, x, y, validation_data, epochs, batch_size):
    """`fit`이 하는 일: 훈련하고 검증하고 히스토리를 남깁니다."""
    loop = compiled(model)
    train_batch = partial(train_step, loop)
    test_batch = partial(test_step, loop)
    history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
    for _ in range(epochs):
        values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
        values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
        for name, value in zip(history, values, strict=True):
            history[name].append(value)
    return history


check_loop(train)

# %% [markdown]
# <details markdown="1"><summary>풀이: <code>no-graph</code></summary>
#
# `tf.function`이 없으면 Python이 모든 스텝의 모든 연산을 호출합니다. `fit`은 스텝을 한 번 추적한
# 다음 그래프를 실행합니다.
#
# ```python
# def train(model, x, y, validation_data, epochs, batch_size):
#     """`fit`이 하는 일: 훈련하고 검증하고 히스토리를 남깁니다."""
#     loop = compiled(model)
#     train_batch = tf.function(partial(train_step, loop), reduce_retracing=True)
#     test_batch = tf.function(partial(test_step, loop), reduce_retracing=True)
#     history = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
#     for _ in range(epochs):
#         values = run_epoch(loop, train_batch, batches(x, y, batch_size, shuffle=True))
#         values += run_epoch(loop, test_batch, batches(*validation_data, batch_size))
#         for name, value in zip(history, values, strict=True):
#             history[name].append(value)
#     return history
# ```
#
# </details>
#
# ## 그 밖의 함정
#
# 함정은 더 있습니다. 아래 셀은 먼저 눈에 띄는 증상에 따라 함정을 나열합니다. 명령줄에서 실행하는
# `fit-unfolded pitfalls NAME`은 함정 하나를 자세히 보여 주며, 수나 시간이나 메모리에 미치는 영향도
# 보여 줍니다.

# %%
from fit_unfolded import pitfalls

found = [pitfalls.get(name) for name in pitfalls.names()]
for symptom in pitfalls.SYMPTOMS:
    print(symptom)
    for pitfall in found:
        if pitfall.symptom == symptom:
            print(f"    {pitfall.name}: {pitfall.title}")
