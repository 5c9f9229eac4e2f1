"""EncodecMAE as a task: frames and codes heard, half of them hidden, all told."""

import numpy as np
import torch

from skaudioemb.pretraining.masks import draw_masking
from skaudioemb.pretraining.trainer import Task
from skaudioemb.pretraining.weighted_loss import weighted_cross_entropy


def frame_weights(masking, *, per_clip=False, count_padding=False):
    """Return what each frame counts in the loss of the hidden and of the seen frames.

    Parameters
    ----------
    masking : Masking
    per_clip : bool, default=False
        Whether the losses are means over each clip's frames, then over clips, as in
        the paper; or means over all frames of the batch, as in the published code.
    count_padding : bool, default=False
        Whether padding counts as seen, as in the published code.

    Returns
    -------
    masked, visible : tensor of shape (n_clips, n_frames)
        Either sums to 1, to less if a clip has no such frame.

    References
    ----------
    Pepino et al., "EnCodecMAE" (2023), section 2.3, without the weights of both
    losses.

    Examples
    --------
    >>> import numpy as np
    >>> from skaudioemb.pretraining.encodecmae_task import frame_weights
    >>> from skaudioemb.pretraining.masks import make_masking
    >>> masking = make_masking(np.array([[True, False, False]]), np.array([2]))
    >>> frame_weights(masking)
    (tensor([[1., 0., 0.]]), tensor([[0., 1., 0.]]))
    """
    visible = ~masking.masked
    if not count_padding:
        visible = visible & ~masking.padding
    weights = []
    for chosen in (masking.masked, visible):
        counts = chosen.sum(1, keepdim=True)
        if per_clip:
            counts = counts.clamp_min(1) * len(chosen)
        else:
            counts = counts.sum().clamp_min(1)
        weights.append(chosen / counts)
    return tuple(weights)


class EncodecMAETask(Task):
    """A masked autoencoder on crops: front end, codes, mask, networks, loss.

    Parameters
    ----------
    network : MaskedAutoencoder
    hear : Hearing
        None of it is trained or saved.
    settings : EncodecMAESettings
    gamma : tensor of shape (n_streams,)
        Weights of the streams of ``"targets"``.
    projection : RandomProjectionTargets or None, default=None
        What quantises spectra; None has the codec do so.
    clusters : ClusterTargets or None, default=None
        Self-training's further stream; its weight is the sum of `gamma`.
    """

    name = "EncodecMAE"

    def __init__(
        self, network, hear, settings, gamma, *, projection=None, clusters=None
    ):
        super().__init__()
        self.network = network
        # In a list, so that it is no part of the state dict.
        self._hear = [hear]
        self.settings = settings
        self.register_buffer("gamma", gamma)
        self.projection = projection
        self.clusters = clusters

    def forward(self, batch, generator):
        """Return the loss of a batch of crops, and that of hidden and seen frames."""
        heard = self._hear[0](batch, "targets" in self.network.heads)
        # Masks are drawn on the host whatever the device, from the generator that
        # the trainer seeds there for this epoch, so that no step waits for CUDA.
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        masking = draw_masking(
            heard.features.shape[1],
            heard.n_whole,
            self.settings.mask_share,
            self.settings.mask_length,
            rng,
        )
        return self.loss(heard, masking)

    def loss(self, heard, masking):
        """Return the figures of a batch with given masks.

        Parameters
        ----------
        heard : Heard
        masking : Masking
            On the CPU.

        Returns
        -------
        figures : dict of str to tensor
            ``"loss"``, and its parts without the weights of both: ``"masked"`` and
            ``"visible"``.
        """
        device = heard.features.device
        codes = self.codes(heard)
        decoded = self.network(heard.features, masking.to(device)).flatten(0, 1)
        kept, masked, visible = (part.to(device) for part in self._counted(masking))
        delta = self.settings.delta
        weights = (delta * masked + (1 - delta) * visible)[:, None]
        hidden = decoded if len(kept) == len(decoded) else decoded[kept]
        parts = []
        for name, gamma in self._gammas().items():
            head, right = self.network.heads[name], codes[name].flatten(0, 1)[kept]
            total, losses = weighted_cross_entropy(
                hidden, head.weight, head.bias, right, weights * gamma
            )
            losses = (losses * gamma).sum(1)
            parts.append(
                torch.stack([total, (masked * losses).sum(), (visible * losses).sum()])
            )
        figures = torch.stack(parts).sum(0)
        return dict(zip(("loss", "masked", "visible"), figures, strict=True))

    def _counted(self, masking):
        """Return the places of frames that count, and their weights."""
        masked, visible = frame_weights(
            masking,
            per_clip=self.settings.loss_mean == "clip",
            count_padding=self.settings.count_padding,
        )
        counts = ((masked + visible) > 0).flatten()
        kept = counts.nonzero()[:, 0]
        return kept, masked.flatten()[kept], visible.flatten()[kept]

    @torch.no_grad()
    def codes(self, heard):
        """Return the targets of a batch.

        Parameters
        ----------
        heard : Heard

        Returns
        -------
        codes : dict of str to tensor of shape (n_clips, n_frames, n_streams)
        """
        codes = {}
        if "targets" in self.network.heads:
            device_type = heard.features.device.type
            with torch.autocast(device_type, enabled=False):
                quantise = self.projection or self._hear[0].codec.codes
                codes["targets"] = quantise(heard.material)
        if self.clusters is not None:
            codes["clusters"] = self.clusters(heard.features, heard.padding())[
                ..., None
            ]
        return codes

    def _gammas(self):
        gammas = {"targets": self.gamma, "clusters": self.gamma.sum()[None]}
        return {name: gammas[name] for name in self.network.heads}
