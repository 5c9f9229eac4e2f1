"""The two stages of EncodecMAE's training: what each begins with, and with what."""

from functools import cached_property
from pathlib import Path

import torch

from skaudioemb.encoders.encodecmae_checkpoint import under
from skaudioemb.encoders.encodecmae_frontends import MelFrontEnd
from skaudioemb.pretraining.autoencoder import MaskedAutoencoder, size_of
from skaudioemb.pretraining.checkpoints import load_checkpoint
from skaudioemb.pretraining.encodecmae_task import EncodecMAETask
from skaudioemb.pretraining.fingerprints import (
    digest_of_clips,
    digest_of_module,
    digest_of_state,
    stated,
)
from skaudioemb.pretraining.random_projection import RandomProjectionTargets
from skaudioemb.pretraining.self_training import ClusterTargets
from skaudioemb.pretraining.targets import shares_of
from skaudioemb.pretraining.trainer import TrainSettings, train

# Where the second stage saves its state, in the folder of the first.
SECOND_FOLDER = "self_training"
# Crops by which streams are weighted, as the paper states, and spectra scaled.
_N_WEIGHED, _N_SCALED = 150, 2048
_BETAS = (0.9, 0.95)
# What may differ between a checkpoint and the training that resumes it.
_FREE = frozenset(
    (
        "max_epochs",
        "self_train",
        "self_train_epochs",
        "n_threads",
        "compile",
        "verbose",
        "on_error",
        "device",
        "checkpoint_dir",
    )
)
# What the second stage alone depends on.
_SECOND = frozenset(("n_clusters", "n_kmeans_frames", "keep_targets", "teacher_stream"))


