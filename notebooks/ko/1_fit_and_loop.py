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
# # 한 페이지로 적은 `fit`과 루프
#
# 같은 Keras 모델을 두 번 훈련합니다. 한 번은 `compile`과 `fit`으로, 또 한 번은 이 둘이 하는 일을
# 하나하나 적은 `tf.GradientTape` 루프로 훈련합니다. 마지막에는 두 히스토리의 모든 수와 모든
# 가중치가 같습니다.
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
# ## 데이터 불러오기
#
# 특성이 128개인 샘플 100개이며, 레이블은 클래스 번호입니다.

# %%
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

# %% tags=["keras_fit"]
keras.utils.set_random_seed(0)

# 데이터: 특성이 128개인 샘플 100개. 레이블은 클래스 번호입니다.
x = np.ones([100, 128], "float32")
y = np.ones([100, 1], "float32")

# %% [markdown]
# ## 모델 불러오기

# %% tags=["keras_fit"]
# 모델: 입력 128개, 클래스 3개.
model = keras.Sequential(
    [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

# %% [markdown]
# ## 컴파일과 훈련

# %% tags=["keras_fit"]
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["acc"])
history = model.fit(x, y, epochs=100, validation_split=0.3, batch_size=16, verbose=0).history

# %% [markdown]
# 이 노트북의 나머지는 이 두 호출 없이 같은 일을 합니다. `fit`의 결과는 나중에 비교하려고
# 보관합니다.

# %%
fit_history, fit_weights = history, model.get_weights()

# %% [markdown]
# ## 같은 훈련을 풀어서 적기
#
# ### 검증 데이터 분할
#
# 시드를 다시 설정하고, 마지막 30 %의 행을 떼어 놓고, 초기 가중치가 같은 새 모델을 만듭니다.

# %% tags=["manual_loop"]
EPOCHS, BATCH_SIZE, VALIDATION_SPLIT = 100, 16, 0.3
keras.utils.set_random_seed(0)

# %% tags=["manual_loop"]
# validation_split: 셔플하기 전에 마지막 행들을 떼어 놓습니다.
split = int(len(x) * (1 - VALIDATION_SPLIT))
x_train, y_train, x_val, y_val = x[:split], y[:split], x[split:], y[split:]

# 모델: 입력 128개, 클래스 3개.
model = keras.Sequential(
    [
        keras.Input([128]),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(3, activation="softmax"),
    ]
)

# %% [markdown]
# ### `compile`이 인수로 만드는 것

# %% tags=["manual_loop"]
# compile: 이름이 객체가 됩니다. 레이블이 클래스 번호이므로 "acc"는 이 클래스입니다.
optimizer = keras.optimizers.Adam()
loss_fn = keras.losses.SparseCategoricalCrossentropy()
mean_loss = keras.metrics.Mean()
accuracy = keras.metrics.SparseCategoricalAccuracy()

# %% [markdown]
# ### 스텝
#
# `train_step`은 가중치를 한 번 업데이트하고, `test_step`은 측정만 합니다.

# %% tags=["manual_loop"]
# 다른 배치보다 작은 배치가 있을 수 있으므로 크기를 열어 둡니다. 그래프 하나로 모두 처리합니다.
BATCH = [tf.TensorSpec([None, 128], tf.float32), tf.TensorSpec([None, 1], tf.float32)]


@tf.function(input_signature=BATCH)
def train_step(x, y):
    """순방향 전달, 손실, 역방향 전달, 업데이트, 메트릭."""
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = loss_fn(y, y_pred)
    gradients = tape.gradient(loss, model.trainable_weights)
    optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
    mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])  # 샘플에 대한 평균
    accuracy.update_state(y, y_pred)


@tf.function(input_signature=BATCH)
def test_step(x, y):
    """순방향 전달, 손실, 메트릭."""
    y_pred = model(x, training=False)
    mean_loss.update_state(loss_fn(y, y_pred), sample_weight=tf.shape(x)[0])
    accuracy.update_state(y, y_pred)


# %% [markdown]
# ### 에포크
#
# `fit`은 에포크를 시작할 때마다 행을 셔플합니다. 마지막 배치에는 남은 행이 들어갑니다.

# %%
tf.get_logger().setLevel("ERROR")  # 에포크마다 `shuffled`를 추적하지 말라는 권고를 끕니다


# %% tags=["manual_loop"]
def shuffled(n):
    """n행의 순열. 시드를 설정했으므로 fit이 에포크마다 뽑는 순열과 같습니다."""
    return tf.function(tf.random.shuffle)(tf.range(n, dtype=tf.int64))


def run(step, x, y, order):
    """데이터를 한 번 반복하여 평균 손실과 정확도를 구합니다."""
    mean_loss.reset_state()
    accuracy.reset_state()
    for start in range(0, len(x), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        step(tf.gather(x, rows), tf.gather(y, rows))
    return float(mean_loss.result()), float(accuracy.result())


# %% [markdown]
# ### 모든 에포크

# %% tags=["manual_loop"]
history: dict[str, list[float]] = {"loss": [], "acc": [], "val_loss": [], "val_acc": []}
for epoch in range(EPOCHS):
    train_loss, train_acc = run(train_step, x_train, y_train, shuffled(len(x_train)))
    val_loss, val_acc = run(test_step, x_val, y_val, tf.range(len(x_val)))
    values = train_loss, train_acc, val_loss, val_acc
    for name, value in zip(history, values, strict=True):
        history[name].append(value)

# %% [markdown]
# ## 같은 결과
#
# 허용 오차 없이 수를 그대로 비교합니다.

# %%
print("히스토리가 같음:", history == fit_history)
pairs = zip(model.get_weights(), fit_weights, strict=True)
print("가중치가 같음:", all(np.array_equal(ours, fits) for ours, fits in pairs))

# %% [markdown]
# ## 출력하는 줄
#
# 두 프로그램은 프로젝트에 한 페이지씩 들어 있으며, 에포크마다 한 줄을 출력합니다.

# %%
lines = {
    page: subprocess.run(
        [sys.executable, "-m", page], capture_output=True, text=True, check=True
    ).stdout
    for page in ("keras_fit.one_page", "manual_loop.one_page")
}
fit_lines, loop_lines = lines.values()
print("출력한 줄이 같음:", fit_lines == loop_lines)
print(*fit_lines.splitlines()[::33], sep="\n")
