"""Targets without any learned codec: spectra, projected and quantised at random."""

import torch
from torch import nn

# Width of what the codewords are compared with, as in BEST-RQ.
_CODE_FEATURES = 16


class RandomProjectionTargets(nn.Module):
    """Codes of frames by random projections and random codebooks.

    A frame is standardised, projected by a fixed random matrix, and has the code of
    the codeword that lies at the smallest angle. Each codebook has its own matrix.

    Parameters
    ----------
    n_inputs : int
        Width of a frame.
    n_codebooks, n_codes : int
        Number of codebooks, and of codewords in each.
    seed : int
        Decides matrices and codewords.

    References
    ----------
    C. Chiu et al., "Self-supervised Learning with Random-projection Quantizer for
    Speech Recognition" (2022), section 3.1; their frames are stacked by four.

    Examples
    --------
    >>> import torch
    >>> from skaudioemb.pretraining.random_projection import RandomProjectionTargets
    >>> targets = RandomProjectionTargets(4, n_codebooks=2, n_codes=8, seed=0)
    >>> frames = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> targets.learn([frames])(frames).shape
    torch.Size([100, 2])
    """

    def __init__(self, n_inputs, n_codebooks, n_codes, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        projections = torch.empty(n_codebooks, n_inputs, _CODE_FEATURES)
        for projection in projections:
            nn.init.xavier_uniform_(projection, generator=generator)
        shape = n_codebooks, _CODE_FEATURES, n_codes
        codewords = torch.randn(shape, generator=generator)
        self.register_buffer("projections", projections)
        self.register_buffer("codewords", nn.functional.normalize(codewords, dim=1))
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("deviation", torch.ones(n_inputs))

    @torch.no_grad()
    def learn(self, parts):
        """Learn mean and deviation of each feature, in one pass.

        Parameters
        ----------
        parts : iterable of tensor of shape (n_frames, n_inputs)

        Returns
        -------
        self : RandomProjectionTargets

        Raises
        ------
        ValueError
            If there is no frame.
        """
        count, mean, moment = 0, 0.0, 0.0
        for part in parts:
            values = part.double().cpu()
            distance = values.mean(0) - mean
            total = count + len(values)
            moment = moment + values.var(0, correction=0) * len(values)
            moment = moment + distance.square() * count * len(values) / total
            mean, count = mean + distance * len(values) / total, total
        if count == 0:
            raise ValueError(
                "There is no frame to learn from: no clip can be used. Set "
                "on_error='raise' to see why."
            )
        deviation = (moment / count).sqrt()
        # A feature that never changes stays at zero, whatever rounding makes of it.
        deviation[deviation <= 1e-4 * deviation.max()] = torch.inf
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return self

    @torch.no_grad()
    def forward(self, frames):
        """Return the codes of frames.

        Parameters
        ----------
        frames : tensor of shape (..., n_inputs)

        Returns
        -------
        codes : tensor of shape (..., n_codebooks), int64
        """
        frames = (frames - self.mean) / self.deviation
        # Its length does not matter for the angle of a projected frame.
        codes = [
            (frames @ projection @ codewords).argmax(-1)
            for projection, codewords in zip(
                self.projections, self.codewords, strict=True
            )
        ]
        return torch.stack(codes, dim=-1)
