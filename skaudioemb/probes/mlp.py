"""A multilayer perceptron on frozen embeddings: the probe of the HEAR benchmark."""

import copy
import warnings
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

from skaudioemb.devices import resolve_device
from skaudioemb.probes.network import INITS, ProbeNetwork
from skaudioemb.probes.rows import Rows, as_tensor, hold_out, report_unseen
from skaudioemb.probes.scoring import ValidationScore, resolve_scorer
from skaudioemb.probes.targets import Targets
from skaudioemb.probes.training import (
    BestWeights,
    CheckScoring,
    EpochBar,
    ProbeNet,
    TensorBatches,
    seeded,
)

_RECORDED = ("train_loss", "valid_loss", "score")


class MLPProbe(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron classifier trained as the HEAR benchmark does.

    The network is ``hidden_layers`` blocks of linear layer, batch normalisation,
    dropout and ReLU, and a linear layer. Adam minimises the cross-entropy, or for an
    indicator matrix y the binary cross-entropy of each label. After every
    ``check_every`` epochs the validation rows are scored; training stops after
    ``patience`` checks without improvement, and the weights of the best check are
    kept. skorch runs the training [2]_.

    With ``validation=(X_valid, y_valid)``, ``shuffle=False``, ``ties="first"`` and
    ``nonfinite="stop"`` a fit is HEAR's own [1]_, except that a last batch of a single
    row, which batch normalisation cannot use, joins the batch before it.

    Parameters
    ----------
    hidden_layers : int, default=1
        Number of hidden blocks; 0 is a logistic regression.
    hidden_units : int, default=1024
        Width of each hidden block.
    dropout : float, default=0.1
        Probability in [0, 1) that a hidden value is set to zero in training.
    lr : float, default=1e-3
        Learning rate of Adam.
    init : {"xavier_uniform", "xavier_normal"}, default="xavier_uniform"
        Distribution of the first weights, with gain 1 for the layer that sees X and
        sqrt(2) for the later ones.
    batch_size : int, default=1024
        Rows per optimizer step, at least 2.
    max_epochs : int, default=500
        Passes over the training rows at most.
    check_every : int, default=3
        Epochs from one validation to the next.
    patience : int, default=20
        Checks without strict improvement after which training stops.
    validation : float, tuple (X, y) or None, default=0.1
        Rows to validate on. A float in (0, 1) is the part of the training rows to
        hold out, by class and such that no class is lost for training; if no row can
        be spared, it is as None. With None, all rows are trained on for ``max_epochs``
        epochs and the last weights are kept.
    shuffle : bool, default=True
        Whether to draw new batches in every epoch. HEAR's own code never does.
    scoring : str, callable or None, default=None
        What the checks compare. None is the accuracy, or for an indicator matrix the
        macro average precision. "loss" is the validation loss. Any other name or
        callable is a scikit-learn scorer for the validation rows, higher is better.
    ties : {"loss", "first"}, default="loss"
        Which of several best checks is kept: the one with the lowest validation loss,
        or the first. On few rows the accuracy ties often, and the first is a poor
        choice. Training stops at the same epoch with both.
    nonfinite : {"continue", "stop"}, default="continue"
        What happens at a check whose score is NaN or infinite. NaN counts as worse
        than any number; "stop" ends the training too, as HEAR's own code does, and
        may keep weights that have hardly been trained.
    random_state : int, RandomState instance or None, default=None
        Determines the held-out rows, first weights, batches and dropout. With an int
        fits on the same CPU are equal bit for bit, unless several run at once in
        threads. torch's global generators are left as they were.
    device : str, default="auto"
        "cpu", "cuda", "cuda:<index>", or "auto": CUDA if there is any. A fitted probe
        that was trained on CUDA predicts on the CPU where there is none.
    verbose : int, default=0
        If positive, show a progress bar over epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        The class labels; for an indicator matrix the two values of each label.
    n_features_in_ : int
        Number of columns of X in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, if all were strings.
    net_ : skorch.NeuralNet
        The trained net, trimmed for prediction; the network is ``net_.module_``.
    history_ : list of dict
        One dict per epoch with "epoch" and "train_loss"; in epochs with a check also
        "valid_loss" and, unless ``scoring="loss"``, "score".
    n_epochs_ : int
        Epochs trained.
    best_epoch_ : int
        Epochs after which the kept weights were reached, counted from 1.
    best_score_ : float or None
        Score of the best check, minus the loss if ``scoring="loss"``, so that higher
        is better; -inf if every score was NaN, None if there was no check.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : On the CPU, without batch normalisation.

    References
    ----------
    .. [1] J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations",
       Proceedings of Machine Learning Research 176 (NeurIPS 2021), 2022. Details
       follow its code, heareval 2021.1.3.
    .. [2] M. Tietz et al., "skorch: A scikit-learn compatible neural network library
       that wraps PyTorch", 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from skaudioemb.probes.mlp import MLPProbe
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = MLPProbe(hidden_units=32, lr=1e-2, max_epochs=99, random_state=0)
    >>> probe.fit(scale(X), y).score(scale(X), y) > 0.9
    True
    """

    _parameter_constraints: dict = {
        "hidden_layers": [Interval(Integral, 0, None, closed="left")],
        "hidden_units": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "init": [StrOptions(set(INITS))],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "check_every": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation": [Interval(Real, 0, 1, closed="neither"), tuple, list, None],
        "shuffle": ["boolean"],
        "scoring": [str, callable, None],
        "ties": [StrOptions({"loss", "first"})],
        "nonfinite": [StrOptions({"continue", "stop"})],
        "random_state": ["random_state"],
        "device": [str, torch.device],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
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
        *,
        shuffle=True,
        scoring=None,
        ties="loss",
        nonfinite="continue",
        random_state=None,
        device="auto",
        verbose=0,
    ):
        self.hidden_layers = hidden_layers
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.lr = lr
        self.init = init
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.check_every = check_every
        self.patience = patience
        self.validation = validation
        self.shuffle = shuffle
        self.scoring = scoring
        self.ties = ties
        self.nonfinite = nonfinite
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        """Train the network from new weights.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings; cast to float32.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            One label of any type per row, or an indicator matrix of zeros and ones,
            dense or sparse, with at least two columns.

        Returns
        -------
        self : MLPProbe
            The fitted probe.

        Raises
        ------
        ValueError
            If a parameter is not valid, if X holds NaN or infinity or fewer than two
            rows, or if y or the validation rows do not fit X.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the training diverged and the kept weights are not finite.
        UserWarning
            If some validation rows have a label that no training row has.
        """
        X, y = self._check_rows(X, y, reset=True)
        device = resolve_device(self.device)
        rng = check_random_state(self.random_state)
        seed, batch_seed = rng.randint(np.iinfo(np.int32).max, size=2).tolist()
        self._targets = Targets(y)
        train, valid = self._split(X, y, rng)
        monitor = self._make_monitor()
        net = self._make_net(valid, monitor, batch_seed, device)
        with seeded(seed, device):
            net.train(train.to_dataset(device))
        self._keep(net, monitor)
        return self

    def predict(self, X):
        """Return the likeliest class of each row, or the labels above 0.5.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or an indicator matrix of int64.
        """
        probabilities = self.predict_proba(X)
        return self._targets.decode(probabilities)

    def predict_proba(self, X):
        """Return the probability of each class or label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), float32
            Softmax over ``classes_``; for an indicator matrix the sigmoid of each
            label, of shape (n_samples, n_labels).
        """
        check_is_fitted(self, "net_")
        X = self._check_rows(X, reset=False)
        device = resolve_device(self.device, fall_back=True)
        if torch.device(self.net_.device) != device:
            self.net_.move_to(device)
        return self.net_.predict_proba(Dataset(as_tensor(X)))

    def _check_rows(self, *arrays, reset):
        """Return X, or X and y, checked; X is float32 and contiguous."""
        options = {"multi_output": True} if len(arrays) == 2 else {}
        if reset:
            options["ensure_min_samples"] = 2
        # What float32 cannot hold becomes infinity, which is refused by name.
        with np.errstate(over="ignore"):
            return validate_data(
                self, *arrays, reset=reset, dtype=np.float32, order="C", **options
            )

    def _split(self, X, y, rng):
        """Return the training rows and the validation rows, None if there are none."""
        rows = Rows.encode(X, y, self._targets)
        if isinstance(self.validation, tuple | list):
            return rows, self._given_validation()
        if self.validation is None:
            return rows, None
        held_out = hold_out(rows.codes, self.validation, rng)
        valid = rows.take(held_out) if held_out.any() else None
        return rows.take(~held_out), valid

    def _given_validation(self):
        if len(self.validation) != 2:
            raise ValueError(
                f"validation is a sequence of {len(self.validation)} items. Give the "
                "pair (X_valid, y_valid), a fraction in (0, 1), or None."
            )
        try:
            X, y = self._check_rows(*self.validation, reset=False)
            rows = Rows.encode(X, y, self._targets)
        except ValueError as error:
            raise ValueError(f"The validation rows do not fit: {error}") from error
        report_unseen(rows, self._targets)
        return rows

    def _make_monitor(self):
        watched = ("valid_loss", -1) if self.scoring == "loss" else ("score", 1)
        return BestWeights(*watched, self.patience, self.ties, self.nonfinite)

    def _make_net(self, valid, monitor, seed, device):
        multilabel = self._targets.multilabel
        softmax = partial(torch.softmax, dim=1)
        return ProbeNet(
            ProbeNetwork,
            module__n_features=self.n_features_in_,
            module__n_outputs=self._targets.n_outputs,
            module__hidden_layers=self.hidden_layers,
            module__hidden_units=self.hidden_units,
            module__dropout=self.dropout,
            module__init=self.init,
            criterion=nn.BCEWithLogitsLoss if multilabel else nn.CrossEntropyLoss,
            predict_nonlinearity=torch.sigmoid if multilabel else softmax,
            optimizer=torch.optim.Adam,
            lr=self.lr,
            max_epochs=self.max_epochs,
            check_every=self.check_every,
            batch_size=self.batch_size,
            iterator_train=TensorBatches,
            iterator_train__seed=seed if self.shuffle else None,
            iterator_train__merge_single=self.hidden_layers > 0,
            iterator_valid=TensorBatches,
            train_split=valid and predefined_split(valid.to_dataset(device)),
            callbacks=self._make_callbacks(valid, monitor),
            device=str(device),
            verbose=0,
        )

    def _make_callbacks(self, valid, monitor):
        callbacks = [monitor]
        if self.verbose:
            callbacks.insert(0, EpochBar())
        scorer = resolve_scorer(self.scoring)
        if valid is not None and self.scoring != "loss":
            score = ValidationScore(valid.X, valid.labels, self._targets, scorer)
            callbacks.insert(0, CheckScoring(score, False, name="score"))
        return callbacks

    def _keep(self, net, monitor):
        """Keep what training has found, and of the net what prediction needs."""
        self.classes_ = self._targets.classes
        self.history_ = [
            {"epoch": e["epoch"], **{k: float(e[k]) for k in _RECORDED if k in e}}
            for e in net.history
        ]
        self.n_epochs_ = len(self.history_)
        self.best_epoch_ = monitor.best_epoch_ or self.n_epochs_
        self.best_score_ = monitor.best_score_
        net.trim_for_prediction()
        self.net_ = net
        if not all(value.isfinite().all() for value in net.module_.parameters()):
            warnings.warn(
                "The training diverged: the network holds NaN or infinity. Lower lr "
                f"(now {self.lr}), or scale the columns of X.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def __getstate__(self):
        state = {**super().__getstate__()}
        if "net_" in state:
            # Weights saved on the CPU open on every machine.
            state["net_"] = copy.deepcopy(self.net_).move_to(torch.device("cpu"))
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
