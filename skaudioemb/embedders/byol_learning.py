"""What BYOL's embedders learn, and how they pass it on."""

from dataclasses import dataclass, fields

import numpy as np
from sklearn.base import clone

from skaudioemb import devices
from skaudioemb.embedders.plans import ScenePlan, select
from skaudioemb.embedders.sharing import SharedWeights, check_unchanged, seed_of
from skaudioemb.frames import segment_bounds
from skaudioemb.summaries import Weighted


class ByolLearning(SharedWeights):
    """Statistics, pretraining and saved weights of a ByolEmbedder."""

    def save_weights(self, path):
        """Write the encoder's weights, front end and statistics.

        Parameters
        ----------
        path : str or path-like
            A folder, which is made, for ``model.safetensors`` and ``config.json``; or
            a file that ends in .safetensors, with a .json of the same name beside it.
            Both can be given as ``weights``.

        Returns
        -------
        files : list of Path
            The two files.

        Raises
        ------
        NotFittedError
            If there are no weights yet.
        """
        from skaudioemb.encoders.byol_weights import save

        self._check_parameters()
        told = dict(zip(("mean", "std"), self._known_statistics(), strict=True))
        return save(
            path,
            self._weights().state(),
            encoder=self.encoder,
            n_features=self._encoder_width(),
            frontend=self._resolved_frontend(),
            **told,
        )

    def _forget(self):
        learned = ("pretrained_weights_", "history_", "targets_", "training_state_")
        for name in (*learned, "mean_", "std_"):
            vars(self).pop(name, None)

    def _learn_statistics(self, X):
        """Set ``mean_`` and ``std_``, in one pass over X if they are not given."""
        if self.normalize == "fit":
            self.mean_, self.std_ = self._measure(X)
        elif self.normalize != "clip":
            self.mean_, self.std_ = self._known_statistics()

    def _measure(self, X):
        """Return mean and deviation of all log-mel values of all clips."""
        from skaudioemb.encoders.byol_frontend import n_mel_frames
        from skaudioemb.encoders.byol_spec import MIN_STD, StatisticsSpec

        spec = StatisticsSpec(self._resolved_frontend())
        plan = ScenePlan(spec, "mean", None, (0,))
        rows = [
            (n_mel_frames(length.at(spec)), *plan.combine(result).astype(np.float64))
            for _, length, result in self._run(X, spec, plan)
        ]
        if not rows:
            raise ValueError(
                "No clip of X could be read, so that there is nothing to learn from."
            )
        # Sorted, so that the sums do not depend on the order of the clips.
        counts, means, variances = np.array(sorted(rows)).T
        mean = np.average(means, weights=counts)
        variance = np.average(variances + (means - mean) ** 2, weights=counts)
        return float(mean), max(float(np.sqrt(variance)), MIN_STD)

    def _pretrain(self, X, once=False):
        """Learn the encoder; for one epoch from what there is if ``once``."""
        from skaudioemb.encoders.byol_frontend import ByolFrontend
        from skaudioemb.encoders.byol_weights import HeldWeights
        from skaudioemb.pretraining.byol import pretrain_byol

        if len(X) < 2:
            raise ValueError(
                f"X has n_samples={len(X)}, and pretraining compares clips with each "
                "other. Give two at least, better thousands."
            )
        state = self._state_to_go_on_from() if once else None
        seed = seed_of(self.random_state, None if once else self.checkpoint_dir)
        frontend = self._resolved_frontend()
        result = pretrain_byol(
            self._initial_encoder(once, seed),
            ByolFrontend(frontend),
            X,
            self._training_settings(once, state, seed),
            state=state,
            handcrafted=None if self.handcrafted is None else clone(self.handcrafted),
            normalization=self._statistics_to_train_with(once),
        )
        self.pretrained_weights_ = HeldWeights.of(
            result.state_dict, self.encoder, self._encoder_width(), frontend
        )
        self.mean_, self.std_ = float(result.mean), float(result.std)
        self.history_, self.targets_ = result.history, result.targets
        vars(self).pop("training_state_", None)
        if once:
            self.training_state_ = {**result.state, "parameters": self._sizes()}

    def _sizes(self):
        """Return the parameters that decide the sizes of what is trained."""
        from skaudioemb.pretraining.fingerprints import describe_transformer

        names = ("projection_size", "hidden_size", "crop_seconds")
        hybrid = self.handcrafted is not None and self.alpha > 0
        return {
            **{name: getattr(self, name) for name in names},
            "mixup": "above 0" if self.mixup > 0 else 0.0,
            "memory_size": self.memory_size if self.mixup > 0 else None,
            "target_clip": self.target_clip if hybrid else None,
            "handcrafted": describe_transformer(self.handcrafted) if hybrid else None,
        }

    def _state_to_go_on_from(self):
        state = getattr(self, "training_state_", None)
        if state is not None:
            remedy = "partial_fit needs the same; set them back, or call fit."
            check_unchanged(state["parameters"], self._sizes(), remedy)
        return state

    def _statistics_to_train_with(self, once):
        """Return mean and deviation, None if they are to be learned."""
        known = self._statistics_given()
        if self.normalize == "weights":
            known = self._stored_statistics()
        if known is None and once and self._is_pretrained():
            known = self.mean_, self.std_
        return known

    def _training_settings(self, once, state, seed):
        from skaudioemb.pretraining.byol import BYOLSettings

        names = {field.name for field in fields(BYOLSettings)}
        params = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        params["seed"] = seed
        params["device"] = str(devices.resolve_device(self.device))
        if self.dtype == "float16":
            # Gradients would underflow in it.
            params["dtype"] = "float32"
        if once:
            done = 0 if state is None else len(state["history"])
            params.update(max_epochs=done + 1, checkpoint_dir=None)
        elif self.max_epochs == 0:
            # There is nothing to keep, nor to take from a folder but the seed.
            params["checkpoint_dir"] = None
        return BYOLSettings(**params)

    def _initial_encoder(self, once, seed):
        """Return the network that pretraining starts from."""
        import torch

        from skaudioemb.encoders.byol import make_byol_encoder

        continued = (once or self.warm_start) and self._is_pretrained()
        given = self._weights() if continued or self.weights is not None else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = make_byol_encoder(self.encoder, self._encoder_width())
        if given is not None:
            network.load_state_dict(given.state())
        return network


@dataclass(frozen=True)
class LastPlan:
    """The last frame of each group, for encoders that have seen all of it by then."""

    spec: object
    segments: int | None

    def __call__(self, length):
        n_frames = self.spec.n_frames(length.at(self.spec))
        bounds = segment_bounds(n_frames, self.segments)
        weights = np.zeros((len(bounds), n_frames))
        weights[np.arange(len(bounds)), [stop - 1 for _, stop in bounds]] = 1
        return (Weighted(weights),)

    def combine(self, result):
        """Return the vector, group after group."""
        return select(result[0], (0,)).reshape(-1)
