"""`predict` on arrays: its function is traced with the batch size, as fit's is."""

from cases import SEQUENCES, X, compile_with, plain, rnn
from parity import assert_parity, covers


def sizes_in_turn(Trainer, build, x):
    """What `predict` returns for batches of several sizes, some with a shorter one at the end."""
    trainer = Trainer(build())
    trainer.compile(**compile_with()())
    outputs = [trainer.predict(x, batch_size=size, verbose=0) for size in (8, 5)]
    outputs += [trainer.predict_on_batch(x[:3]), trainer.predict(x, batch_size=11, verbose=0)]
    return {"outputs": [*outputs, trainer.predict(x, batch_size=8, verbose=0)]}


@covers("predict: batch_size")
def test_the_graph_is_that_of_the_batch_sizes_so_far():
    assert_parity(plain, X, script=sizes_in_turn)
    assert_parity(rnn, SEQUENCES, script=sizes_in_turn)  # TensorFlow optimizes it by the size
