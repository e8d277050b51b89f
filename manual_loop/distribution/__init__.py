"""Where a training runs: on one device, on several replicas, or in several worker processes."""

from manual_loop.distribution.single_device import SingleDevice


def distribution_of(model):
    """How a model is trained: the strategy in whose scope it was built decides.

    Returns:
        `SingleDevice`, `replicas.Replicas` or `multi_worker.Workers`.
    """
    from manual_loop.distribution import multi_worker, replicas  # only where they are needed

    strategy = replicas.strategy_of(model)
    if strategy is None:
        return SingleDevice()
    if multi_worker.cluster_of(strategy) is None:
        return replicas.Replicas(strategy)
    return multi_worker.Workers(strategy)
