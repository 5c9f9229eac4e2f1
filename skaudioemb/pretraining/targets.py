"""What a masked autoencoder learns to tell: the codes of a frozen neural codec."""

import copy

import torch
from torch.nn import functional as F

from skaudioemb.encoders.encodecmae_codec import CodecFrontEnd, ResidualBlock

# Clips of 4 s through a codec together on a GPU: about 2 GB.
_CLIPS_AT_ONCE = 32


class CodecTargets:
    """Codes of a neural codec's residual quantiser.

    No module, so that no call of ``train`` can reach the codec: in training mode some
    codecs change their own codebooks.

    Parameters
    ----------
    codec : transformers.EncodecModel, transformers.DacModel or transformers.MimiModel
        Its encoder and quantiser are copied.
    n_codebooks : int
        How many of its codebooks are used, the coarsest first.
    device : torch.device

    Attributes
    ----------
    rate, hop : int
        Of the waveforms in Hz, and of the codes in samples.
    n_codes : int
        Codewords of a codebook.

    Raises
    ------
    ValueError
        If the codec is of another kind, is not for one channel, or has fewer
        codebooks.

    References
    ----------
    Pepino et al., "EnCodecMAE" (2023), sections 2.1 and 2.3.
    """

    def __init__(self, codec, n_codebooks, device):
        kind = codec.config.model_type
        if kind not in _KINDS:
            raise ValueError(
                f"The codec is of the type {kind!r}; targets can be had from "
                f"{', '.join(map(repr, _KINDS))}. Give one of these, or choose "
                "targets='mel', which needs none."
            )
        self._kind = _KINDS[kind](codec, device)
        if not 1 <= n_codebooks <= self._kind.n_codebooks:
            raise ValueError(
                f"n_codebooks={n_codebooks} of a codec that has "
                f"{self._kind.n_codebooks}. Choose fewer."
            )
        self.n_codebooks = n_codebooks
        self.n_codes = codec.config.codebook_size
        self.rate, self.hop = codec.config.sampling_rate, self._kind.hop

    def shares_encoder(self, front_end):
        """Tell whether a front end gives the very frames that are quantised."""
        own = getattr(self._kind, "encoder", None)
        if not isinstance(own, CodecFrontEnd) or not isinstance(
            front_end, CodecFrontEnd
        ):
            return False
        ours, theirs = own.state_dict(), front_end.state_dict()
        return ours.keys() == theirs.keys() and all(
            torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours
        )

    @torch.no_grad()
    def latents(self, waveforms):
        """Return what is quantised.

        Parameters
        ----------
        waveforms : tensor of shape (n_clips, n_samples)

        Returns
        -------
        latents : tensor of shape (n_clips, n_frames, n_channels)
        """
        return self._kind.latents(waveforms)

    @torch.no_grad()
    def codes(self, latents):
        """Quantise.

        Parameters
        ----------
        latents : tensor of shape (n_clips, n_frames, n_channels)

        Returns
        -------
        codes : tensor of shape (n_clips, n_frames, n_codebooks), int64
        """
        codes = self._kind.quantise(latents.transpose(1, 2), self.n_codebooks)
        return codes.movedim(0, 2)

    @torch.no_grad()
    def errors(self, latents):
        """Return what each codebook leaves unexplained.

        Parameters
        ----------
        latents : tensor of shape (n_clips, n_frames, n_channels)

        Returns
        -------
        errors : tensor of shape (n_clips, n_frames, n_codebooks)
            The squared norm of what remains after the first codebook, after the
            first two, and so on.
        """
        latents = latents.transpose(1, 2)
        codes = self._kind.quantise(latents, self.n_codebooks)
        decoded = (self._kind.decode(codes[: k + 1]) for k in range(len(codes)))
        return torch.stack([(latents - d).square().sum(1) for d in decoded], dim=-1)


class _Codec:
    """Encoder and quantiser of a kind of codec.

    A subclass maps waveforms to latents of shape (n_clips, n_frames, n_channels), and
    latents of shape (n_clips, n_channels, n_frames) to codes of shape
    (n_codebooks, n_clips, n_frames) and back.
    """

    def __init__(self, codec, device):
        quantizer = copy.deepcopy(codec.quantizer)
        self.quantizer = quantizer.to(device).requires_grad_(False).eval()


class _EnCodec(_Codec):
    def __init__(self, codec, device):
        super().__init__(codec, device)
        config = codec.config
        if config.audio_channels != 1 or config.normalize:
            raise ValueError(
                "The codec is an EnCodec of several channels or one that changes "
                "levels. Give one as 'facebook/encodec_24khz' is."
            )
        state = {k: v.clone() for k, v in codec.encoder.state_dict().items()}
        self.encoder = CodecFrontEnd(state, device).eval()
        self.hop = codec.config.hop_length
        self.n_codebooks = len(self.quantizer.layers)

    def latents(self, waveforms):
        return frames_of(self.encoder, waveforms)

    def quantise(self, latents, n_codebooks):
        codes = []
        for layer in self.quantizer.layers[:n_codebooks]:
            codes.append(layer.encode(latents))
            latents = latents - layer.decode(codes[-1])
        return torch.stack(codes)

    def decode(self, codes):
        return sum(
            layer.decode(code)
            for layer, code in zip(self.quantizer.layers, codes, strict=False)
        )


