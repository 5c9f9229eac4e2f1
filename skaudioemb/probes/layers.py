"""A probe that learns how much each layer of an upstream model counts."""

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skaudioemb.probes.mlp import MLPProbe
from skaudioemb.probes.network import LayerWeightedNetwork


class LayerWeightedProbe(MLPProbe):
    """A multilayer perceptron on a weighted sum of layers; the weights are learned.

    X holds every layer of an embedder with ``layers="all"``. A softmax of one logit a
    layer gives the weights, which are trained along with the perceptron of
    :class:`MLPProbe` [1]_. They start equal, so that training begins with the mean of
    the layers. Compared with a search over ``layers``, one fit weighs all of them.

    Parameters
    ----------
    n_layers : int
        Number of layers in X, the embedding output included: 13 for a base model of
        12 blocks, 25 for a large one of 24. There is no default.
    segments : int or None, default=None
        The ``segments`` of the embedder; the weights are the same in each. None is 1.
    layer_norm : bool, default=False
        Give each layer of each row zero mean and unit variance before the sum, so
        that layers of large values do not outweigh the others.
    layer_lr : float or None, default=None
        Learning rate of the logits; None is ``lr``, as in SUPERB. Adam moves a logit
        by about this much per step: fits of a few hundred steps need 0.01 or more to
        leave the mean.
    hidden_layers : int, default=1
        Number of hidden blocks; 0 is a logistic regression on the weighted sum.
    hidden_units : int, default=1024
        Width of each hidden block.
    dropout : float, default=0.1
        Probability in [0, 1) that a hidden value is set to zero in training.
    lr : float, default=1e-3
        Learning rate of Adam.
    init : {"xavier_uniform", "xavier_normal"}, default="xavier_uniform"
        Distribution of the first weights; see :class:`MLPProbe`.
    batch_size : int, default=1024
        Rows per optimizer step, at least 2.
    max_epochs : int, default=500
        Passes over the training rows at most.
    check_every : int, default=3
        Epochs from one validation to the next.
    patience : int, default=20
        Checks without strict improvement after which training stops.
    validation : float, tuple (X, y) or None, default=0.1
        Rows to validate on, or the part of the training rows to hold out; see
        :class:`MLPProbe`.
    shuffle : bool, default=True
        Whether to draw new batches in every epoch.
    scoring : str, callable or None, default=None
        What the checks compare; see :class:`MLPProbe`.
    ties : {"loss", "first"}, default="loss"
        Which of several best checks is kept.
    nonfinite : {"continue", "stop"}, default="continue"
        What happens at a check whose score is NaN or infinite.
    random_state : int, RandomState instance or None, default=None
        Determines the held-out rows, first weights, batches and dropout.
    device : str, default="auto"
        "cpu", "cuda", "cuda:<index>", or "auto": CUDA if there is any.
    verbose : int, default=0
        If positive, show a progress bar over epochs.

    Attributes
    ----------
    layer_weights_ : ndarray of shape (n_layers,), float32
        The learned weights, at the check that was kept; their sum is 1.
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        The class labels; for an indicator matrix the two values of each label.
    n_features_in_ : int
        Number of columns of X in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, if all were strings.
    net_, history_, n_epochs_, best_epoch_, best_score_
        As those of :class:`MLPProbe`.

    Raises
    ------
    ValueError
        In ``fit``, if ``n_layers`` times ``segments`` does not divide the number of
        columns of X, or for what :class:`MLPProbe` refuses.

    See Also
    --------
    MLPProbe : For a single layer, or their plain mean.

    Notes
    -----
    With one layer a fit equals that of :class:`MLPProbe`, bit for bit. The weights
    tell how much of each layer enters the sum, which is not its use alone: a layer of
    small values needs a larger weight to be heard. A ``StandardScaler`` before the
    probe, or ``layer_norm``, puts the layers on one scale.

    The columns of X do not tell how many layers they hold: a wrong ``n_layers`` or
    ``segments`` whose product happens to divide their number is not noticed. A fitted
    embedder has ``n_layers_``.

    References
    ----------
    .. [1] S.-w. Yang et al., "SUPERB: Speech Processing Universal PERformance
       Benchmark", Interspeech 2021, section 3.2. ``layer_norm`` is an option of its
       code, s3prl.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb import LayerWeightedProbe
    >>> X = np.random.default_rng(0).normal(size=(200, 3, 8))
    >>> y = X[:, 1, 0] > 0
    >>> probe = LayerWeightedProbe(
    ...     n_layers=3, hidden_units=16, lr=1e-2, max_epochs=60, random_state=0
    ... )
    >>> int(probe.fit(X.reshape(200, 24), y).layer_weights_.argmax())
    1
    """

    _parameter_constraints: dict = {
        **MLPProbe._parameter_constraints,
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "segments": [Interval(Integral, 1, None, closed="left"), None],
        "layer_norm": ["boolean"],
        "layer_lr": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        n_layers,
        *,
        segments=None,
        layer_norm=False,
        layer_lr=None,
        hidden_layers=1,
        hidden_units=1024,
        dropout=0.1,
        lr=1e-3,
        init="xavier_uniform",
        batch_size=1024,
        max_epochs=500,
        check_every=3,
        patience=20,
        validation=0.1,
        shuffle=True,
        scoring=None,
        ties="loss",
        nonfinite="continue",
        random_state=None,
        device="auto",
        verbose=0,
    ):
        super().__init__(
            hidden_layers=hidden_layers,
            hidden_units=hidden_units,
            dropout=dropout,
            lr=lr,
            init=init,
            batch_size=batch_size,
            max_epochs=max_epochs,
            check_every=check_every,
            patience=patience,
            validation=validation,
            shuffle=shuffle,
            scoring=scoring,
            ties=ties,
            nonfinite=nonfinite,
            random_state=random_state,
            device=device,
            verbose=verbose,
        )
        self.n_layers = n_layers
        self.segments = segments
        self.layer_norm = layer_norm
        self.layer_lr = layer_lr

    @property
    def layer_weights_(self):
        """The learned weights of the layers, shape (n_layers,); their sum is 1."""
        check_is_fitted(self, "net_")
        return self.net_.module_.layer_weights.detach().cpu().numpy()

    def _make_net(self, *args):
        segments = self.segments or 1
        if self.n_features_in_ % (self.n_layers * segments):
            raise ValueError(
                f"X has {self.n_features_in_} columns, which n_layers={self.n_layers} "
                f"times segments={segments} does not divide. Give the embedder "
                "layers='all' and the same segments, and count its embedding output "
                "as a layer: n_layers=13 for 12 blocks."
            )
        net = super()._make_net(*args)
        net.set_params(
            module=LayerWeightedNetwork,
            module__n_layers=self.n_layers,
            module__segments=segments,
            module__layer_norm=self.layer_norm,
        )
        if self.layer_lr is not None:
            groups = [("layer_logits", {"lr": self.layer_lr})]
            net.set_params(optimizer__param_groups=groups)
        return net
