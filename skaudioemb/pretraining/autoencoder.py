"""The networks of a masked autoencoder over frames: encoder, decoder, classifiers."""

import copy

import torch
from torch import nn

from skaudioemb.encoders.encodecmae_network import (
    ResiDualStack,
    Size,
    initialise,
    sinusoids,
)


class Decoder(nn.Module):
    """Puts what the encoder gave into its places among hidden frames, and attends.

    Parameters
    ----------
    size : Size
    share_feedforward : bool, default=True
        Whether all layers have one feed-forward network.
    mask_token : {"zeros", "learned"}, default="zeros"
        What stands for a hidden frame: nothing but its position, as in the published
        code; or one learned vector, as in the paper.

    References
    ----------
    Pepino et al., "EnCodecMAE" (2023), section 2.2.
    """

    def __init__(self, size, share_feedforward=True, mask_token="zeros"):
        super().__init__()
        self.project = nn.Linear(size.n_features, size.n_features)
        self.scale = nn.Parameter(torch.ones(()))
        self.stack = ResiDualStack(size, share_feedforward)
        is_learned = mask_token == "learned"
        self.token = nn.Parameter(torch.zeros(size.n_features)) if is_learned else None

    def initialise(self, generator):
        """Draw the weights; a learned token is as small as that of an image's MAE."""
        initialise(self, generator)
        if self.token is not None:
            nn.init.normal_(self.token, std=0.02, generator=generator)
        return self

    def forward(self, seen, masking):
        """Return all frames of the last layer.

        Parameters
        ----------
        seen : tensor of shape (n_clips, n_visible, n_features)
        masking : Masking

        Returns
        -------
        frames : tensor of shape (n_clips, n_frames, n_features)
        """
        frames = self._in_places(self.project(seen).to(self.scale), masking)
        codes = sinusoids(frames.shape[1], frames.shape[2]).to(self.scale)
        padding = masking.padding if masking.has_padding else None
        return self.stack(frames + self.scale * codes, padding)

    def _in_places(self, seen, masking):
        n_clips, n_frames = masking.masked.shape
        n_features = seen.shape[2]
        # The place after the last takes what has none.
        frames = seen.new_zeros(n_clips, n_frames + 1, n_features)
        if self.token is not None:
            hidden = nn.functional.pad(masking.masked, (0, 1))[..., None]
            frames = torch.where(hidden, self.token, frames)
        places = masking.places
        if masking.filler is not None:
            places = places.masked_fill(masking.filler, n_frames)
        places = places[..., None].expand(-1, -1, n_features)
        return frames.scatter(1, places, seen)[:, :n_frames]


class MaskedAutoencoder(nn.Module):
    """An encoder that sees some frames, and a decoder that tells of all.

    Parameters
    ----------
    encoder : FrameEncoder
        Copied; the copy is trained, even if a frozen one was given.
    heads : dict of str to pair of int
        For each group of streams its number of streams and of classes.
    n_decoder_layers : int, default=2
    share_feedforward, mask_token
        As for :class:`Decoder`.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skaudioemb.encoders.encodecmae_network import FrameEncoder, Size
    >>> from skaudioemb.pretraining.autoencoder import MaskedAutoencoder
    >>> from skaudioemb.pretraining.masks import make_masking
    >>> encoder = FrameEncoder(128, Size(n_layers=2, n_features=24, n_heads=4))
    >>> masking = make_masking(np.array([[True, False, True]]), np.array([3]))
    >>> network = MaskedAutoencoder(encoder, {"targets": (8, 1024)})
    >>> network(torch.zeros(1, 3, 128), masking).shape
    torch.Size([1, 3, 24])
    """

    def __init__(
        self,
        encoder,
        heads,
        n_decoder_layers=2,
        share_feedforward=True,
        mask_token="zeros",
    ):
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        size = size_of(encoder)._replace(n_layers=n_decoder_layers)
        self.decoder = Decoder(size, share_feedforward, mask_token)
        self.heads = nn.ModuleDict()
        for name, (n_streams, n_classes) in heads.items():
            self.heads[name] = nn.Linear(size.n_features, n_streams * n_classes)

    def initialise(self, generator):
        """Draw the weights of all but the encoder.

        Parameters
        ----------
        generator : torch.Generator
        """
        self.decoder.initialise(generator)
        initialise(self.heads, generator)
        return self

    def visible(self, features, masking):
        """Return the frames that are seen as the first layer gets them.

        Parameters
        ----------
        features : tensor of shape (n_clips, n_frames, n_inputs)
        masking : Masking

        Returns
        -------
        frames : tensor of shape (n_clips, n_visible, n_features)
            Zeros after a clip's last.
        """
        frames = self.encoder.embed(features)
        places = masking.places[..., None].expand(-1, -1, frames.shape[2])
        frames = frames.gather(1, places)
        if masking.filler is None:
            return frames
        return frames.masked_fill(masking.filler[..., None], 0.0)

    def forward(self, features, masking):
        """Return the decoder's frames, (n_clips, n_frames, n_features)."""
        seen = self.encoder.stack(self.visible(features, masking), masking.filler)
        return self.decoder(seen, masking)


def size_of(encoder):
    """Return the Size of a FrameEncoder."""
    layers = encoder.stack.encoder_layers
    return Size(
        len(layers),
        encoder.project.out_features,
        layers[0].att_layer.n_heads,
        layers[0].ff_layer[0].out_features,
    )