class _DAC(_Codec):
    def __init__(self, codec, device):
        super().__init__(codec, device)
        encoder = copy.deepcopy(codec.encoder)
        self.encoder = encoder.to(device).requires_grad_(False).eval()
        self.hop = int(codec.config.hop_length)
        self.n_codebooks = len(self.quantizer.quantizers)

    def latents(self, waveforms):
        # As its feature extractor does.
        waveforms = F.pad(waveforms, (0, -waveforms.shape[1] % self.hop))
        return self.encoder(waveforms[:, None]).transpose(1, 2)

    def quantise(self, latents, n_codebooks):
        return self.quantizer(latents, n_codebooks)[1].transpose(0, 1)

    def decode(self, codes):
        return self.quantizer.from_codes(codes.transpose(0, 1))[0]


class _Mimi(_Codec):
    def __init__(self, codec, device):
        super().__init__(codec, device)
        # Which of them holds the three parts depends on the version of transformers.
        has_parts = hasattr(codec.encoder, "downsample")
        encoder = copy.deepcopy(codec.encoder if has_parts else codec)
        self.encoder = encoder.to(device).requires_grad_(False).eval()
        config = codec.config
        self.hop = round(config.sampling_rate / config.frame_rate)
        self.n_codebooks = config.num_quantizers

    def latents(self, waveforms):
        stem = getattr(self.encoder, "encoder_seanet", None) or self.encoder.encoder
        frames = stem(waveforms[:, None]).transpose(1, 2)
        hidden = self.encoder.encoder_transformer(frames).last_hidden_state
        return self.encoder.downsample(hidden.transpose(1, 2)).transpose(1, 2)

    def quantise(self, latents, n_codebooks):
        return self.quantizer.encode(latents, n_codebooks)

    def decode(self, codes):
        return self.quantizer.decode(codes.transpose(0, 1))


_KINDS = {"encodec": _EnCodec, "dac": _DAC, "mimi": _Mimi}


def frames_of(front_end, waveforms):
    """Return a front end's frames of waveforms of one length.

    Parameters
    ----------
    front_end : MelFrontEnd or CodecFrontEnd
    waveforms : tensor of shape (n_clips, n_samples)

    Returns
    -------
    frames : tensor of shape (n_clips, n_frames, n_features)
    """
    if waveforms.is_cuda and isinstance(front_end, CodecFrontEnd):
        parts = waveforms.split(_CLIPS_AT_ONCE)
        return torch.cat([codec_frames(front_end, part) for part in parts])
    return front_end(list(waveforms)).unflatten(0, (len(waveforms), -1))


def codec_frames(front_end, waveforms):
    """Return a codec's frames of waveforms of one length, all clips at once.

    On a GPU that takes a fraction of the launches; on a CPU, where clip by clip stays
    in the cache, it is slower.

    Parameters
    ----------
    front_end : CodecFrontEnd
    waveforms : tensor of shape (n_clips, n_samples)

    Returns
    -------
    frames : tensor of shape (n_clips, n_frames, n_features)
    """
    x = front_end.first(waveforms[:, None])
    for block in front_end.blocks:
        x = block(x if isinstance(block, ResidualBlock) else F.elu(x))
    own = x.permute(2, 0, 1).contiguous()
    hidden = F.elu(own + front_end.recurrent(own)[0])
    return front_end.last(hidden.permute(1, 2, 0)).transpose(1, 2)


def places_of(n_frames, hop, n_codes, code_hop):
    """Return which code each frame has, for frames as long as there are codes.

    Parameters
    ----------
    n_frames, n_codes : int
    hop, code_hop : int
        Samples from one to the next, at the same rate.

    Returns
    -------
    places : tensor of shape (at most n_frames,), int64

    Examples
    --------
    >>> from skaudioemb.pretraining.targets import places_of
    >>> places_of(4, 320, 3, 320), places_of(8, 320, 2, 1920)
    (tensor([0, 1, 2]), tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    """
    centres = torch.arange(n_frames) * 2 * hop + hop
    places = centres // (2 * code_hop)
    return places[places < n_codes]


def shares_of(errors):
    """Return the weights of streams from the errors of their codebooks.

    Parameters
    ----------
    errors : tensor of shape (n_codebooks,)
        Mean squared norms of what remains after each codebook.

    Returns
    -------
    gamma : tensor of shape (n_codebooks,)
        Their shares; equal ones if nothing remains.

    References
    ----------
    Pepino et al., "EnCodecMAE" (2023), section 3.1.
    """
    total = errors.sum()
    return errors / total if total > 0 else torch.full_like(errors, 1 / len(errors))