class Stages:
    """Pretraining, and self-training after it.

    Parameters
    ----------
    encoder : FrameEncoder
        Left as it is.
    hear : Hearing
    batches : CropBatches
    settings : EncodecMAESettings
    codec : transformers model or None, default=None
        What `hear` has its targets from.
    state : dict or None, default=None
        `PretrainedEncodecMAE.state` of what is gone on from.
    """

    def __init__(self, encoder, hear, batches, settings, *, codec=None, state=None):
        self.encoder, self.hear = encoder, hear
        self.batches, self.settings = batches, settings
        self.codec, self.state = codec, state
        self.n_codes = settings.n_codes if hear.codec is None else hear.codec.n_codes

    def check(self):
        """Refuse what does not fit before anything is trained or overwritten.

        Raises
        ------
        ValueError
            If a checkpoint does not fit, be it the second stage's.
        """
        settings = self.settings
        if settings.checkpoint_dir is None:
            return
        if self.state is None or self.state["stage"] == 0:
            load_checkpoint(settings.checkpoint_dir, self._common, settings.max_epochs)
        if settings.self_train:
            load_checkpoint(
                self._second_folder(),
                self._of_second(),
                settings.n_self_training_epochs,
            )

    def first(self, state):
        """Train on the targets of codec or spectra.

        Parameters
        ----------
        state : dict or None
            Of the trainer.

        Returns
        -------
        trained : dict
            Of the trainer.
        """
        folder = self.settings.checkpoint_dir
        about, saved = self._saved(folder, lambda: self._common)
        heads = {"targets": (self.settings.n_codebooks, self.n_codes)}
        network = self._network(self.encoder, heads, self.settings.seed)
        projection, gamma = self._projection(), torch.ones(self.settings.n_codebooks)
        if saved is None and state is None:
            # Else both come with the state.
            gamma = self._learn_targets(projection)
        task = self._task(network, gamma=gamma, projection=projection)
        return self._train(task, self.settings.max_epochs, folder, about, state)

    def second(self, state, earlier):
        """Train on clusters of frames too, or on them alone.

        Parameters
        ----------
        state : dict or None
            Of the trainer, if there was a second stage already.
        earlier : dict or None
            What the first stage returned; needed if there was none.

        Returns
        -------
        trained : dict
            Of the trainer.
        """
        settings, folder = self.settings, self._second_folder()
        if earlier is None:
            own = under(state["task"], "clusters.teacher.")
        else:
            own = under(earlier["task"], "network.encoder.")
        about, saved = self._saved(folder, lambda: self._of_second(own))
        known = saved or state
        n_centres = 0 if known is None else len(known["task"]["clusters.centres"])
        clusters = ClusterTargets(self.encoder, settings.teacher_stream, n_centres)
        if known is None:
            clusters.teacher.load_state_dict(own)
            clusters.to(self.hear.device).learn(
                self.batches,
                self.hear,
                settings.n_clusters,
                settings.n_kmeans_frames,
                settings.seed,
            )
        task = self._second_task(clusters)
        if known is None:
            # All that both stages have; the rest is the second one's own.
            task.load_state_dict(earlier["task"], strict=False)
        n_epochs = settings.n_self_training_epochs
        return self._train(task, n_epochs, folder, about, state)

    def _second_task(self, clusters):
        n_codebooks = self.settings.n_codebooks
        heads = {"clusters": (1, len(clusters.centres))}
        if self.settings.keep_targets:
            heads = {"targets": (n_codebooks, self.n_codes), **heads}
        network = self._network(clusters.teacher, heads, self.settings.seed + 1)
        parts = {"gamma": torch.ones(n_codebooks), "projection": self._projection()}
        return self._task(network, **parts, clusters=clusters)

    def _network(self, encoder, heads, seed):
        network = MaskedAutoencoder(
            encoder,
            heads,
            n_decoder_layers=self.settings.n_decoder_layers,
            share_feedforward=self.settings.share_feedforward,
            mask_token=self.settings.mask_token,
        )
        network.initialise(torch.Generator().manual_seed(seed))
        if self.settings.compile and self.hear.device.type == "cuda":
            network.encoder.stack.compile()
            network.decoder.stack.compile()
        return network

    def _projection(self):
        if self.hear.codec is not None:
            return None
        settings = self.settings
        sizes = MelFrontEnd.n_features, settings.n_codebooks, settings.n_codes
        return RandomProjectionTargets(*sizes, settings.seed).to(self.hear.device)

    def _task(self, network, **parts):
        task = EncodecMAETask(network, self.hear, self.settings, **parts)
        return task.to(self.hear.device)

    def _learn_targets(self, projection):
        """Return the streams' weights; learn the scale of spectra if need be."""
        settings = self.settings
        n_streams = settings.n_codebooks
        if projection is not None:
            projection.learn(self._material(_N_SCALED))
        if not isinstance(settings.gamma, str):
            return torch.tensor(settings.gamma, dtype=torch.float32)
        if settings.gamma == "uniform" or projection is not None:
            return torch.full((n_streams,), 1 / n_streams)
        errors, count = torch.zeros(n_streams), 0
        for material in self._material(_N_WEIGHED):
            errors += self.hear.codec.errors(material[None])[0].sum(0).cpu()
            count += len(material)
        return shares_of(errors / max(1, count))

    def _material(self, n_crops):
        """Yield the material of random crops, without padding."""
        for batch in self.batches.epoch(0, limit=n_crops):
            yield self.hear.whole_material(batch)

    def _train(self, task, n_epochs, folder, about, state):
        settings = self.settings
        options = TrainSettings(
            max_epochs=n_epochs,
            lr=settings.lr,
            device=self.hear.device,
            weight_decay=settings.weight_decay,
            betas=_BETAS,
            accumulate=settings.accumulate,
            seed=settings.seed,
            dtype=settings.dtype,
            checkpoint_dir=folder,
            fingerprint=about,
            verbose=settings.verbose,
        )
        return train(task, self.batches, options, state)

    def _saved(self, folder, state_about):
        """Return what a checkpoint has to state, and its content, if there is any."""
        if folder is None:
            return {}, None
        about = state_about()
        return about, load_checkpoint(folder, about)

    def _second_folder(self):
        folder = self.settings.checkpoint_dir
        return None if folder is None else Path(folder) / SECOND_FOLDER

    @cached_property
    def _common(self):
        """What a checkpoint and the training that resumes it have in common."""
        begin = self.encoder.state_dict()
        if self.state is not None:
            begin = self.state["training"]["task"]
        codec = None if self.hear.codec is None else digest_of_module(self.codec)
        return {
            **stated(self.settings, _FREE | _SECOND),
            "n_clips": len(self.batches.clips),
            "n_crops": len(self.batches.items),
            "recordings": digest_of_clips(self.batches.clips),
            "front_end": digest_of_module(self.hear.front_end),
            "codec": codec,
            "size": list(size_of(self.encoder)),
            "n_codes": self.n_codes,
            "initial_weights": digest_of_state(begin),
        }

    def _of_second(self, teacher=None):
        """State the same of the second stage, with its teacher if it is known yet."""
        everything = stated(self.settings, ())
        about = {
            **self._common,
            **{name: everything[name] for name in sorted(_SECOND)},
            # The teacher is of so many epochs.
            "max_epochs": self.settings.max_epochs,
        }
        if teacher is not None:
            about["teacher"] = digest_of_state(teacher)
        return about
